# SPDX-License-Identifier: Apache-2.0
"""
Confirms archived segments to the state, and has old ones removed by retention (U2, U4).

A node confirms what it has read back from its archive, and withdraws what it can no
longer read. The primary proposes the removal of segments that the policy no longer
keeps; apply judges it again. Nodes delete the events afterwards (`segments`).
"""

import asyncio
import logging
import sqlite3
from collections.abc import Set as AbstractSet

from sparecode_node.domain.ids import RequestId
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.domain.retention import RENEW_MS
from sparecode_node.domain.segments import common, holding_of, numbers_of
from sparecode_node.queries import archives, cluster, segment_holders
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.cluster.archive import SegmentArchive
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.segments import NoteArchive, RemoveSegments
from sparecode_node.statemachine.feature_level import AUDIT_SEGMENTS
from sparecode_node.statemachine.handlers.retention import NOTED_MAX, PLACE_MAX
from sparecode_node.statemachine.tables.archives import archiver_of

log = logging.getLogger(__name__)

LOOK_S = 5.0
"""Between two looks at the archive and the state."""
ATTEMPT_S = 5.0
NO_PLACE = "no archive"
"""The place of a node whose `node.toml` names no folder any more."""


class Retention:
    """The archive of this node in the state, and removal. Every node runs it."""

    def __init__(
        self,
        *,
        archive: SegmentArchive | None,
        replicator: Replicator,
        state: LocalState,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        self._archive = archive
        self._replicator = replicator
        self._state = state
        self._clock = clock
        self._entropy = entropy

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                await self.step()
            except (ProposeError, sqlite3.OperationalError) as error:
                # A snapshot of an older level has no such tables for a moment.
                log.debug("archives cannot be noted yet: %s", error)
            await asyncio.sleep(LOOK_S)

    async def step(self) -> None:
        """
        Confirm what this node has archived; on the primary, also remove what is due.

        Raises `ProposeError`.
        """
        async with self._state.transaction() as transaction:
            level = (await segment_holders.overview(transaction)).feature_level
        if level < AUDIT_SEGMENTS:
            return
        if self._archive is None:
            await self._withdraw()
        else:
            await self._confirm(self._archive)
        if self._replicator.primary == self._replicator.node_id:
            await self._remove()

    async def _confirm(self, archive: SegmentArchive) -> None:
        own = self._replicator.node_id
        async with self._state.transaction() as transaction:
            before = await archives.told(transaction, archiver_of(own))
            seen = await segment_holders.overview(transaction)
            log_ms = await cluster.now_ms(transaction)
        archive.told, confirmed = before, before.numbers
        # The archive works in a thread: its next look may be of another folder.
        found = archive.found
        if found.proved is None or not self._is_member():
            return
        proved = numbers_of(common(found.proved, ((seen.removed + 1, seen.last),)))
        # All that is gone at once, and of what is new as much as one command may say.
        told = (proved & confirmed) | set(sorted(proved - confirmed)[:NOTED_MAX])
        # A clock that is behind would let old events go unread.
        now_ms = max(self._clock.now_ms(), log_ms)
        # Who shares a folder counts only once, so the others must know of another one.
        is_due = bool(told) and (
            now_ms - before.said_ms >= RENEW_MS
            or found.folder_id != before.folder_id
            or not before.is_of_last_change
        )
        if told == confirmed and not is_due:
            return
        # A confirmation counts for all, and for days. What it lets go is read before.
        unread = await self._not_read(archive, told, now_ms)
        if unread and not confirmed - told:
            return
        told -= unread  # If something is withdrawn, this is not said to be there.
        # Another node may have made a new id where this one has read the former.
        if told and found.folder_changes != before.folder_changes:
            return
        holding = holding_of(told)
        async with self._state.transaction() as transaction:
            hash_after = await archives.hash_after(transaction, holding.through)
        if await self._not_read(archive, told | unread, now_ms) - unread:
            return  # Damage was found meanwhile.
        command = NoteArchive(
            node_id=own,
            place=str(archive.folder)[:PLACE_MAX],
            through=holding.through,
            missing=tuple(number for gap in holding.missing for number in gap),
            hash_after=hash_after,
            folder=found.folder_id if told else "",
            folder_changes=found.folder_changes if told else 0,
        )
        await self._propose(command)

    async def _not_read(
        self, archive: SegmentArchive, told: AbstractSet[int], now_ms: int
    ) -> frozenset[int]:
        async with self._state.transaction() as transaction:
            soon = await archives.soon_removable(transaction, now_ms)
        # Of what is told, not of what the archive has by now: that may be less.
        return archive.not_read(
            soon.numbers & told, now_ms=now_ms, since_ms=soon.since_ms
        )

    def _is_member(self) -> bool:
        members = {each.node_id for each in self._replicator.members()}
        return self._replicator.node_id in members

    async def _withdraw(self) -> None:
        """Withdraw what this node confirmed when it still had an archive."""
        own = self._replicator.node_id
        async with self._state.transaction() as transaction:
            before = await archives.told(transaction, archiver_of(own))
        if before.numbers and self._is_member():
            await self._propose(
                NoteArchive(node_id=own, place=NO_PLACE, through=0, hash_after=b"")
            )

    async def _remove(self) -> None:
        own = archiver_of(self._replicator.node_id)
        async with self._state.transaction() as transaction:
            through = await archives.removable(
                transaction, self._clock.now_ms(), most=NOTED_MAX
            )
            if not through:
                return
            hash_after = await archives.hash_after(transaction, through)
            told = await archives.told(transaction, own)
        if not self._is_to_withdraw(told.numbers, through):
            await self._propose(RemoveSegments(through=through, hash_after=hash_after))

    def _is_to_withdraw(self, told: AbstractSet[int], through: int) -> bool:
        """Return whether the state counts copies that this node no longer reads in its archive."""
        proved = None if self._archive is None else self._archive.found.proved
        return any(number <= through for number in told - numbers_of(proved or ()))

    async def _propose(self, command: NoteArchive | RemoveSegments) -> None:
        call = UnstampedCall.of_node(
            self._replicator.node_id, command, RequestId(self._entropy.uuid())
        )
        result = await self._replicator.propose(
            Proposal(call=call), timeout_s=ATTEMPT_S
        )
        if isinstance(result, Rejected):
            log.debug("%s was refused: %s", type(command).__name__, result.detail)
