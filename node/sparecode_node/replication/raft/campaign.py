# SPDX-License-Identifier: Apache-2.0
"""
Whether this node campaigns, and which votes it counts.

PySyncObj counts messages of any sender, and campaigns whenever it hears nothing. Here a
voter counts once, in the current term, if it is a voter by the newest configuration.
And a node that would not win does not raise the term (`prevote`).
"""

from dataclasses import dataclass, field
from typing import Protocol

from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.raft.clock_watch import Agreement, ClockWatch
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.prevote import ElectionState, PreVote


class Candidate(Protocol):
    """The engine, as far as elections know it. Keeps PySyncObj out of this module."""

    @property
    def raftCurrentTerm(self) -> int:
        """Its term."""

    def _isLeader(self) -> bool:
        """Return whether it leads."""


@dataclass(slots=True)
class Campaign:
    """The elections of one node. Belongs to the engine's thread."""

    engine: Candidate
    journal: Journal
    clocks: ClockWatch
    prevote: PreVote
    election_min_s: float
    heard_at: float = float("-inf")
    """When a leader was last heard."""
    _called_up_in: int = -1
    """The term in which the leader told this node to take over."""
    _votes: tuple[int, set[str]] = field(default_factory=lambda: (0, set()))

    def voters(self) -> frozenset[str]:
        """Return the other voters, by the newest configuration."""
        return self.journal.configuration.voters - {self.journal.identity.node_id}

    def _counts_itself(self) -> bool:
        return self.journal.identity.node_id in self.journal.configuration.voters

    def _has_lost_its_journal(self) -> bool:
        """Return whether the configuration names another journal for this node."""
        own, journal = self.journal.identity.node_id, self.journal.journal_id
        return self.journal.configuration.names_another_journal(own, journal)

    def election_state(self, now: float) -> ElectionState:
        """Return what decides about a pre-vote on this node."""
        silent_s = now - self.heard_at
        return ElectionState(
            term=self.engine.raftCurrentTerm,
            last_index=self.journal.last_index,
            last_term=self.journal.last_term,
            leader_is_alive=self.engine._isLeader() or silent_s < self.election_min_s,
        )

    def call_up(self) -> None:
        """Record that the leader of this term wants this node to lead."""
        self._called_up_in = self.engine.raftCurrentTerm
        reach(Point.CALLED_UP)

    def is_called_up(self) -> bool:
        """Return whether the leader wants this node to campaign at once."""
        return self._called_up_in == self.engine.raftCurrentTerm

    def may_begin(self, now: float) -> bool:
        """Return whether enough voters would vote for this node; ask them first."""
        others = self.voters()
        if self.journal.boots.refused_by or not self._counts_itself():
            return False
        if self.journal.is_held or self._has_lost_its_journal():
            return False
        if self.clocks.agreement(others, now) is Agreement.NO:
            return False  # It could not stamp anything (T5).
        if self.is_called_up():
            self._called_up_in = -1
            return True
        return self.prevote.won(
            self.election_state(now), others, now, unanimous=self._needs_everybody()
        )

    def _needs_everybody(self) -> bool:
        """
        Return whether all voters must agree, because a journal may be lost.

        Nodes that have lost their journals must not start the cluster again while a
        member that has its journal is away. Once the journals have names, a loss is
        noticed.
        """
        return not self.journal.configuration.is_named

    def count_pre_vote(self, voter: str, message: Message) -> None:
        """Count the answer of a voter."""
        if voter in self.voters():
            self.prevote.count_answer(voter, message)

    def why_not_counted(self, voter: str, term: int) -> str | None:
        """Count a vote, or return why it does not count."""
        current = self.engine.raftCurrentTerm
        if term != current or voter not in self.voters():
            return "vote of another term, or of a node that is not a voter"
        if self._votes[0] != current:
            self._votes = (current, set())
        if self._has_voted(voter):
            return "duplicate vote"
        self._votes[1].add(voter)
        return None

    def to_pass(self, voter: str) -> list[str]:
        """
        Return whose votes the engine may count, now that this voter's is there.

        PySyncObj leads with a majority. While all must agree, votes wait for the last.
        """
        if not self._needs_everybody():
            return [voter]
        cast = self._votes[1]
        return sorted(cast) if self.voters() <= cast else []

    def _has_voted(self, voter: str) -> bool:
        return voter in self._votes[1]
