# SPDX-License-Identifier: Apache-2.0
"""The checker of `make faults` agrees with brute force over all orders."""

import itertools
import random
from typing import TypeAlias

import pytest

from tests.faults.checker import ABSENT, check, double_spends, linearizable, step
from tests.faults.faulty_register import Fault, history
from tests.faults.final_state import lost
from tests.faults.history import History, Kind, Operation, Outcome, Result

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
    results = []
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
        results.append(operation)
    return results


def explained_by(order: tuple[Operation, ...]) -> bool:
    """Return whether *order* respects real time and gives every answer."""
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
    """Try every order of the answered operations and any part of the unknown ones."""
    answered = [each for each in operations if each.outcome is Outcome.ANSWERED]
    unknown = [each for each in operations if each.outcome is Outcome.OPEN]
    return any(
        explained_by(order)
        for count in range(len(unknown) + 1)
        for part in itertools.combinations(unknown, count)
        for order in itertools.permutations([*answered, *part])
    )


def test_search_agrees_with_brute_force() -> None:
    """Twenty thousand random tiny histories, compared with all orders of each."""
    chance = random.Random(20_261_125)
    verdicts = []
    for _ in range(TINY):
        operations = tiny_history(chance)
        verdict = linearizable(operations)
        assert verdict == by_brute_force(operations), operations
        verdicts.append(verdict)
    # Both verdicts must be frequent, or the comparison would prove little.
    assert TINY // 10 < sum(verdicts) < TINY - TINY // 10


@pytest.mark.parametrize("lost", [0.0, 0.05, 0.3])
def test_correct_histories_are_not_flagged(lost: float) -> None:
    for seed in range(SEEDS):
        verdict = check(history(OPERATIONS, seed, lost=lost).codes)
        assert verdict.anomalies == 0, f"seed {seed}: {verdict}"


@pytest.mark.parametrize("fault", Fault)
def test_planted_faults_are_found(fault: Fault) -> None:
    """
    Most histories in which the register acted on its fault are found wrong.

    Some are not: a late answer may have been right at some moment of the call, and
    then the history is correct.
    """
    struck = result = 0
    for seed in range(SEEDS):
        planted = history(OPERATIONS, seed, fault=fault)
        struck += planted.struck > 0
        result += check(planted.codes).anomalies > 0
    assert struck >= SEEDS // 2
    assert result >= struck * 0.8, f"{result} of {struck}"


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


class Record:
    """Builds a history by hand: each line is an operation with its answer."""

    def __init__(self) -> None:
        self._now_ns = 0
        self.history = History(now_ns=self._tick)

    def _tick(self) -> int:
        self._now_ns += 1
        return self._now_ns

    def begin(self, kind: Kind, request_id: str = "") -> Operation:
        return self.history.invoke(kind, "code", request_id=request_id, node="n1")

    def answered(self, kind: Kind, result: Result, request_id: str = "") -> None:
        self.history.answer(self.begin(kind, request_id), result)

    @property
    def possible(self) -> bool:
        return check(self.history.of_codes()).anomalies == 0


def test_an_unknown_spend_may_take_effect_much_later() -> None:
    record = Record()
    record.answered(Kind.ISSUE, Result.ISSUED)
    record.history.unknown(record.begin(Kind.CONSUME, "one"), "timed out")
    record.answered(Kind.READ, Result.LIVE)
    record.answered(Kind.CONSUME, Result.REFUSED, "two")
    record.answered(Kind.CONSUME, Result.ACCEPTED, "one")
    assert record.possible


def test_an_operation_answered_as_not_done_must_have_no_effect() -> None:
    record = Record()
    record.answered(Kind.ISSUE, Result.ISSUED)
    record.history.not_done(record.begin(Kind.CONSUME, "one"), "no quorum")
    record.answered(Kind.READ, Result.SPENT)
    assert not record.possible


@pytest.mark.parametrize("protocol", ["", "HTTP", "RADIUS"])
def test_no_protocol_is_left_out(protocol: str) -> None:
    """A second acceptance, and another answer to a copy, however they came."""
    for request_id, result in (("two", Result.ACCEPTED), ("one", Result.REFUSED)):
        record = Record()
        record.answered(Kind.ISSUE, Result.ISSUED)
        record.answered(Kind.CONSUME, Result.ACCEPTED, "one")
        wrong = record.begin(Kind.CONSUME, request_id)
        wrong.protocol = protocol
        record.history.answer(wrong, result)
        assert not record.possible


