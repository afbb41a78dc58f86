# SPDX-License-Identifier: Apache-2.0
"""The judge of `make faults` is judged: it agrees with trying every order there is."""

import itertools
import random

import pytest

from tests.faults.checker import ABSENT, check, double_spends, linearizable, step
from tests.faults.history import History, Kind, Operation, Outcome, Result
from tests.faults.planted import Fault, history

TINY = 20_000
SEEDS = 40
OPERATIONS = 600

RESULTS = {
    Kind.ISSUE: [Result.ISSUED],
    Kind.CONSUME: [Result.ACCEPTED, Result.ACCEPTED, Result.REFUSED],
    Kind.REVOKE: [Result.REVOKED, Result.NOT_LIVE],
    Kind.READ: [Result.ABSENT, Result.LIVE, Result.SPENT, Result.DEAD],
}


def tiny_history(chance: random.Random) -> list[Operation]:
    """Return one to five operations on a code, answered at random."""
    count = chance.randint(1, 5)
    moments = chance.sample(range(100), 2 * count)
    found = []
    for number in range(count):
        begin, end = sorted(moments[2 * number : 2 * number + 2])
        kind = chance.choice([*Kind, Kind.CONSUME, Kind.CONSUME])
        operation = Operation(kind, "code", str(chance.randint(1, 3)), "n1", begin)
        fate = chance.random()
        if fate < 0.75:
            operation.outcome = Outcome.ANSWERED
            operation.returned_ns = end
            operation.result = chance.choice(RESULTS[kind])
        elif fate < 0.85:
            operation.outcome = Outcome.NOT_DONE
            operation.returned_ns = end
        found.append(operation)
    return found


def explained_by(order: tuple[Operation, ...]) -> bool:
    """Say whether *order* respects real time and gives every answer."""
    for earlier, later in itertools.combinations(order, 2):
        ended = later.outcome is Outcome.ANSWERED and later.returned_ns
        if ended and ended < earlier.invoked_ns:
            return False
    state = ABSENT
    for operation in order:
        result, state = step(state, operation)
        if operation.outcome is Outcome.ANSWERED and result is not operation.result:
            return False
    return True


def by_brute_force(operations: list[Operation]) -> bool:
    """Try every order of what was answered and of any part of what is unknown."""
    answered = [each for each in operations if each.outcome is Outcome.ANSWERED]
    unknown = [each for each in operations if each.outcome is Outcome.OPEN]
    return any(
        explained_by(order)
        for count in range(len(unknown) + 1)
        for part in itertools.combinations(unknown, count)
        for order in itertools.permutations([*answered, *part])
    )


def test_search_agrees_with_brute_force() -> None:
    """Twenty thousand random tiny histories, against all orders of each."""
    chance = random.Random(20_261_125)
    verdicts = []
    for _ in range(TINY):
        operations = tiny_history(chance)
        verdict = linearizable(operations)
        assert verdict == by_brute_force(operations), operations
        verdicts.append(verdict)
    # Both verdicts are well represented, or the comparison would say little.
    assert TINY // 10 < sum(verdicts) < TINY - TINY // 10


@pytest.mark.parametrize("lost", [0.0, 0.05, 0.3])
def test_correct_histories_are_not_flagged(lost: float) -> None:
    for seed in range(SEEDS):
        verdict = check(history(OPERATIONS, seed, lost=lost).codes)
        assert verdict.anomalies == 0, f"seed {seed}: {verdict}"


@pytest.mark.parametrize("fault", Fault)
def test_planted_faults_are_found(fault: Fault) -> None:
    """
    Most histories in which the register has acted on its fault are found wrong.

    Not all are: an answer that is late may have been right at some moment while
    it was under way, and then the history has nothing wrong in it.
    """
    struck = found = 0
    for seed in range(SEEDS):
        planted = history(OPERATIONS, seed, fault=fault)
        struck += planted.struck > 0
        found += check(planted.codes).anomalies > 0
    assert struck >= SEEDS // 2
    assert found >= struck * 0.8, f"{found} of {struck}"


def test_double_spends_are_counted_without_a_model() -> None:
    planted = history(OPERATIONS, 1, fault=Fault.DOUBLE_SPEND)
    verdict = check(planted.codes)
    assert verdict.double_spends
    assert set(verdict.double_spends) <= set(verdict.not_linearizable)
    assert not double_spends(
        each
        for operations in history(OPERATIONS, 1).codes.values()
        for each in operations
    )


class Told:
    """A history written as a story: each line an operation with its answer."""

    def __init__(self) -> None:
        self._now_ns = 0
        self.history = History(now_ns=self._tick)

    def _tick(self) -> int:
        self._now_ns += 1
        return self._now_ns

    def begin(self, kind: Kind, request_id: str = "") -> Operation:
        return self.history.invoke(kind, "code", request_id=request_id, node="n1")

    def tell(self, kind: Kind, result: Result, request_id: str = "") -> None:
        self.history.answer(self.begin(kind, request_id), result)

    @property
    def possible(self) -> bool:
        return check(self.history.of_codes()).anomalies == 0


def test_an_unknown_spend_may_take_effect_much_later() -> None:
    told = Told()
    told.tell(Kind.ISSUE, Result.ISSUED)
    told.history.unknown(told.begin(Kind.CONSUME, "one"), "timed out")
    told.tell(Kind.READ, Result.LIVE)
    told.tell(Kind.CONSUME, Result.REFUSED, "two")
    told.tell(Kind.CONSUME, Result.ACCEPTED, "one")
    assert told.possible


def test_what_was_not_done_must_not_show() -> None:
    told = Told()
    told.tell(Kind.ISSUE, Result.ISSUED)
    told.history.not_done(told.begin(Kind.CONSUME, "one"), "no quorum")
    told.tell(Kind.READ, Result.SPENT)
    assert not told.possible


def test_a_revocation_says_whether_there_was_something_to_revoke() -> None:
    told = Told()
    told.tell(Kind.ISSUE, Result.ISSUED)
    told.tell(Kind.CONSUME, Result.ACCEPTED, "one")
    told.tell(Kind.REVOKE, Result.REVOKED, "two")
    assert not told.possible


def test_every_line_of_the_file_is_written_before_and_after(tmp_path) -> None:
    file = tmp_path / "history.jsonl"
    history = History(file)
    operation = history.invoke(Kind.READ, "code", request_id="", node="n2")
    history.answer(operation, Result.LIVE)
    history.close()
    before, after = file.read_text().splitlines()
    assert '"outcome": "open"' in before
    assert '"result": "live"' in after
