# SPDX-License-Identifier: Apache-2.0
"""
Keeping the log short: when a snapshot is due, and which entries may be dropped.

Entries are dropped up to one that a durable snapshot covers, for followers that still
need them, and that no power cut takes this node's own state back before. Belongs to the
engine's thread.

Snapshots occupy the disk, so the members take turns, by the log's indexes, and the primary
is last. A snapshot that takes longer than a turn overlaps with the next member's.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.applied_state import AppliedState
from sparecode_node.replication.errors import SnapshotRefusedError
from sparecode_node.replication.log.format import bytes_of
from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.log.storage import Beside, at_once
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.replication.snapshots.store import Manifest, SnapshotStore

log = logging.getLogger(__name__)

EARLIEST = 0.5
"""The part of the entries that may come and go after which a snapshot may be taken."""


class Needs(Protocol):
    """What members need. `raft.retention.Retention` implements it."""

    @property
    def members(self) -> Sequence[str]:
        """The members that need the log as it is."""

    def keeps(self) -> bool:
        """Return whether the log, and the newest snapshot, must stay as they are."""


@dataclass(slots=True)
class Compaction:
    """The snapshots of a replica, and its log."""

    cluster_id: str
    store: SnapshotStore
    journal: Journal
    state: AppliedState
    settings: RaftSettings
    leader: Callable[[], str | None] = lambda: None
    retention: Needs | None = None
    """What members need of the log, and of the newest snapshot."""
    beside: Beside = at_once
    """Writes the rest of the log, which takes long on a slow disk."""
    _shortening: bool = False
    _kept: float = 0.0
    """The part of the log that came while it was kept: turns go on from there."""

    # --- Taking snapshots

    def is_due(self) -> bool:
        """Return whether a new snapshot would let the log become shorter."""
        newest = self.store.current
        if newest is None and self.journal.first_index > 1:
            return True
        if newest is not None and self._keeps():
            return False
        if self._skipped() > max(self.journal.first_index, self._newest()):
            return True
        return self._is_its_turn() and not self._is_worth_it(self._droppable())

    def _keeps(self) -> bool:
        return self.retention is not None and self.retention.keeps()

    def _skipped(self) -> int:
        """Return the index of the newest skipped entry, 0 if there is none (E3)."""
        return self.state.skipped[-1].index if self.state.skipped else 0

    def _newest(self) -> int:
        """Return the index of the newest snapshot, 0 if there is none."""
        return self.store.current.index if self.store.current is not None else 0

    def _is_its_turn(self) -> bool:
        """
        Return whether the log is so long that this member takes a snapshot.

        A follower does so in the third quarter of the entries that may come and go, a
        leader in the fourth. Within a quarter each member has its own part of the log's
        indexes, and begins in the first half of it. A member whose part has passed does
        not wait for the next one.
        """
        leader, filled = self.leader(), self._filled()
        if filled <= EARLIEST:
            return False
        members, own = self.journal.configuration.ids, self.journal.identity.node_id
        followers: list[str] = sorted(set(members) - {leader})
        leads = own not in followers
        place = len(followers) if leads else followers.index(own)
        part = max(1, self._span() // 4 // (len(followers) + 1))
        number, offset = divmod(self.journal.last_index - self._waiting(), part)
        begins = number % (len(followers) + 1) == place and 2 * offset < part
        start, end = (0.75, 1.0) if leads else (EARLIEST, 0.75)
        return filled > end or (filled > start and begins)

    def _span(self) -> int:
        """Return how many entries come and go between two compactions, at most."""
        return self.settings.log_entries_max - self.settings.log_entries_kept

    def _span_bytes(self) -> int:
        """Return how many bytes of them."""
        return self.settings.log_bytes_max - self.settings.log_bytes_kept

    def _waiting(self) -> int:
        """Return how many of the last entries this node has not applied yet."""
        journal = self.journal
        applied = max(self.state.applied_index, journal.first_index)
        return max(0, journal.last_index - applied)

    def _applied(self) -> tuple[int, int]:
        """Return how many entries of the log this node has applied, and their bytes."""
        journal = self.journal
        count = len(journal) - self._waiting()
        # Each tick asks, and a member that catches up may have many on either side.
        if count < len(journal) // 2:
            return count, bytes_of(journal[:count])
        return count, journal.bytes - bytes_of(journal[count:])

    def _filled(self) -> float:
        """
        Return 0 for a log with only what always stays, 1 for the longest one.

        Entries that wait to be applied do not count, because no snapshot covers them: a
        member that catches up would take one snapshot after another.
        """
        settings, (count, applied_bytes) = self.settings, self._applied()
        filled = max(
            (count - settings.log_entries_kept) / self._span(),
            (applied_bytes - settings.log_bytes_kept) / self._span_bytes(),
        )
        return filled - self._kept

    def _is_long(self) -> bool:
        settings, journal = self.settings, self.journal
        return (
            len(journal) > settings.log_entries_max
            or journal.bytes > settings.log_bytes_max
        )

    def describe(
        self, *, index: int, digest: str, length: int, sha256: bytes
    ) -> Manifest:
        """
        Return the manifest with which the written body can be adopted, in any thread.

        Raises `SnapshotRefusedError` if it is not newer, if a member needs the newest
        one, or if the log no longer has its entry.
        """
        newest = self.store.current
        if newest is not None and self._keeps():
            raise SnapshotRefusedError("a member needs the newest snapshot")
        term = self.journal.term_at(index)
        if term is None or (newest is not None and index <= newest.index):
            raise SnapshotRefusedError(f"a snapshot of entry {index} is not needed")
        return Manifest(
            cluster_id=self.cluster_id,
            index=index,
            term=term,
            configuration=self.journal.configuration_at(index),
            digest=digest,
            length=length,
            sha256=sha256,
        )

    # --- Dropping

    def run(self) -> None:
        """Compact the log if it is too long, as far as that is safe now."""
        self._count_kept()
        newest, first = self.store.current, self.journal.first_index
        if self._shortening or self._keeps():
            return
        if newest is None or newest.index <= first:
            return
        if first < (skipped := self._skipped()) <= newest.index:
            # A node that joins gets the decision with the snapshot, not the entry.
            self._compact(skipped if self._checkpointed() >= skipped else first)
        if self._filled() <= EARLIEST:
            return
        index = self._droppable()
        if self._is_worth_it(index) or (index > first and self._is_long()):
            self._compact(min(index, self._checkpointed()))

    def _is_worth_it(self, index: int) -> bool:
        """
        Return whether enough entries before *index* can go for a new log to be written.

        If fewer can, a turn is not missed for them: they go with the next snapshot. A
        checkpoint that is behind the newest snapshot leaves such a rest. Entries count
        as for the length of the log: a few large ones are many.
        """
        count = index - self.journal.first_index
        if count >= max(1, self._span() // 4):
            return True
        return count > 0 and bytes_of(self.journal[:count]) >= self._span_bytes() // 4

    def _compact(self, index: int) -> None:
        """Write the rest of the log beside the journal, and then go on there."""
        if self._shortening or index <= self.journal.first_index:
            return
        shortening = self.journal.shorten(index)
        self._shortening = True

        def take() -> None:
            self._shortening = False
            before = self._filled()
            if self.journal.take(shortening):
                reach(Point.LOG_SHORTENED)
                self._kept = max(0.0, self._kept - (before - self._filled()))
                log.info("log_compacted", extra={"first": index})

        self.beside(shortening.write, take)

    def _count_kept(self) -> None:
        """
        Let the turns begin where they were when the log had to be kept.

        Otherwise all members would take a snapshot at once when it need not be kept any
        longer.
        """
        filled = self._filled() + self._kept
        is_needed = self.retention is not None and bool(self.retention.members)
        if is_needed or filled <= EARLIEST:
            self._kept = max(0.0, filled - EARLIEST)

    def _checkpointed(self) -> int:
        return self.state.checkpoint()

    def _droppable(self) -> int:
        """Return the index up to which the newest snapshot allows to drop entries."""
        newest = self.store.current
        return 0 if newest is None else min(newest.index, self._first_kept())

    def _first_kept(self) -> int:
        """Return the index where the part of the log begins that always stays."""
        journal, settings = self.journal, self.settings
        size = 0
        for count, (command, index, _) in enumerate(reversed(journal[:]), start=1):
            size += len(command)
            if count > settings.log_entries_kept or size > settings.log_bytes_kept:
                return index
        return journal.first_index
