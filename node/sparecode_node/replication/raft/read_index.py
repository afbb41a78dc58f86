# SPDX-License-Identifier: Apache-2.0
"""
Reads without the log: the leader confirms that it still leads (Raft thesis, 6.4).

A read is answered with the commit index of the moment in which its round began, once a
quorum has confirmed *after that moment* that it knows of no newer term. So no other
leader had committed anything before the read was requested. Reads that are requested
together share a round; no read joins a round that has begun.

A member that reads for its own callers tells its term, which it has looked up after
they asked. That is as good as an answer to a round: of three members, it and the leader
are a quorum, and no other member need be asked.
"""

import collections
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.errors import NotAppliedError, OverloadedError
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.settings import READS_WAITING_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPoint:
    """A state that has applied *index* covers everything committed before the read."""

    index: int
    state_ms: int
    """The state machine's time at that index, on the primary."""


ReadOutcome: TypeAlias = ReadPoint | NotAppliedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """
    A member's statement, made after a read was requested: it is in this term.

    So it has voted in no newer one.
    """

    member: str
    hello: Hello
    """What the member showed when its link to this node began."""
    term: int


@dataclass(slots=True)
class PendingRead:
    """A read that waits until a moment of the engine's clock."""

    deadline: float
    callback: Callable[[ReadOutcome], object]
    word: Word | None = None
    """For this read only: other reads may have been requested after it was given."""


@dataclass(slots=True)
class _ReadRound:
    """A question to all other members, sent in one moment."""

    number: int
    point: ReadPoint
    reads: list[PendingRead]
    confirmed_by: set[str] = field(default_factory=set)


@dataclass(slots=True)
class ReadIndex:
    """The reads of a leader. Belongs to the engine's thread."""

    send: Callable[[str, Message], object]
    _queue: list[PendingRead] = field(default_factory=list)
    _rounds: collections.deque[_ReadRound] = field(default_factory=collections.deque)
    _number: int = 0
    _asked_at: float = float("-inf")

    def submit(self, read: PendingRead) -> None:
        """Queue a read for the next round, or shed it."""
        if self._waiting() >= READS_WAITING_MAX:
            read.callback(OverloadedError("too many reads wait on the primary"))
        else:
            self._queue.append(read)

    @property
    def wait_elsewhere(self) -> bool:
        """Whether a read of another member is queued: it waits there for the index."""
        return any(read.word is not None for read in self._queue)

    def _waiting(self) -> int:
        return len(self._queue) + sum(len(r.reads) for r in self._rounds)

    def refuse(self, error: NotAppliedError) -> None:
        """Answer all waiting reads with an error: this node cannot know."""
        waiting = [*(read for r in self._rounds for read in r.reads), *self._queue]
        self._rounds.clear()
        self._queue.clear()
        for read in waiting:
            read.callback(error)

    def expire(self, now: float, error: NotAppliedError) -> None:
        """Answer reads after their deadline."""
        for reads in (self._queue, *(r.reads for r in self._rounds)):
            late = [read for read in reads if read.deadline <= now]
            if late:
                reads[:] = [read for read in reads if read.deadline > now]
            for read in late:
                read.callback(error)
        while self._rounds and not self._rounds[0].reads:
            self._rounds.popleft()

    def ask(
        self,
        *,
        term: int,
        point: ReadPoint,
        others: Iterable[str],
        now: float,
        again_s: float,
    ) -> None:
        """
        Begin a round for all queued reads; only while this node leads in *term*.

        Also repeats the question for rounds whose messages may be lost: a later round
        confirms the earlier ones, too.
        """
        others = sorted(others)
        self._answer_by_word(term, point, others)
        lost = bool(self._rounds) and now - self._asked_at >= again_s
        if not self._queue and not lost:
            return
        self._number += 1
        self._asked_at = now
        reads, self._queue = self._queue, []
        self._rounds.append(_ReadRound(self._number, point, reads))
        reach(Point.READ_ROUND)
        for other in others:
            self.send(
                other,
                {"type": frames.ASK_TO_CONFIRM, "term": term, "round": self._number},
            )
        self._answer_confirmed(len(others) + 1)

    def _answer_by_word(
        self, term: int, point: ReadPoint, others: Sequence[str]
    ) -> None:
        """Answer the reads for which a member's word and this node are a quorum."""
        if not any(read.word for read in self._queue):
            return
        queue, self._queue = self._queue, []
        for read in queue:
            if self._has_word_of_quorum(read, term, others):
                read.callback(point)
            else:
                self._queue.append(read)

    def _has_word_of_quorum(
        self, read: PendingRead, term: int, others: Sequence[str]
    ) -> bool:
        word = read.word
        counts = word is not None and word.term == term and word.member in others
        return counts and len(others) + 1 < 2 * 2  # The member and this node: a quorum.

    def keep_only(self, voters: frozenset[str]) -> None:
        """Do not count members that are not voters any more."""
        for current in self._rounds:
            current.confirmed_by &= voters

    def confirm(self, member: str, number: int, *, members: int) -> None:
        """
        Count a member that knew of no newer term.

        It received the message of round *number* after all rounds up to it had begun.
        """
        for current in self._rounds:
            if current.number <= number:
                current.confirmed_by.add(member)
        self._answer_confirmed(members)

    def _answer_confirmed(self, members: int) -> None:
        """Answer the rounds that a quorum has confirmed; this node is part of it."""
        while self._rounds and self._is_quorum(self._rounds[0], members):
            current = self._rounds.popleft()
            reach(Point.READ_CONFIRMED)
            for read in current.reads:
                read.callback(current.point)

    def _is_quorum(self, current: _ReadRound, members: int) -> bool:
        return 2 * (len(current.confirmed_by) + 1) > members
