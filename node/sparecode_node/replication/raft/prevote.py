# SPDX-License-Identifier: Apache-2.0
"""
Pre-vote (Raft thesis, 9.6): a node that would not win does not raise the term.

PySyncObj has no pre-vote. Without it, a node that comes back from a partition deposes a
healthy leader with the term that it has counted up alone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.frames import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class ElectionState:
    """The state of a node that decides about a pre-vote."""

    term: int
    last_index: int
    last_term: int
    leader_is_alive: bool
    """This node leads, or has heard the leader within an election timeout."""


def answer(request: Message, election_state: ElectionState) -> Message:
    """Return the answer to a candidate: whether this node would vote for it."""
    theirs = (request["last_log_term"], request["last_log_index"])
    granted = (
        request["term"] > election_state.term
        and theirs >= (election_state.last_term, election_state.last_index)
        and not election_state.leader_is_alive
    )
    return {
        "type": frames.PRE_VOTE_ANSWER,
        "term": request["term"],
        "granted": granted,
        "current_term": election_state.term,
    }


@dataclass(slots=True)
class PreVote:
    """A round of requests, repeated as long as no majority would vote for this node."""

    send: Callable[[str, Message], object]
    patience: Callable[[], float]
    """How long to wait for answers; random, so that two nodes do not stay in step."""
    _term: int = 0
    _granted: set[str] = field(default_factory=set)
    _until: float = 0.0

    def forget(self) -> None:
        """End the round: there is a leader."""
        self._term = 0

    def won(
        self,
        election_state: ElectionState,
        others: Iterable[str],
        now: float,
        *,
        unanimous: bool = False,
    ) -> bool:
        """
        Return whether to campaign now; send the requests if that is due.

        Called in every tick in which an election is due. *unanimous*: all voters must
        grant the pre-vote, not only a majority.
        """
        others = sorted(others)
        term = election_state.term + 1
        if not others:
            return True
        needed = len(others) if unanimous else (len(others) + 1) // 2
        if self._term == term and len(self._granted) >= needed:
            self.forget()
            return True
        if self._term != term or now >= self._until:
            self._term, self._granted = term, set()
            self._until = now + self.patience()
            question = {
                "type": frames.PRE_VOTE,
                "term": term,
                "last_log_index": election_state.last_index,
                "last_log_term": election_state.last_term,
            }
            for other in others:
                self.send(other, dict(question))
        return False

    def count_answer(self, voter: str, message: Message) -> None:
        """Count an answer in the current round."""
        if message["granted"] and message["term"] == self._term:
            self._granted.add(voter)
