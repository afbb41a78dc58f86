# SPDX-License-Identifier: Apache-2.0
"""
Replaces the ring's key after a removal that requires it (P6).

The commit of the removal records that another key is due. The call that removes the
member starts the rotation; if it is cut off, the primary starts it here. So a crash
leaves no key in force that a removed member has had.
"""

import asyncio
import logging

from sparecode_node.domain.ids import NodeId, RequestId
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.queries import seals
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.links.key_exchange import (
    CannotHoldError,
    KeyNotHeldError,
)
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.keys.key_holder import KeyHolder
from sparecode_node.services.keys.rotation import HAND_S
from sparecode_node.services.secrets.keyring_form import KEY_BYTES
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.keys import ActivateDueKey

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Between two looks at the state."""
WAIT_S = 15.0
"""The call that removed the member has this long to start the rotation itself."""
ATTEMPT_S = 5.0


class DueRotation:
    """Starts the rotation that a removal requires. Every node runs it, the primary acts."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        key_holder: KeyHolder,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._replicator = replicator
        self._state = state
        self._key_holder = key_holder
        self._clock = clock
        self._entropy = entropy
        self._seen: tuple[NodeId, float] | None = None
        self._logged = ""

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self.step()
            except (CannotHoldError, KeyNotHeldError, ProposeError) as error:
                words = str(error)
                if words != self._logged:
                    self._logged = words
                    log.warning("rotation_not_started", extra={"cause": words})
            await asyncio.sleep(LOOK_S)

    async def step(self) -> bool:
        """
        Activate a new key, if one is due for `WAIT_S` and this node is the primary.

        Returns whether it did. Raises `CannotHoldError`, `KeyNotHeldError` and
        `ProposeError`: then another step tries again.
        """
        async with self._state.transaction() as transaction:
            removed = await seals.rotation_due(transaction)
        now_s = self._clock.monotonic_s()
        if not removed:
            self._seen = None
            return False
        if self._seen is None or self._seen[0] != removed:
            self._seen = removed, now_s
        leads = self._replicator.primary == self._replicator.node_id
        members = {member.node_id for member in self._replicator.members()}
        # It must not be handed the new key, so the engine has to know first.
        if not leads or removed in members or now_s < self._seen[1] + WAIT_S:
            return False
        return await self._rotate(removed)

    async def _rotate(self, removed: NodeId) -> bool:
        replaces = self._key_holder.ring.active
        key = self._entropy.token_bytes(KEY_BYTES)
        fingerprint = await self._key_holder.hold(key, replaces=replaces)
        for node_id in self._key_holder.exchange.others:
            await self._key_holder.exchange.hand_to(
                node_id,
                key,
                replaces=replaces,
                fingerprint=fingerprint,
                timeout_s=HAND_S,
            )
        command = ActivateDueKey(
            fingerprint=fingerprint, replaces=replaces, node_id=removed
        )
        call = UnstampedCall.of_node(
            self._replicator.node_id, command, RequestId(self._entropy.uuid())
        )
        result = await self._replicator.propose(
            Proposal(call=call), timeout_s=ATTEMPT_S
        )
        if isinstance(result, Rejected):
            return False
        self._seen, self._logged = None, ""
        log.info("key_activated_after_removal", extra={"member": removed})
        return True
