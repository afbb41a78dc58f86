# SPDX-License-Identifier: Apache-2.0
"""The progress of each follower, as the leader of a term knows it."""

from dataclasses import dataclass, field

from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.log.journal import Journal


@dataclass(slots=True)
class Progress:
    """The progress of a follower in the term in which this node leads."""

    term: int = 0
    acked: int = 0
    """Entries up to this index are on the follower's disk."""
    base: int = 0
    """The window of entries in flight begins here."""
    reset_at: float = 0.0
    """When the follower last asked to start again at another index."""
    heard_at: float = float("-inf")
    """When it last answered."""

    def acknowledge(self, index: int) -> None:
        """Record the last index on the follower's disk."""
        if index > self.acked:
            reach(Point.ACKNOWLEDGED)
        self.acked = max(self.acked, index)
        self.base = max(self.base, self.acked)


@dataclass(slots=True)
class Followers:
    """The progress of all followers; of each, in one term at a time."""

    journal: Journal
    _known: dict[str, Progress] = field(default_factory=dict)

    def progress(self, follower: str, term: int) -> Progress:
        """Return the progress of a follower in this term."""
        progress = self._known.get(follower)
        if progress is None or progress.term != term:
            # Its log is unknown yet: the window begins at the end of this log.
            progress = Progress(term=term, base=self.journal.last_index)
            self._known[follower] = progress
        return progress

    def bounded_reset(
        self,
        progress: Progress,
        wanted: int,
        *,
        under_way: int,
        now: float,
        heartbeat_s: float,
    ) -> int:
        """
        Return the index to send from: never one that is acknowledged.

        Answers to several messages about one gap ask for the same index. Only the first
        one counts: the others would only send everything again.
        """
        wanted = max(2, progress.acked + 1, min(wanted, self.journal.last_index + 1))
        repeated = progress.base == wanted - 1 and under_way > wanted
        if repeated and now - progress.reset_at < heartbeat_s:
            return under_way
        progress.base, progress.reset_at = wanted - 1, now
        return wanted
