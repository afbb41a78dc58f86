# SPDX-License-Identifier: Apache-2.0
"""Use case: root on a node resets a lost administrator password (P4)."""

from sparecode_node.domain.ids import AdministratorName, RequestId
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.domain.users import fold
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services import fields
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.errors import refusal
from sparecode_node.services.people.sessions import normal_password
from sparecode_node.services.secrets.kdf import SALT_BYTES, Kdf, KdfInput, Lane, Secret
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.administrators import ResetAdministrator

RESET_S = 30.0


class PasswordReset:
    """Resets passwords for root on the node's machine. The local socket admits root only."""

    def __init__(
        self, *, replicator: Replicator, sealing: Sealing, kdf: Kdf, entropy: Entropy
    ) -> None:
        self._replicator = replicator
        self._sealing = sealing
        self._kdf = kdf
        self._entropy = entropy

    async def reset_administrator(self, name: str, password: str, *, uid: int) -> None:
        """
        Set a temporary password for an administrator, through the log.

        Raises `InvalidFieldError`, `Refused` (`ADMINISTRATOR_UNKNOWN`) and
        `ProposeError`.
        """
        key = AdministratorName(fold(fields.administrator("administrator", name)))
        fields.new_password("password", password)
        salt, key_id = self._entropy.token_bytes(SALT_BYTES), self._sealing.active_key
        (hashed,) = await self._kdf.derive(
            [
                KdfInput(
                    secret=Secret.PASSWORD, salt=salt, text=normal_password(password)
                )
            ],
            lane=Lane.ISSUING,
            timeout_s=RESET_S,
        )
        node_id = self._replicator.node_id
        call = UnstampedCall.of_node(
            node_id,
            ResetAdministrator(
                name=key,
                password_salt=salt,
                password_verifier=self._sealing.password_verifier(hashed, key, key_id),
                key_id=key_id,
                uid=uid,
            ),
            RequestId(self._entropy.uuid()),
        )
        result = await self._replicator.propose(Proposal(call=call), timeout_s=RESET_S)
        if isinstance(result, Rejected):
            raise refusal(result)