def test_a_revocation_reports_whether_there_was_a_live_code() -> None:
    record = Record()
    record.answered(Kind.ISSUE, Result.ISSUED)
    record.answered(Kind.CONSUME, Result.ACCEPTED, "one")
    record.answered(Kind.REVOKE, Result.REVOKED, "two")
    assert not record.possible


Step: TypeAlias = tuple[Kind, Result | Outcome, str]

ISSUED: Step = (Kind.ISSUE, Result.ISSUED, "i")


def consume(result: Result | Outcome, request_id: str) -> Step:
    return Kind.CONSUME, result, request_id


def revoke(result: Result | Outcome, request_id: str) -> Step:
    return Kind.REVOKE, result, request_id


def read(result: Result) -> Step:
    return Kind.READ, result, ""


STORIES: dict[str, tuple[list[Step], list[Step]]] = {
    "a code is accepted for two requests": (
        [ISSUED, consume(Result.ACCEPTED, "a"), consume(Result.ACCEPTED, "b")],
        [ISSUED, consume(Result.ACCEPTED, "a"), consume(Result.ACCEPTED, "a")],
    ),
    "an unknown attempt has spent a code, and another is accepted": (
        [
            *(ISSUED, consume(Outcome.OPEN, "a"), consume(Result.ACCEPTED, "b")),
            consume(Result.ACCEPTED, "a"),
        ],
        [
            *(ISSUED, consume(Outcome.OPEN, "a"), consume(Result.ACCEPTED, "b")),
            consume(Result.REFUSED, "a"),
        ],
    ),
    "an unknown attempt has spent a code by a read, and a retry is refused": (
        [
            *(ISSUED, consume(Outcome.OPEN, "a"), read(Result.SPENT)),
            consume(Result.REFUSED, "a"),
        ],
        [
            *(ISSUED, consume(Outcome.OPEN, "a"), read(Result.SPENT)),
            consume(Result.ACCEPTED, "a"),
        ],
    ),
    "an unknown attempt has spent a code by a read, and it is live again": (
        [ISSUED, consume(Outcome.OPEN, "a"), read(Result.SPENT), read(Result.LIVE)],
        [ISSUED, consume(Outcome.OPEN, "a"), read(Result.LIVE), read(Result.SPENT)],
    ),
    "a retry of an accepted request is refused": (
        [ISSUED, consume(Result.ACCEPTED, "a"), consume(Result.REFUSED, "a")],
        [ISSUED, consume(Result.ACCEPTED, "a"), consume(Result.REFUSED, "b")],
    ),
    "an issue is lost": (
        [ISSUED, read(Result.ABSENT)],
        [(Kind.ISSUE, Outcome.OPEN, "i"), read(Result.ABSENT)],
    ),
    "a spend is lost": (
        [ISSUED, consume(Result.ACCEPTED, "a"), read(Result.LIVE)],
        [ISSUED, consume(Outcome.OPEN, "a"), read(Result.LIVE)],
    ),
    "a revocation is lost": (
        [ISSUED, revoke(Result.REVOKED, "r"), read(Result.LIVE)],
        [ISSUED, revoke(Outcome.OPEN, "r"), read(Result.LIVE)],
    ),
    "a revoked code is accepted": (
        [ISSUED, revoke(Result.REVOKED, "r"), consume(Result.ACCEPTED, "a")],
        [ISSUED, revoke(Outcome.OPEN, "r"), consume(Result.ACCEPTED, "a")],
    ),
    "a code is accepted before it was issued": (
        [consume(Result.ACCEPTED, "a"), ISSUED],
        [consume(Result.REFUSED, "a"), ISSUED],
    ),
    "a live code is refused, as for a locked user": (
        [ISSUED, consume(Result.REFUSED, "a")],
        [ISSUED, consume(Outcome.NOT_DONE, "a"), consume(Result.ACCEPTED, "a")],
    ),
    "a revocation reports no live code although there is one": (
        [ISSUED, revoke(Result.NOT_LIVE, "r")],
        [ISSUED, consume(Outcome.OPEN, "a"), revoke(Result.NOT_LIVE, "r")],
    ),
    "a code is revoked twice": (
        [ISSUED, revoke(Result.REVOKED, "r"), revoke(Result.REVOKED, "s")],
        [ISSUED, revoke(Result.REVOKED, "r"), revoke(Result.REVOKED, "r")],
    ),
    "an attempt answered as not done has spent a code": (
        [ISSUED, consume(Outcome.NOT_DONE, "a"), consume(Result.REFUSED, "b")],
        [ISSUED, consume(Outcome.NOT_DONE, "a"), consume(Result.ACCEPTED, "b")],
    ),
    "a revocation answered as not done has revoked a code": (
        [ISSUED, revoke(Outcome.NOT_DONE, "r"), read(Result.DEAD)],
        [ISSUED, revoke(Outcome.NOT_DONE, "r"), read(Result.LIVE)],
    ),
    "a node shows the state before the last change": (
        [ISSUED, consume(Result.ACCEPTED, "a"), read(Result.SPENT), read(Result.LIVE)],
        [ISSUED, read(Result.LIVE), consume(Result.ACCEPTED, "a"), read(Result.SPENT)],
    ),
}
"""Anomaly -> a history with it, and the closest history without it."""


