# SPDX-License-Identifier: Apache-2.0
"""
How long a log may be: while a member needs it, and while none does.

Without such a need, a longer log than in the settings is to be compacted: a snapshot is
taken, and the beginning of the log is dropped. That takes a while, and a process waits
with it after its start and after a failure. So when that time has passed, no more is left
of what had been applied before it than the settings allow, except for what was there
when the log was last kept for a member. How much comes meanwhile depends on the callers
alone, so nothing is said about that.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.settings import KEPT_LOG_FACTOR, RaftSettings
from tests.simulation.comparisons import Comparison
from tests.simulation.observed import Judge, Observed

KEPT_MAX = 1.25 * KEPT_LOG_FACTOR
"""
How many times as long as in the settings a log may be while it is kept for a member.
Later it may be longer: while a snapshot is written, nothing is cut off.
"""

TOLD_LATE_S = 1.0
"""How long the last word of a member that needs the log may be under way."""


def bytes_between(journal: Journal, first: int, last: int) -> int:
    """Return the size of the entries after *first* and up to *last*."""
    sizes = (len(entry) for entry, index, _ in journal[:] if first < index <= last)
    return sum(sizes)


@dataclass
class _Log:
    """What was seen of the log of a process."""

    life: int
    kept_to: int = 0
    """The last entry when the log was last kept for a member."""
    marked: int = 0
    """An entry that was applied, and when: what ends there must become short in time."""
    marked_at: float = 0.0


@dataclass
class LogLengths:
    """Judges the lengths of the logs of one cluster."""

    judge: Judge
    _now: float = 0.0
    _told: defaultdict[str, dict[str, float]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """Machine -> who needs its log, and when that was said last. One needs its own."""
    _logs: dict[str, _Log] = field(default_factory=dict)

    def needed(self, by: str, of: str) -> None:
        """Learn that a member tells another one to keep its log, or fetches from it."""
        self._told[of][by] = self._told[by][by] = self._now

    def look_at(self, node: Observed, now: float) -> None:
        """Judge the log of a running member."""
        self._now = now
        engine, journal = node.replica.engine, node.journal
        settings: RaftSettings = engine.settings
        log = self._logs.get(node.node_id)
        if log is None or log.life != node.life:
            log = self._logs[node.node_id] = _Log(node.life)
        if journal.is_held:  # A snapshot is being installed, and replaces the log.
            log.marked, log.marked_at = engine.raftLastApplied, now
            return
        is_kept = self._is_kept(node, settings, now)
        if is_kept:
            log.kept_to = journal.last_index
        if engine.retention.members:
            # Ends by rules of its own, and only the product knows when it has.
            self.judge.comparisons[Comparison.KEPT] += 1
            entries = len(journal) / settings.log_entries_max
            size = journal.bytes / settings.log_bytes_max
            if max(entries, size) > KEPT_MAX:
                seen = f"{len(journal)} entries, {journal.bytes} bytes"
                self._violated(node, seen)
        first = max(journal.first_index, log.kept_to)
        entries, size = log.marked - first, 0
        if journal.bytes > settings.log_bytes_max:
            size = bytes_between(journal, first, log.marked)
        is_long = entries > settings.log_entries_max or size > settings.log_bytes_max
        if is_kept or not is_long or node.takes_no_snapshot():
            log.marked, log.marked_at = engine.raftLastApplied, now
            return
        # After a start it waits for what members need. And one snapshot may have begun
        # just before the mark: then it takes two.
        waited_s, late_s = now - log.marked_at, 2 * settings.election_max_s
        self.judge.comparisons[Comparison.LONG_LOG] += 1
        if waited_s > late_s + 2 * node.snapshot_s():
            self._violated(
                node, f"{entries} entries, {size} bytes after {waited_s:.1f} s"
            )

    def _is_kept(self, node: Observed, settings: RaftSettings, now: float) -> bool:
        """Return whether a member may need the log; one without progress does not."""
        commit, journal = node.replica.engine.raftCommitIndex, node.journal
        committed = journal.configuration_at(commit)
        members = {*committed.ids, *journal.configuration.ids, node.node_id}
        since = now - settings.member_stalled_s - TOLD_LATE_S
        told = self._told[node.node_id]
        return any(by in members and at >= since for by, at in told.items())

    def _violated(self, node: Observed, seen: str) -> None:
        self.judge.violated("no log kept without a bound", f"{node.node_id}: {seen}")
