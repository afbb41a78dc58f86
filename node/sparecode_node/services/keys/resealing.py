# SPDX-License-Identifier: Apache-2.0
"""
Reseals values that are sealed with a key that is no longer active (T3, P5).

Every node runs this, but only the primary works; a new primary continues. The work is
read from the state each time, so nothing needs to be remembered. Apply replaces a seal
only if it is still the one that was read, so a change in between wins. Resealing needs
no PIN or password: the seal contains the hash. Neither do the tags that replace the
verifiers of former sets (A5).
"""

import asyncio
import logging
from collections.abc import Sequence

from sparecode_node.domain.ids import (
    AdministratorName,
    AgentIdentity,
    KeyId,
    NameKey,
    RequestId,
    SetId,
    TokenSerial,
    UserId,
)
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.fault_points import Point, reach
from sparecode_node.queries import cluster, seals
from sparecode_node.queries.seals import StoredSeal
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.replication.settings import CALL_BYTES_MAX
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.load.pacing import Pace
from sparecode_node.services.secrets.channel_seals import ChannelSeals
from sparecode_node.services.secrets.kdf import Secret
from sparecode_node.services.secrets.keyring import UnknownKeyError
from sparecode_node.services.secrets.radius_seals import RadiusSeals
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing
from sparecode_node.statemachine.commands import Command, UnstampedCall
from sparecode_node.statemachine.commands.keys import (
    ReplacedSeal,
    ReplaceSeals,
    RetireKey,
    SealKind,
)
from sparecode_node.statemachine.feature_level import (
    FORMER_CODES,
    FOUND_UNUSED,
    UNIQUE_SEEDS,
)

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""Between two searches for work."""
ATTEMPT_S = 5.0
TAGS_S = 60.0
"""How long a former set waits for others before its codes become tags."""
ROWS_MAX = 100
"""In one command: applying it blocks the engine's thread."""
BYTES_MAX = CALL_BYTES_MAX * 3 // 4
OVERHEAD_BYTES = 64
"""At most this much of a row or seal in the log, beside the seal's bytes."""


class Resealer:
    """
    Replaces seals in the background, and retires keys that seal nothing any more.

    It also replaces the codes of former sets by their tags.
    """

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
        self._every_seed_known = False
        """Whether every token has a fingerprint: each new one is enrolled with one."""
        self._tags_due_s: float | None = None
        """When the codes of waiting former sets become tags; None: no set waits."""

    async def run(self) -> None:
        """Work until cancelled."""
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
        Replace one batch or retire one key, if this node is the primary.

        Returns whether it did. Raises `ProposeError`, and `UnknownKeyError` if a key
        is not here yet.
        """
        if self._replicator.primary != self._replicator.node_id:
            return False
        async with self._state.transaction() as transaction:
            level = await cluster.feature_level(transaction)
            keys = await seals.keys(transaction)
            waiting: list[StoredSeal] = []
            if level >= FORMER_CODES:
                waiting = await seals.waiting_sets(transaction, most=ROWS_MAX)
            if not self._tags_are_due(waiting):
                waiting = []
            outdated: list[StoredSeal] = []
            if self._sealing.aging_keys or (
                level >= UNIQUE_SEEDS and not self._every_seed_known
            ):
                outdated = await seals.to_replace(
                    transaction, keys.active, most=ROWS_MAX + len(self._broken)
                )
        batch = await asyncio.to_thread(self._batch, [*waiting, *outdated], keys.active)
        if batch:
            reach(Point.SEALS_REPLACED)
            await self._propose(ReplaceSeals(key_id=keys.active, seals=batch))
            return True
        self._every_seed_known = level >= UNIQUE_SEEDS
        if outdated:
            return False  # Only broken seals are left; each was logged once.
        now_ms = self._clock.now_ms()
        for key in keys.aging:
            if key.retire_at_ms is not None and key.retire_at_ms <= now_ms:
                result = await self._propose(await self._retirement(key.key_id, level))
                if not isinstance(result, Rejected):
                    log.info("key_retired", extra={"key_id": key.key_id})
                    return True
        return False

    async def _retirement(self, key_id: KeyId, level: int) -> RetireKey:
        """Return the command that retires a key, after a look at every value (P5)."""
        if level < FOUND_UNUSED:
            return RetireKey(key_id=key_id)
        async with self._state.transaction() as transaction:
            used = await seals.is_used(transaction, key_id)
            unused_at = None if used else transaction.applied_index
        return RetireKey(key_id=key_id, unused_at=unused_at)

    def _tags_are_due(self, waiting: Sequence[StoredSeal]) -> bool:
        """
        Return whether to make tags of the codes of *waiting* sets now (A5).

        Each command is an event in the audit log, so the sets of a minute share one. A
        key that is to be retired does not wait.
        """
        now_s = self._clock.monotonic_s()
        if not waiting:
            self._tags_due_s = None
            return False
        if self._tags_due_s is None:
            self._tags_due_s = now_s + TAGS_S
        due = now_s >= self._tags_due_s or len(waiting) >= ROWS_MAX
        return due or bool(self._sealing.aging_keys)

    def _batch(
        self, outdated: Sequence[StoredSeal], active: KeyId
    ) -> tuple[ReplacedSeal, ...]:
        """Reseal as many values as fit into one command."""
        batch: list[ReplacedSeal] = []
        size = 0
        for each in outdated:
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

    def _resealed(self, seal: StoredSeal, active: KeyId) -> ReplacedSeal | None:
        """Return the seal under the active key. None: it is broken, which is logged."""
        try:
            new = new_seals(self._sealing, seal, active)
        except BrokenSealError as error:
            if not seal.void:  # Void codes are dropped below, once they are proposed.
                self._broken.add(seal)
            log.warning(
                "seal_not_opened",
                extra={
                    "kind": seal.kind.value,
                    "row": seal.row,
                    "cause": str(error),
                },
            )
            if not seal.void:
                return None
            new = ()  # Nothing can use void codes.
        return ReplacedSeal(
            kind=seal.kind,
            row=seal.row,
            old_key_id=seal.key_id,
            old=seal.sealed,
            new=new,
        )

    async def _propose(self, command: Command) -> object:
        node_id = self._replicator.node_id
        call = UnstampedCall.of_node(node_id, command, RequestId(self._entropy.uuid()))
        return await self._replicator.propose(Proposal(call=call), timeout_s=ATTEMPT_S)


def unopened(
    sealing: Sealing, outdated: Sequence[StoredSeal], active: KeyId
) -> tuple[StoredSeal, ...]:
    """Return the seals that cannot be replaced: they do not open with their key."""
    closed = []
    for each in outdated:
        try:
            new_seals(sealing, each, active)
        except BrokenSealError:
            closed.append(each)
        except UnknownKeyError:
            return ()  # This node lacks a key, so it cannot tell.
    return tuple(closed)


def new_seals(sealing: Sealing, seal: StoredSeal, active: KeyId) -> tuple[bytes, ...]:
    """Return the row's seals under the active key. Raises `BrokenSealError`."""
    old = seal.key_id

    def verifier(secret: Secret, sealed: bytes) -> bytes:
        return sealing.resealed_verifier(
            sealed, secret, *seal.belongs_to, old_key=old, new_key=active
        )

    match seal.kind:
        case SealKind.SEED:
            serial = TokenSerial(seal.row)
            seed = sealing.unseal_seed(serial, seal.sealed[0], old)
            return (sealing.seal_seed(serial, seed, active),)
        case SealKind.PIN:
            of, folded = seal.sealed
            return (verifier(Secret.PIN, of), _new_pin(sealing, seal, folded, active))
        case SealKind.CODES:
            return tuple(verifier(Secret.CODE, each) for each in seal.sealed)
        case SealKind.FORMER_CODES | SealKind.CODE_TAGS:
            return _new_tags(sealing, seal, active)
        case SealKind.PASSWORD | SealKind.PENDING_CHANGE | SealKind.PENDING_RESET:
            return (verifier(Secret.PASSWORD, seal.sealed[0]),)
        case (
            SealKind.SECOND_FACTOR
            | SealKind.RADIUS_SECRET
            | SealKind.CHANNEL_SECRET
            | SealKind.PENDING_CHANNEL
        ):
            return (_new_secret(sealing, seal, active),)
        case SealKind.NAME_TAG:
            return (sealing.name_tag(NameKey(seal.belongs_to[0]), active),)
        case SealKind.SEED_FINGERPRINT:
            seed = sealing.unseal_seed(TokenSerial(seal.row), seal.sealed[0], old)
            return (sealing.seed_fingerprint(seed, active),)


