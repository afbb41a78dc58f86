# SPDX-License-Identifier: Apache-2.0
"""
Use case: initialize a cluster with its first administrator (P4).

`sparecode-node init` writes a file of mode 0600 on one node. It holds the name of the
administrator and the verifier of the password, never the password. That node proposes
`InitializeCluster` until it is committed, and deletes the file.
"""

import asyncio
import base64
import json
import logging
from pathlib import Path

from sparecode_node.domain.ids import AdministratorName, KeyId, RequestId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.users import fold
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services import fields
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.load.fair_queue import administrators_share
from sparecode_node.services.secrets.kdf import SALT_BYTES, Kdf, KdfInput, Lane, Secret
from sparecode_node.services.secrets.keyring import write_private
from sparecode_node.services.secrets.password_strength import (
    check_new_password,
    normal_password,
)
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.cluster import InitializeCluster
from sparecode_node.statemachine.feature_level import NEWEST

log = logging.getLogger(__name__)

ATTEMPT_S = 5.0
RETRY_S = 0.5
HASH_S = 30.0


class FoundingError(Exception):
    """The founding file cannot be used. The message names it."""


async def prepare_founding(
    path: Path,
    *,
    administrator: str,
    password: str,
    sealing: Sealing,
    kdf: Kdf,
    entropy: Entropy,
) -> None:
    """
    Write the file that `Founder` reads.

    Raises `InvalidFieldError`, and `KeyRingError` if the file cannot be written.
    """
    fields.text(
        "administrator",
        administrator,
        at_least=1,
        at_most=fields.ADMINISTRATOR_NAME_MAX,
    )
    name = AdministratorName(fold(administrator))
    await check_new_password("password", password, name=name, second_factor=False)
    salt = entropy.token_bytes(SALT_BYTES)
    (hashed,) = await kdf.derive(
        [KdfInput(secret=Secret.PASSWORD, salt=salt, text=normal_password(password))],
        lane=Lane.ISSUING,
        share=administrators_share(name),
        timeout_s=HASH_S,
    )
    content = {
        "cluster_id": sealing.cluster_id,
        "request_id": entropy.uuid(),
        "administrator": name,
        "password_salt": base64.b64encode(salt).decode(),
        "password_verifier": base64.b64encode(
            sealing.password_verifier(hashed, name, sealing.active_key)
        ).decode(),
        "key_id": sealing.active_key,
    }
    write_private(path, json.dumps(content, indent=2).encode() + b"\n")


class Founder:
    """Proposes to initialize the cluster until that is committed."""

    def __init__(
        self, path: Path, *, command: InitializeCluster, request_id: RequestId
    ) -> None:
        self._path = path
        self._command = command
        self._request_id = request_id

    @classmethod
    def load(cls, path: Path, *, cluster_id: str) -> "Founder | None":
        """Read the founding file. None: there is none. Raises `FoundingError`."""
        try:
            content = json.loads(path.read_bytes())
            command = InitializeCluster(
                cluster_id=content["cluster_id"],
                administrator=AdministratorName(content["administrator"]),
                password_salt=base64.b64decode(content["password_salt"]),
                password_verifier=base64.b64decode(content["password_verifier"]),
                key_id=KeyId(content["key_id"]),
                feature_level=NEWEST,
            )
            request_id = RequestId(content["request_id"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FoundingError(f"{path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise FoundingError(
                f"{path}: not written by `sparecode-node init`; delete it and run "
                "`init` again"
            ) from error
        if command.cluster_id != cluster_id:
            raise FoundingError(
                f"{path}: made with the key ring of another cluster "
                f"({command.cluster_id}, this one is {cluster_id})"
            )
        return cls(path, command=command, request_id=request_id)

    async def run(self, replicator: Replicator) -> None:
        """Propose until it is decided, then delete the file."""
        proposal = Proposal(
            call=UnstampedCall.of_node(
                replicator.node_id, self._command, self._request_id
            )
        )
        while True:
            try:
                result = await replicator.propose(proposal, timeout_s=ATTEMPT_S)
            except ProposeError as error:
                log.debug("the cluster cannot be initialized yet: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            break
        match result:
            case Rejected(reason=Reason.ALREADY_INITIALIZED):
                log.warning(
                    "the cluster is already initialized; the administrator of this "
                    "file was not added",
                    extra={"file": str(self._path)},
                )
            case Rejected():
                log.error("the cluster cannot be initialized: %s", result.detail)
                return
            case _:
                log.info(
                    "the cluster is initialized",
                    extra={"administrator": self._command.administrator},
                )
        self._path.unlink(missing_ok=True)
