# SPDX-License-Identifier: Apache-2.0
"""
Check whether a single, correct register of codes could have given a history.

The check is exact. Linearizability (Herlihy and Wing, 1990) is local, so each code is
checked alone. The search of Wing and Gong, with the memory of Lowe ("Testing for
linearizability", 2017), tries orders until one explains every answer. It never tries
the same set of completed operations with the same resulting state twice.

An operation with an unknown outcome may take effect at any time after its invocation,
or never. An operation answered as not done must have no effect, so it is left out: if
it had an effect, no order explains what others saw.
"""

import enum
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tests.faults.history import Kind, Operation, Outcome, Result


class Phase(enum.Enum):
    """The life of a code."""

    ABSENT = enum.auto()
    LIVE = enum.auto()
    SPENT = enum.auto()
    DEAD = enum.auto()


State: TypeAlias = tuple[Phase, str]
"""The phase, and the request that spent or revoked the code."""

ABSENT: State = (Phase.ABSENT, "")
LIVE: State = (Phase.LIVE, "")

_SEEN = {
    Phase.ABSENT: Result.ABSENT,
    Phase.LIVE: Result.LIVE,
    Phase.SPENT: Result.SPENT,
    Phase.DEAD: Result.DEAD,
}


def step(state: State, operation: Operation) -> tuple[Result, State]:
    """Return what a correct register answers in *state*, and the state after it."""
    phase, request_id = state
    match operation.kind:
        case Kind.ISSUE:
            return Result.ISSUED, LIVE if phase is Phase.ABSENT else state
        case Kind.CONSUME:
            if phase is Phase.LIVE:
                return Result.ACCEPTED, (Phase.SPENT, operation.request_id)
            if state == (Phase.SPENT, operation.request_id):
                return Result.ACCEPTED, state  # The same request: the same answer (Q1).
            return Result.REFUSED, state
        case Kind.REVOKE:
            if phase is Phase.LIVE:
                return Result.REVOKED, (Phase.DEAD, operation.request_id)
            if phase is Phase.DEAD and request_id == operation.request_id:
                return Result.REVOKED, state
            return Result.NOT_LIVE, state
        case Kind.READ:
            return _SEEN[phase], state


def linearizable(operations: Iterable[Operation]) -> bool:
    """Return whether some order explains every answer about one code."""
    ordered = sorted(
        (each for each in operations if each.outcome is not Outcome.NOT_DONE),
        key=lambda each: each.invoked_ns,
    )
    answered = sum(
        1 << position
        for position, each in enumerate(ordered)
        if each.outcome is Outcome.ANSWERED
    )
    tried: set[tuple[int, State]] = set()
    waiting = [(0, ABSENT)]
    while waiting:
        done, state = waiting.pop()
        if done & answered == answered:
            return True
        if (done, state) in tried:
            continue
        tried.add((done, state))
        for position in _may_be_next(ordered, done):
            result, following = step(state, ordered[position])
            if ordered[position].outcome is Outcome.ANSWERED:
                if result is ordered[position].result:
                    waiting.append((done | 1 << position, following))
            elif following != state:
                # An unknown operation that changes nothing can be left out.
                waiting.append((done | 1 << position, following))
    return False


def _may_be_next(operations: Sequence[Operation], done: int) -> list[int]:
    """Return the operations that may come next: begun before any other has ended."""
    left = []
    first_end: int | None = None
    for position, each in enumerate(operations):
        if done >> position & 1:
            continue
        if first_end is not None and each.invoked_ns > first_end:
            break  # Sorted by time: later operations may not come next either.
        left.append(position)
        if each.outcome is Outcome.ANSWERED and each.returned_ns is not None:
            ended = each.returned_ns
            first_end = ended if first_end is None else min(first_end, ended)
    if first_end is None:
        return left
    return [each for each in left if operations[each].invoked_ns <= first_end]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The anomalies of a history."""

    codes: int
    double_spends: tuple[str, ...]
    """Codes accepted for more than one request, counted without the model."""
    not_linearizable: tuple[str, ...]
    """Codes with answers that no order explains."""

    @property
    def anomalies(self) -> int:
        """The number of codes with an anomaly."""
        return len({*self.double_spends, *self.not_linearizable})


def double_spends(operations: Iterable[Operation]) -> tuple[str, ...]:
    """Return the codes that were accepted for more than one request."""
    accepted = defaultdict(set)
    for each in operations:
        if each.kind is Kind.CONSUME and each.result is Result.ACCEPTED:
            accepted[each.code].add(each.request_id)
    return tuple(code for code, requests in accepted.items() if len(requests) > 1)


def check(histories: dict[str, list[Operation]]) -> Verdict:
    """Check the history of every code."""
    return Verdict(
        codes=len(histories),
        double_spends=double_spends(
            each for operations in histories.values() for each in operations
        ),
        not_linearizable=tuple(
            code
            for code, operations in histories.items()
            if not linearizable(operations)
        ),
    )