def _new_secret(sealing: Sealing, seal: StoredSeal, active: KeyId) -> bytes:
    """Return a sealed secret of an administrator, client or channel under the active key."""
    (sealed,) = seal.sealed
    if seal.kind in (SealKind.CHANNEL_SECRET, SealKind.PENDING_CHANNEL):
        channel, seals = NameKey(seal.belongs_to[0]), ChannelSeals(sealing.ring)
        return seals.seal_channel_secret(
            channel, seals.unseal_channel_secret(channel, sealed, seal.key_id), active
        )
    if seal.kind is SealKind.SECOND_FACTOR:
        name = AdministratorName(seal.row)
        seed = sealing.unseal_second_factor(name, sealed, seal.key_id)
        return sealing.seal_second_factor(name, seed, active)
    agent = AgentIdentity(seal.belongs_to[0])
    radius = RadiusSeals(sealing.ring)
    secret = radius.unseal_radius_secret(agent, seal.row, sealed, seal.key_id)
    return radius.seal_radius_secret(agent, seal.row, secret, active)


def _new_pin(sealing: Sealing, seal: StoredSeal, folded: bytes, active: KeyId) -> bytes:
    """Return the sealed PIN of a PINpad token under the active key; empty: it has none."""
    if not folded:
        return b""
    user, serial = UserId(seal.belongs_to[0]), TokenSerial(seal.row)
    pin = sealing.unseal_pin(user, serial, folded, seal.key_id)
    return sealing.seal_pin(user, serial, pin, active)


def _new_tags(sealing: Sealing, seal: StoredSeal, active: KeyId) -> tuple[bytes, ...]:
    """Return the tags of a former set, from its verifiers or from its older tags."""
    user = UserId(seal.belongs_to[0])
    if seal.kind is SealKind.CODE_TAGS:
        (tags,) = seal.sealed
        return (
            sealing.resealed_code_tags(tags, user, old_key=seal.key_id, new_key=active),
        )
    return tuple(
        sealing.code_tag_of(
            each, user, SetId(seal.row), old_key=seal.key_id, new_key=active
        )
        for each in seal.sealed
    )
