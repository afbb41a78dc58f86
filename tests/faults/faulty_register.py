# SPDX-License-Identifier: Apache-2.0
"""
Histories of a register of codes that is correct, or has one deliberate fault.

Clients make random, overlapping calls, and some answers are lost. Each call takes
effect at one moment between its invocation and its answer. Everything is seeded.
"""

import enum
import heapq
import random
from dataclasses import dataclass, field

from tests.faults.checker import ABSENT, LIVE, Phase, State, step
from tests.faults.history import Kind, Operation, Outcome, Result

NEWEST = 60
"""Clients use the newest codes only."""


class Fault(enum.StrEnum):
    """The fault of the register, which it acts on sometimes."""

    DOUBLE_SPEND = "accepts a spent code once more"
    LOST_ISSUE = "acknowledges an issue and forgets it"
    ACCEPT_AFTER_VOID = "accepts a code that was revoked"
    STALE_READ = "reads the state before the last change"
    STALE_REFUSAL = "refuses a live code"
    LOST_SPEND = "acknowledges a spend and forgets it"
    APPLIED_AFTER_ALL = "reports that nothing was applied, and applies"
    RETRY_FORGOTTEN = "refuses a request that it has accepted before"


@dataclass
class Planted:
    """A history, and how often the register acted on its fault."""

    codes: dict[str, list[Operation]]
    struck: int


@dataclass
class _Register:
    chance: random.Random
    fault: Fault | None
    states: dict[str, State] = field(default_factory=dict)
    before: dict[str, State] = field(default_factory=dict)
    struck: int = 0

    def apply(self, operation: Operation) -> Result:
        """Return the answer, which the fault may make wrong."""
        code = operation.code
        state = self.states.get(code, ABSENT)
        result, following = step(state, operation)
        if self.chance.random() < 0.05:
            result, following = self._wrong(operation, state, result, following)
        if following != state:
            self.before[code] = state
        self.states[code] = following
        return result

    def _wrong(
        self, operation: Operation, state: State, result: Result, following: State
    ) -> tuple[Result, State]:
        right = result, following
        match self.fault, operation.kind, state[0]:
            case (Fault.DOUBLE_SPEND, Kind.CONSUME, Phase.SPENT):
                wrong = Result.ACCEPTED, state
            case (Fault.ACCEPT_AFTER_VOID, Kind.CONSUME, Phase.DEAD):
                wrong = Result.ACCEPTED, state
            case (Fault.LOST_ISSUE, Kind.ISSUE, Phase.ABSENT):
                wrong = result, ABSENT
            case (Fault.STALE_REFUSAL, Kind.CONSUME, Phase.LIVE):
                wrong = Result.REFUSED, LIVE
            case (Fault.LOST_SPEND, Kind.CONSUME, Phase.LIVE):
                wrong = result, LIVE
            case (Fault.RETRY_FORGOTTEN, Kind.CONSUME, Phase.SPENT):
                wrong = Result.REFUSED, state
            case (Fault.STALE_READ, Kind.READ, _):
                old = self.before.get(operation.code, state)
                wrong = step(old, operation)[0], state
            case _:
                return right
        self.struck += wrong != right
        return wrong


def history(
    operations: int,
    seed: int,
    *,
    fault: Fault | None = None,
    clients: int = 16,
    lost: float = 0.05,
) -> Planted:
    """Return a random history of *operations* operations; a part *lost* has no answer."""
    chance = random.Random(seed)
    register = _Register(chance, fault)
    moments: list[tuple[int, int, int, int]] = []
    free = [(0, client) for client in range(clients)]
    for number in range(operations):
        at, client = heapq.heappop(free)
        begin = at + chance.randint(1, 10_000)
        end = begin + chance.randint(2, 50_000)
        moments.append((chance.randint(begin + 1, end - 1), number, begin, end))
        heapq.heappush(free, (end, client))
    codes: dict[str, list[Operation]] = {}
    for _, number, begin, end in sorted(moments):
        operation = _ask(chance, codes, number, begin)
        codes.setdefault(operation.code, []).append(operation)
        if chance.random() >= lost:
            operation.result = register.apply(operation)
            operation.returned_ns = end
            operation.outcome = Outcome.ANSWERED
        elif fault is Fault.APPLIED_AFTER_ALL and operation.kind is Kind.CONSUME:
            register.struck += register.apply(operation) is Result.ACCEPTED
            operation.outcome = Outcome.NOT_DONE
        elif chance.random() < 0.5:
            register.apply(operation)
    return Planted(codes, register.struck)


def _ask(
    chance: random.Random, codes: dict[str, list[Operation]], number: int, begin: int
) -> Operation:
    """Return a new operation: an issue, or another kind on one of the newest codes."""
    choice = chance.random()
    if choice < 0.2 or not codes:
        return Operation(Kind.ISSUE, f"code-{number}", "", "n1", begin)
    newest = list(codes)[-NEWEST:]
    code = newest[-1 - int(chance.random() ** 2 * len(newest))]
    if choice < 0.75:
        earlier = [each for each in codes[code] if each.kind is Kind.CONSUME]
        again = chance.random() < 0.2 and earlier
        request_id = chance.choice(earlier).request_id if again else f"request-{number}"
        return Operation(Kind.CONSUME, code, request_id, "n1", begin)
    if choice < 0.85:
        return Operation(Kind.REVOKE, code, f"request-{number}", "n1", begin)
    return Operation(Kind.READ, code, "", "n1", begin)
