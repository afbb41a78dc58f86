# SPDX-License-Identifier: Apache-2.0
"""
Seals anew what is sealed with a key that is not active any more (T3, P5).

Every node runs this; the one that leads does it, so that whoever leads next goes on.
What to do is read from the state each time: nothing has to be remembered. A seal is
computed from what was read, and replaced in apply if it is that still, so a change
that came between wins. No person and no PIN is needed for it: the hash that only
those can make is inside.
"""

import asyncio
import logging
from collections.abc import Sequence

from sparecode_node.domain.ids import (
    AdministratorName,
    KeyId,
    NameKey,
    RequestId,
    TokenSerial,
    UserId,
)
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.queries import seals
from sparecode_node.queries.seals import StoredSeal
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.replication.settings import CALL_BYTES_MAX
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.load.pacing import Pace
from sparecode_node.services.secrets.kdf import Secret
from sparecode_node.services.secrets.keyring import UnknownKeyError
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing
from sparecode_node.statemachine.commands import Command, UnstampedCall
from sparecode_node.statemachine.commands.keys import (
    ReplacedSeal,
    ReplaceSeals,
    RetireKey,
    SealKind,
)

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""Between two looks for something to do."""
ATTEMPT_S = 5.0
ROWS_MAX = 100
"""In one command: the thread that applies it is nobody's for so long."""
BYTES_MAX = CALL_BYTES_MAX * 3 // 4
OVERHEAD_BYTES = 64
"""Of a row and of a seal in the log, at most, beside the seals themselves."""


class Resealer:
    """Replaces seals, and retires keys that nothing is sealed with; nobody waits for it."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        sealing: Sealing,
        clock: Clock,
        entropy: Entropy,
        pace: Pace,
    ) -> None:
        self._replicator = replicator
        self._state = state
        self._sealing = sealing
        self._clock = clock
        self._entropy = entropy
        self._pace = pace
        self._broken: set[StoredSeal] = set()

    async def run(self) -> None:
        """Do what there is to do, until cancelled."""
        while True:
            done = False
            try:
                async with self._pace.turn():
                    done = await self.step()
            except ProposeError as error:
                log.debug("seals cannot be replaced now: %s", error)
            except UnknownKeyError as error:
                log.warning("seals_not_replaced", extra={"cause": str(error)})
            if not done:
                await asyncio.sleep(LOOK_S)

    async def step(self) -> bool:
        """
        Replace one batch, or retire one key, if this node leads; False: nothing to do.

        Raises `ProposeError`, and `UnknownKeyError` when a key is not here yet.
        """
        leads = self._replicator.primary == self._replicator.node_id
        if not leads or not self._sealing.aging_keys:
            return False
        async with self._state.transaction() as transaction:
            keys = await seals.keys(transaction)
            found = await seals.to_replace(
                transaction, keys.active, most=ROWS_MAX + len(self._broken)
            )
        batch = await asyncio.to_thread(self._batch, found, keys.active)
        if batch:
            await self._propose(ReplaceSeals(key_id=keys.active, seals=batch))
            return True
        if found:
            return (
                False  # Only broken ones are left, and nothing is said of them twice.
            )
        now_ms = self._clock.now_ms()
        for key in keys.aging:
            if key.retire_at_ms is not None and key.retire_at_ms <= now_ms:
                result = await self._propose(RetireKey(key_id=key.key_id))
                if not isinstance(result, Rejected):
                    log.info("key_retired", extra={"key_id": key.key_id})
                    return True
        return False

    def _batch(
        self, found: Sequence[StoredSeal], active: KeyId
    ) -> tuple[ReplacedSeal, ...]:
        """Seal as much anew as fits into one command."""
        batch: list[ReplacedSeal] = []
        size = 0
        for each in found:
            if each in self._broken:
                continue
            seal = self._resealed(each, active)
            if seal is None:
                continue
            size += len(seal.row) + OVERHEAD_BYTES
            size += sum(len(each) + 3 for each in (*seal.old, *seal.new))
            if batch and size > BYTES_MAX:
                break
            batch.append(seal)
        return tuple(batch)

    def _resealed(self, found: StoredSeal, active: KeyId) -> ReplacedSeal | None:
        """Return the seal under the active key; None, and a word in the log: it is broken."""
        try:
            new = new_seals(self._sealing, found, active)
        except BrokenSealError as error:
            self._broken.add(found)
            log.warning(
                "seal_not_opened",
                extra={
                    "kind": found.kind.value,
                    "row": found.row,
                    "cause": str(error),
                },
            )
            if not found.void:
                return None
            new = ()  # Codes that nobody can use, and nobody knows whose: forgotten.
        return ReplacedSeal(
            kind=found.kind,
            row=found.row,
            old_key_id=found.key_id,
            old=found.sealed,
            new=new,
        )

    async def _propose(self, command: Command) -> object:
        node_id = self._replicator.node_id
        call = UnstampedCall.of_node(node_id, command, RequestId(self._entropy.uuid()))
        return await self._replicator.propose(Proposal(call=call), timeout_s=ATTEMPT_S)


def unopened(
    sealing: Sealing, found: Sequence[StoredSeal], active: KeyId
) -> tuple[StoredSeal, ...]:
    """Return those that cannot be sealed anew: they do not open with their key."""
    closed = []
    for each in found:
        try:
            new_seals(sealing, each, active)
        except BrokenSealError:
            closed.append(each)
        except UnknownKeyError:
            return ()  # This node cannot tell.
    return tuple(closed)


def new_seals(sealing: Sealing, found: StoredSeal, active: KeyId) -> tuple[bytes, ...]:
    """Return what the row holds under the active key. Raises `BrokenSealError`."""
    old = found.key_id

    def verifier(secret: Secret, sealed: bytes) -> bytes:
        return sealing.resealed_verifier(
            sealed, secret, *found.belongs_to, old_key=old, new_key=active
        )

    match found.kind:
        case SealKind.SEED:
            serial = TokenSerial(found.row)
            seed = sealing.unseal_seed(serial, found.sealed[0], old)
            return (sealing.seal_seed(serial, seed, active),)
        case SealKind.PIN:
            of, folded = found.sealed
            user, serial = UserId(found.belongs_to[0]), TokenSerial(found.row)
            if folded:
                pin = sealing.unseal_pin(user, serial, folded, old)
                folded = sealing.seal_pin(user, serial, pin, active)
            return (verifier(Secret.PIN, of), folded)
        case SealKind.CODES:
            return tuple(verifier(Secret.CODE, each) for each in found.sealed)
        case SealKind.PASSWORD | SealKind.PENDING_CHANGE:
            return (verifier(Secret.PASSWORD, found.sealed[0]),)
        case SealKind.SECOND_FACTOR:
            name = AdministratorName(found.row)
            seed = sealing.unseal_second_factor(name, found.sealed[0], old)
            return (sealing.seal_second_factor(name, seed, active),)
        case SealKind.NAME_TAG:
            return (sealing.name_tag(NameKey(found.belongs_to[0]), active),)