def record_of(story: list[Step]) -> Record:
    """Return a history: each step ends before the next begins, except unknown ones."""
    record = Record()
    for kind, answer, request_id in story:
        if isinstance(answer, Result):
            record.answered(kind, answer, request_id)
        elif answer is Outcome.OPEN:
            record.history.unknown(record.begin(kind, request_id), "timed out")
        else:
            record.history.not_done(record.begin(kind, request_id), "no quorum")
    return record


@pytest.mark.parametrize("wrong", STORIES)
def test_every_anomaly_is_found_and_its_closest_correct_history_passes(
    wrong: str,
) -> None:
    """(A3, Q2) Written by hand, independent of the faulty register."""
    bad, good = STORIES[wrong]
    assert not record_of(bad).possible
    assert record_of(good).possible


def test_overlapping_operations_may_have_either_order() -> None:
    """An attempt and a revocation at the same time: exactly one of them wins."""
    for accepted, revoked, possible in (
        (Result.ACCEPTED, Result.NOT_LIVE, True),
        (Result.REFUSED, Result.REVOKED, True),
        (Result.ACCEPTED, Result.REVOKED, False),
        (Result.REFUSED, Result.NOT_LIVE, False),
    ):
        record = Record()
        record.answered(Kind.ISSUE, Result.ISSUED)
        one, other = record.begin(Kind.CONSUME, "a"), record.begin(Kind.REVOKE, "r")
        record.history.answer(one, accepted)
        record.history.answer(other, revoked)
        assert record.possible is possible


def test_acknowledged_changes_must_be_on_every_node() -> None:
    """A change missing on one node is lost."""
    record = record_of([ISSUED, consume(Result.ACCEPTED, "a")]).history.operations
    reads = [
        Operation(Kind.READ, "code", "", node, 9, 10, Outcome.ANSWERED, result)
        for node, result in (("n1", Result.SPENT), ("n2", Result.LIVE))
    ]
    assert lost(record, reads) == ("code at n2: live",)
    assert lost(record, reads[:1]) == ()
    assert lost(record_of([ISSUED]).history.operations, reads) == ()
    gone = [Operation(Kind.READ, "code", "", "n3", 9, 10, result=Result.ABSENT)]
    assert lost(record_of([ISSUED]).history.operations, gone) == ("code at n3: absent",)
    revoked = record_of([ISSUED, revoke(Result.REVOKED, "r")]).history.operations
    assert lost(revoked, reads[1:]) == ("code at n2: live",)


def test_every_line_of_the_file_is_written_before_and_after(tmp_path) -> None:
    file = tmp_path / "history.jsonl"
    history = History(file)
    operation = history.invoke(Kind.READ, "code", request_id="", node="n2")
    history.answer(operation, Result.LIVE)
    history.close()
    before, after = file.read_text().splitlines()
    assert '"outcome": "open"' in before
    assert '"result": "live"' in after
