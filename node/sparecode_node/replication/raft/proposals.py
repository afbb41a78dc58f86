# SPDX-License-Identifier: Apache-2.0
"""
Proposals on their way to the log: waiting, in an entry, answered.

Every proposal is answered exactly once, with one `Outcome`, whatever happens to the
entry that carries it.
"""

import collections
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.codec import CodecError, encode_entry
from sparecode_node.replication.errors import (
    NoPrimaryError,
    NotAppliedError,
    OutcomeUnknownError,
    OverloadedError,
    ProposeError,
)
from sparecode_node.replication.replicator import Proposal, Stamper
from sparecode_node.replication.settings import (
    CALLS_BESIDE_MAX,
    CALLS_PER_ENTRY_MAX,
    COMMAND_BYTES_MAX,
    ENTRIES_IN_FLIGHT_MAX,
    PROPOSALS_QUEUED_MAX,
)
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.results import Result

log = logging.getLogger(__name__)

EXPIRE_S = 0.01
"""Between two checks of the deadlines: there may be many proposals."""

Outcome: TypeAlias = Result | ProposeError
"""A result, or the error instead: `NotAppliedError` or `OutcomeUnknownError`."""


@dataclass(slots=True)
class Pending:
    """A proposal that waits for its outcome until a moment of the engine's clock."""

    proposal: Proposal
    deadline: float
    callback: Callable[[Outcome], object]
    _answered: bool = False

    @property
    def answered(self) -> bool:
        """Whether the outcome was reported."""
        return self._answered

    def answer(self, outcome: Outcome) -> None:
        """Report the outcome, but only the first time."""
        if not self._answered:
            self._answered = True
            self.callback(outcome)


@dataclass(slots=True)
class ProposedEntry:
    """The proposals in one entry, and the entry's bytes."""

    waiting: Sequence[Pending]
    payload: bytes
    term: int = 0

    def applied(self, results: Sequence[Result], *, count: int) -> None:
        """Report the results; *count* calls were in the entry."""
        if not len(results) == count == len(self.waiting):
            raise ValueError(
                f"{len(results)} results for {count} calls of"
                f" {len(self.waiting)} proposals"
            )
        for pending, result in zip(self.waiting, results, strict=True):
            pending.answer(result)

    def failed(self, error: ProposeError) -> None:
        """Report the same error for all proposals."""
        for pending in self.waiting:
            pending.answer(error)


@dataclass(slots=True)
class Proposals:
    """The queue on the primary, and the entries that are not applied yet."""

    stamper: Stamper
    _queue: collections.deque[Pending] = field(default_factory=collections.deque)
    _in_log: dict[int, ProposedEntry] = field(default_factory=dict)
    _expires_at: float = float("-inf")

    @property
    def in_flight(self) -> int:
        """The number of entries that are appended but not yet applied."""
        return len(self._in_log)

    @property
    def may_append(self) -> bool:
        """Whether another entry may be appended beside those in flight."""
        calls = sum(len(entry.waiting) for entry in self._in_log.values())
        return self.in_flight < ENTRIES_IN_FLIGHT_MAX and (
            calls <= CALLS_BESIDE_MAX or len(self._queue) >= CALLS_PER_ENTRY_MAX
        )

    @property
    def waiting(self) -> bool:
        """Whether a proposal waits to be appended."""
        return bool(self._queue)

    def submit(self, pending: Pending) -> None:
        """Queue a proposal, or shed it."""
        if len(self._queue) >= PROPOSALS_QUEUED_MAX:
            pending.answer(OverloadedError("too many proposals wait on the primary"))
        else:
            self._queue.append(pending)

    def refuse_queued(self, error: NotAppliedError) -> None:
        """Answer all queued proposals with an error: none of them was appended."""
        queue, self._queue = self._queue, collections.deque()
        for pending in queue:
            pending.answer(error)

    def lose_appended(self) -> None:
        """Answer all proposals in the log: the next leader decides about their entries."""
        lost, self._in_log = self._in_log, {}
        for batch in lost.values():
            batch.failed(OutcomeUnknownError("the primary lost its leadership"))

    def expire(self, now: float) -> None:
        """Answer proposals after their deadline; an appended one stays in the log."""
        if now < self._expires_at:
            return
        self._expires_at = now + EXPIRE_S
        if any(pending.deadline <= now for pending in self._queue):
            late = [p for p in self._queue if p.deadline <= now]
            self._queue = collections.deque(p for p in self._queue if p.deadline > now)
            for pending in late:
                pending.answer(OverloadedError("the deadline passed in the queue"))
        for batch in self._in_log.values():
            for pending in batch.waiting:
                if pending.deadline <= now and not pending.answered:
                    pending.answer(OutcomeUnknownError("the deadline passed"))

    def take(self) -> ProposedEntry | None:
        """Return the next entry to append, with as many queued proposals as fit."""
        while self._queue:
            count = min(len(self._queue), CALLS_PER_ENTRY_MAX)
            pendings = [self._queue.popleft() for _ in range(count)]
            if batch := self._fit(pendings):
                return batch
        return None

    def _fit(self, pendings: list[Pending]) -> ProposedEntry | None:
        """Return an entry with as many as fit; the others go back to the queue."""
        stamped = self._stamp(pendings)
        if len(stamped) != len(pendings):
            for pending in pendings:
                pending.answer(OverloadedError("the primary cannot stamp the call"))
            return None
        taken, calls = [], []
        for pending, each in zip(pendings, stamped, strict=True):
            if isinstance(each, NotAppliedError):
                pending.answer(each)
            else:
                taken.append(pending)
                calls.append(each)
        if not taken:
            return None
        pendings = taken
        while True:
            payload = _encoded(calls)
            if payload is not None and len(payload) <= COMMAND_BYTES_MAX:
                return ProposedEntry(pendings, payload)
            if len(pendings) == 1:
                pendings[0].answer(OverloadedError("the call is too large for the log"))
                return None
            half = len(pendings) // 2
            self._queue.extendleft(reversed(pendings[half:]))
            pendings, calls = pendings[:half], calls[:half]

    def _stamp(self, pendings: list[Pending]) -> Sequence[Call | NotAppliedError]:
        """
        Return the stamped calls; none if the stamper fails.

        It must not fail. But a proposal that makes it fail must not stop the primary:
        the same proposal would reach the next primary.
        """
        try:
            return self.stamper.stamp([pending.proposal for pending in pendings])
        except Exception:
            log.exception("stamping_failed")
            return ()

    def appended(self, batch: ProposedEntry, index: int, term: int) -> None:
        """Remember the proposals of the entry at *index*."""
        batch.term = term
        self._in_log[index] = batch
        reach(Point.ENTRY_APPENDED)

    def applied(
        self, index: int, term: int, results: Sequence[Result], *, count: int
    ) -> None:
        """Report the results of an entry to the proposals in it, if any."""
        batch = self._in_log.pop(index, None)
        if batch is None:
            return
        reach(Point.ANSWER)
        if batch.term == term:
            batch.applied(results, count=count)
        else:
            batch.failed(NoPrimaryError("another entry was committed in its place"))

    def stop(self) -> None:
        """Answer all proposals: this replica does nothing more."""
        self.refuse_queued(NoPrimaryError("the node is stopping"))
        self.lose_appended()


def _encoded(calls: Iterable[Call]) -> bytes | None:
    try:
        return encode_entry(tuple(calls))
    except CodecError:
        return None
