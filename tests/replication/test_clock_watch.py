# SPDX-License-Identifier: Apache-2.0
"""The clock of a primary that stamps agrees with a quorum's (T5)."""

import logging

import pytest

from sparecode_node.replication.errors import ClockError, NoPrimaryError
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.clock_watch import (
    ANSWER_S,
    ASK_S,
    ASK_SOON_S,
    FRESH_S,
    ROUNDS_KEPT,
    Agreement,
    ClockWatch,
)
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.settings import MAX_CLOCK_OFFSET_S
from sparecode_node.statemachine.results import Applied
from tests.replication.bench import Bench

OTHERS = ("n2", "n3")


class Watch:
    """A watch on n1 whose questions the test answers."""

    def __init__(self) -> None:
        self.now = 50.0
        self.off_s = 0.0
        self.sent: list[tuple[str, Message]] = []
        self.clocks = ClockWatch(
            lambda peer, message: self.sent.append((peer, message)),
            lambda: round((self.now + self.off_s) * 1000),
        )

    def ask(self) -> int:
        """Ask, when it is due; returns the round, or 0."""
        self.sent.clear()
        self.clocks.ask(OTHERS, self.now)
        return self.sent[-1][1]["round"] if self.sent else 0

    def tell(self, peer: str, number: int, off_s: float = 0.0) -> None:
        """Answer as a peer whose clock differs by an offset."""
        report = {"round": number, "at_ms": round((self.now + off_s) * 1000)}
        self.clocks.take_answer(peer, {"type": frames.TELL_CLOCK, **report}, self.now)

    @property
    def agreement(self) -> Agreement:
        return self.clocks.agreement(OTHERS, self.now)


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_nothing_is_known_before_a_quorum_has_answered(watch: Watch) -> None:
    """(T5)."""
    number = watch.ask()
    assert watch.agreement is Agreement.UNKNOWN
    watch.tell("n2", number)
    assert watch.agreement is Agreement.YES


def test_a_single_node_agrees_with_itself() -> None:
    """(T5)."""
    watch = Watch()
    assert watch.clocks.agreement((), watch.now) is Agreement.YES


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("off_s", "agreement"),
    [(MAX_CLOCK_OFFSET_S, Agreement.YES), (MAX_CLOCK_OFFSET_S + 0.1, Agreement.NO)],
)
def test_two_seconds_are_allowed_and_no_more(
    watch: Watch, off_s: float, agreement: Agreement, sign: int
) -> None:
    """(T5)."""
    number = watch.ask()
    watch.tell("n2", number, sign * off_s)
    watch.tell("n3", number, sign * off_s)
    assert watch.agreement is agreement


def test_one_of_two_others_is_enough_for_a_quorum(watch: Watch) -> None:
    """(T5): a replica with a wrong clock does not take the primary's right away."""
    number = watch.ask()
    watch.tell("n2", number, 3600)
    watch.tell("n3", number)
    assert watch.agreement is Agreement.YES


def test_one_of_four_others_is_not() -> None:
    """(T5): of five clocks, three must agree."""
    watch = Watch()
    others = ("n2", "n3", "n4", "n5")
    watch.clocks.ask(others, watch.now)
    number = watch.sent[-1][1]["round"]
    watch.tell("n2", number)
    for peer in others[1:]:
        watch.tell(peer, number, 60)
    assert watch.clocks.agreement(others, watch.now) is Agreement.NO


def test_a_step_of_the_own_clock_shows_at_once(watch: Watch) -> None:
    """(T5): no peer has to be asked again."""
    watch.tell("n2", watch.ask())
    watch.off_s = -3600.0
    assert watch.agreement is Agreement.NO
    watch.off_s = 0.0
    assert watch.agreement is Agreement.YES


def test_time_that_passes_is_no_step(watch: Watch) -> None:
    """(T5)."""
    watch.tell("n2", watch.ask())
    watch.now += FRESH_S
    assert watch.agreement is Agreement.YES


def test_an_answer_counts_for_five_seconds(watch: Watch) -> None:
    """(T5): a clock may have been set since."""
    watch.tell("n2", watch.ask())
    watch.now += FRESH_S + 0.1
    assert watch.agreement is Agreement.UNKNOWN


def test_a_slow_answer_leaves_its_way_in_doubt(watch: Watch) -> None:
    """The peer may have read its clock at any moment of the way."""
    number = watch.ask()
    watch.now += ANSWER_S
    watch.tell("n2", number, -MAX_CLOCK_OFFSET_S - ANSWER_S)
    assert watch.agreement is Agreement.YES
    watch.tell("n2", number, -MAX_CLOCK_OFFSET_S - ANSWER_S - 0.1)
    watch.tell("n3", number, -MAX_CLOCK_OFFSET_S - ANSWER_S - 0.1)
    assert watch.agreement is Agreement.NO


