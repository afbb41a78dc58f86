# SPDX-License-Identifier: Apache-2.0
"""
Use case: root on a node requests a reset of a lost administrator password (P4).

The request is announced for the policy's `reset_delay` before it is in force. A flood
of requests reaches neither the hashing nor the log: one administrator has one request
at a time, and requests have a rate.
"""

from sparecode_node.domain.ids import AdministratorName, RequestId
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.domain.resets import not_now, unknown
from sparecode_node.domain.users import fold
from sparecode_node.queries import administrators, cluster, membership, resets
from sparecode_node.queries.resets import PendingReset
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services import fields
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.errors import Refused, refusal
from sparecode_node.services.load.fair_queue import administrators_share
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.secrets.kdf import SALT_BYTES, Kdf, KdfInput, Lane, Secret
from sparecode_node.services.secrets.password_strength import (
    check_new_password,
    normal_password,
)
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.resets import ResetAdministrator
from sparecode_node.statemachine.feature_level import DELAYED_RESETS

RESET_S = 30.0


class Resets:
    """Requests resets for root on the machine. The local socket admits root only."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        sealing: Sealing,
        kdf: Kdf,
        rates: Rates,
        refusals: Refusals,
        entropy: Entropy,
    ) -> None:
        self._replicator = replicator
        self._state = state
        self._sealing = sealing
        self._kdf = kdf
        self._rates = rates
        self._refusals = refusals
        self._entropy = entropy

    async def reset_administrator(
        self, name: str, password: str, *, uid: int, second_factor: bool = False
    ) -> PendingReset | None:
        """
        Request a temporary password for an administrator, through the log.

        Return the request, which waits. None: the reset is in force, because the
        cluster's feature level is 1.

        Raises `InvalidFieldError`, `Refused` (`ADMINISTRATOR_UNKNOWN`, `RESET_PENDING`,
        `MEMBER_YOUNG`), `RateError` and `ProposeError`.
        """
        key = AdministratorName(fold(fields.administrator("administrator", name)))
        fields.secret("password", password, at_most=fields.PASSWORD_MAX)
        self._rates.reset(node_id=self._replicator.node_id)
        passed = await self._replicator.read_barrier(timeout_s=RESET_S)
        keeps_factor = await self._check(key, passed.at_ms) and not second_factor
        await check_new_password(
            "password", password, name=key, second_factor=keeps_factor
        )
        salt, key_id = self._entropy.token_bytes(SALT_BYTES), self._sealing.active_key
        (hashed,) = await self._kdf.derive(
            [
                KdfInput(
                    secret=Secret.PASSWORD, salt=salt, text=normal_password(password)
                )
            ],
            lane=Lane.ISSUING,
            share=administrators_share(f"root on {self._replicator.node_id}"),
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
                second_factor=second_factor,
            ),
            RequestId(self._entropy.uuid()),
        )
        result = await self._replicator.propose(Proposal(call=call), timeout_s=RESET_S)
        if isinstance(result, Rejected):
            raise refusal(result)
        await self._replicator.read_barrier(timeout_s=RESET_S)
        async with self._state.transaction() as transaction:
            return await resets.pending_of(transaction, key)

    async def _check(self, name: AdministratorName, now_ms: int) -> bool:
        """
        Return whether the administrator has a second factor; refuse what apply would refuse, before it costs a hash or a place in the log.

        Equal refusals share an audit event (U1).
        """
        node_id = self._replicator.node_id
        async with self._state.transaction() as transaction:
            waiting = await resets.pending_of(transaction, name)
            known = await administrators.password_parameters(transaction, name)
            others = await administrators.super_administrators(transaction)
            level = await cluster.feature_level(transaction)
            nodes = await membership.nodes(transaction)
        rejected = None
        if known is None:
            rejected = unknown(name, others)
        elif level >= DELAYED_RESETS:
            rejected = not_now(
                name,
                node_id=node_id,
                node=next((each for each in nodes if each.node_id == node_id), None),
                is_pending=waiting is not None,
                now_ms=now_ms,
            )
        if rejected is not None:
            self._refusals.record(
                "ResetAdministrator", rejected.reason, f"node:{node_id}"
            )
            raise Refused(rejected)
        return known is not None and known.second_factor
