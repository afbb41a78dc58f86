# SPDX-License-Identifier: Apache-2.0
"""
What a leader sends to its followers, and when.

PySyncObj would send everything at once, may spin for a heartbeat over it, cuts large
entries into pickled pieces, and sends a snapshot to every follower too far behind.
"""

from dataclasses import dataclass
from math import inf

from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.log.format import Entry
from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.raft.frames import (
    APPEND_ENTRIES,
    OFFER_SNAPSHOT,
)
from sparecode_node.replication.raft.leader import Leader
from sparecode_node.replication.settings import APPEND_BYTES_MAX, WINDOW_ENTRIES


@dataclass(slots=True)
class Sender:
    """Sends each follower the entries it lacks, within its window, or offers a snapshot."""

    leader: Leader
    journal: Journal
    _announces: bool = False
    _untold_until: float = inf
    """Until then the followers may lack the commit index; infinite: they have it."""

    def announce(self) -> None:
        """
        Make `send` send a message to every follower, at least a heartbeat.

        PySyncObj asks for it before the proposals of the same tick are appended. Sent
        at once, it would be a separate message with a separate answer.
        """
        self._announces = True

    def tell_committed(self, *, until: float) -> None:
        """
        Tell the followers the commit index by then at the latest.

        No answer waits for it. Most often the next entry, which carries the index, is
        sent earlier: a separate message costs as much as applying the entry.
        """
        self._untold_until = min(self._untold_until, until)

    def tell_now(self) -> None:
        """Tell the commit index at once: a reader waits until a follower has applied it."""
        self._announces = self._announces or self._untold_until < inf

    def send(self, now: float) -> None:
        """Send what is due, at the end of a tick: one message for all of it."""
        if self._announces or self._untold_until <= now:
            self.send_all()
        elif self.send_open():
            self._untold_until = inf

    def send_all(self) -> None:
        """Send entries or a heartbeat to every follower."""
        self._announces, self._untold_until = False, inf
        for follower in self.leader.linked_followers():
            if not self._reaches(follower):
                self._offer_snapshot(follower)
            self._send_entries(follower)

    def send_open(self) -> bool:
        """
        Send what has come into a window since: new entries, or older ones that now fit.

        PySyncObj would wait for the next heartbeat. Return whether every follower was
        sent a message, and so has the commit index, too.
        """
        complete = True
        for follower in self.leader.linked_followers():
            open_from = self.leader.next_index(follower)
            if self._reaches(follower) and open_from <= self._window_end(follower):
                self._send_entries(follower)
            else:
                complete = False
        return complete

    def _offer_snapshot(self, follower: str) -> None:
        """
        Tell a follower that the log begins after the entries that it lacks.

        The append that follows starts at the end of the log. The follower refuses it,
        does not campaign, and answers with its last index.
        """
        first, term = self.journal.first_index, self.leader.raftCurrentTerm
        offer = {"type": OFFER_SNAPSHOT, "term": term, "index": first}
        self.leader.send(follower, offer)
        self.leader.set_next_index(follower, self.journal.last_index + 1)

    def _reaches(self, follower: str) -> bool:
        """Return whether the log reaches back to what a follower has."""
        return self.leader.next_index(follower) > self.journal.first_index

    def _window_end(self, follower: str) -> int:
        base = self.leader.acknowledged(follower)
        return min(self.journal.last_index, base + WINDOW_ENTRIES)

    def _send_entries(self, follower: str) -> None:
        end = self._window_end(follower)
        first = True
        while first or self.leader.next_index(follower) <= end:
            first = False
            previous = self.leader.next_index(follower) - 1
            entries = self._entries(previous + 1, end)
            if entries:
                self.leader.set_next_index(follower, entries[-1][1] + 1)
            message = {
                "type": APPEND_ENTRIES,
                "term": self.leader.raftCurrentTerm,
                "commit_index": self.leader.raftCommitIndex,
                "entries": entries,
                "prevLogIdx": previous,
                "prevLogTerm": self.journal.term_at(previous),
            }
            self.leader.send(follower, message)
            if entries:
                reach(Point.ENTRIES_SENT)

    def _entries(self, first: int, last: int) -> list[Entry]:
        """Return the entries from *first* to *last*, as many as one message may carry."""
        entries, size = [], 0
        for index in range(first, last + 1):
            entry = self.journal.entry(index)
            entries.append(entry)
            size += len(entry[0])
            if size >= APPEND_BYTES_MAX:
                break
        return entries