def test_an_answer_that_took_too_long_says_nothing(watch: Watch) -> None:
    number = watch.ask()
    watch.now += ANSWER_S + 0.1
    watch.tell("n2", number)
    assert watch.agreement is Agreement.UNKNOWN


def test_an_answer_to_no_question_says_nothing(watch: Watch) -> None:
    number = watch.ask()
    watch.tell("n2", number + 1)
    watch.tell("n3", 0)
    assert watch.agreement is Agreement.UNKNOWN


def test_it_asks_soon_again_until_it_knows(watch: Watch) -> None:
    number = watch.ask()
    watch.now += ASK_SOON_S
    again = watch.ask()
    assert again == number + 1
    watch.tell("n2", number)
    watch.now += ASK_SOON_S
    assert watch.ask()
    watch.now += ASK_S - 0.01
    assert not watch.ask()
    watch.now += 0.02
    assert watch.ask()


def test_it_remembers_so_many_questions_and_no_more(watch: Watch) -> None:
    first = watch.ask()
    for _ in range(ROUNDS_KEPT):
        watch.now += ASK_SOON_S / 100
        watch.clocks._next_at = watch.now
        watch.ask()
    watch.tell("n2", first)
    assert watch.agreement is Agreement.UNKNOWN
    watch.tell("n2", first + 1)
    assert watch.agreement is Agreement.YES


def test_the_node_with_the_wrong_clock_is_named(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    number = watch.ask()
    watch.tell("n2", number, 60)
    watch.tell("n3", number, 61)
    assert watch.agreement is watch.agreement is Agreement.NO
    watch.off_s = 60.0
    assert watch.agreement is Agreement.YES
    assert [record.message for record in caplog.records] == [
        "clock_differs",
        "clock_agrees",
    ]
    assert caplog.records[0].offsets_ms == {"n2": 60_000, "n3": 61_000}


# --- In the engine


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_a_primary_whose_clock_steps_stamps_nothing_and_steps_down(
    bench: Bench,
) -> None:
    """(T5)."""
    bench.lead()
    before = bench.log()
    outcomes = bench.propose("r1")
    bench.clock_s += 3600
    bench.tick()
    assert isinstance(outcomes[0], NoPrimaryError | ClockError)
    assert bench.log() == before
    assert not bench.engine.is_leader()
    assert bench.replica.status().clock_differs


def test_what_was_appended_before_the_step_is_answered(bench: Bench) -> None:
    """(T5): its fate is the next primary's to decide."""
    term = bench.lead()
    outcomes = bench.propose("r1")
    bench.tick()
    index = bench.engine.journal.last_index
    assert not outcomes
    bench.clock_s += 3600
    bench.tick()
    bench.acknowledge("n2", index + 1, term)
    bench.tick()
    assert [type(outcome).__name__ for outcome in outcomes] == ["OutcomeUnknownError"]


def test_it_campaigns_again_when_its_clock_is_right(bench: Bench) -> None:
    """(T5)."""
    bench.lead()
    bench.clock_s += 3600
    bench.tick()
    bench.take()
    bench.tick(2.0)
    assert not bench.take(frames.PRE_VOTE)
    bench.clock_s -= 3600
    bench.tick(2.0)
    assert bench.take(frames.PRE_VOTE)


def test_a_primary_that_knows_too_few_clocks_stamps_nothing_yet(bench: Bench) -> None:
    """(T5): it goes on leading, and stamps as soon as it knows."""
    bench.clocks_s.clear()
    term = bench.lead()
    outcomes = bench.propose("r1")
    bench.tick()
    assert isinstance(outcomes[0], ClockError)
    assert bench.engine.is_leader()
    bench.clocks_s["n3"] = bench.clock_s
    bench.tick(ASK_SOON_S)
    outcomes = bench.propose("r2")
    bench.tick()
    bench.acknowledge("n2", bench.engine.journal.last_index + 1, term)
    bench.tick()
    assert isinstance(outcomes[0], Applied)


def test_a_member_answers_with_its_clock(bench: Bench) -> None:
    bench.clock_s = 1_700_000_000.0
    bench.receive("n2", frames.ASK_CLOCK, round=5)
    report = bench.take(frames.TELL_CLOCK)
    at_ms = round((bench.now + bench.clock_s) * 1000)
    assert [peer for peer, _ in report] == ["n2"]
    assert report[0][1]["round"] == 5
    assert report[0][1]["at_ms"] == at_ms
