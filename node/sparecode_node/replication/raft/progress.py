# SPDX-License-Identifier: Apache-2.0
"""How far each follower is, as the leader of a term knows it."""

from dataclasses import dataclass, field

from sparecode_node.replication.log.journal import Journal


@dataclass(slots=True)
class Progress:
    """How far a follower is, in the term in which this node leads."""

    term: int = 0
    acked: int = 0
    """Everything up to here is on the follower's disk."""
    base: int = 0
    """The window of entries in flight begins here."""
    reset_at: float = 0.0
    """When the follower last asked to begin again elsewhere."""
    heard_at: float = float("-inf")
    """When it answered last."""

    def acknowledge(self, index: int) -> None:
        """Take note of what the follower has on disk."""
        self.acked = max(self.acked, index)
        self.base = max(self.base, self.acked)


@dataclass(slots=True)
class Followers:
    """The progress of all of them; of each, in one term at a time."""

    journal: Journal
    _known: dict[str, Progress] = field(default_factory=dict)

    def progress(self, follower: str, term: int) -> Progress:
        """Return how far a follower is in this term."""
        progress = self._known.get(follower)
        if progress is None or progress.term != term:
            # Nothing is known of it: the window begins at the end of the log.
            progress = Progress(term=term, base=self.journal.last_index)
            self._known[follower] = progress
        return progress

    def forget(self, follower: str) -> None:
        """Know nothing more of a node: it is another one now, or none of us."""
        self._known.pop(follower, None)

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
        Return where to begin again: never below what is acknowledged.

        Answers to several messages of one gap ask for the same; the first one
        is heeded, the others would only send everything again.
        """
        wanted = max(2, progress.acked + 1, min(wanted, self.journal.last_index + 1))
        repeated = progress.base == wanted - 1 and under_way > wanted
        if repeated and now - progress.reset_at < heartbeat_s:
            return under_way
        progress.base, progress.reset_at = wanted - 1, now
        return wanted
