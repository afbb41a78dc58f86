# SPDX-License-Identifier: Apache-2.0
"""Reads confirmed by a quorum, as scripts: questions, confirmations and answers."""

import pytest

from sparecode_node.replication.errors import (
    NoPrimaryError,
    NoQuorumError,
    OverloadedError,
)
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.admission import Refusal
from sparecode_node.replication.raft.read_index import (
    PendingRead,
    ReadIndex,
    ReadOutcome,
    ReadPoint,
    Word,
)
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.settings import READS_WAITING_MAX
from tests.replication.bench import Bench, entry
from tests.simulation import protections


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@pytest.fixture
def bench5(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch, members=5)


def read(bench: Bench, timeout_s: float = 3.0) -> list[ReadOutcome]:
    """Ask where to read; what comes back appears in the list."""
    outcomes: list[ReadOutcome] = []
    bench.replica.read(timeout_s=timeout_s, callback=outcomes.append)
    return outcomes


def questions(bench: Bench) -> list[tuple[str, int, int]]:
    """Return the members questioned since the last call, with term and round."""
    calls = bench.take(frames.ASK_TO_CONFIRM)
    return [(peer, m["term"], m["round"]) for peer, m in calls]


def confirm(bench: Bench, member: str, term: int, number: int) -> None:
    bench.receive(member, frames.CONFIRM, term=term, round=number)


def test_a_read_is_answered_by_a_quorum_and_without_an_entry(bench: Bench) -> None:
    term = bench.lead()
    before = bench.log()
    outcome = read(bench)
    assert outcome == []
    bench.tick()
    assert questions(bench) == [("n2", term, 1), ("n3", term, 1)]
    assert outcome == []
    confirm(bench, "n3", term, 1)
    assert outcome == [ReadPoint(index=before[-1][0], state_ms=0)]
    assert bench.log() == before


def test_a_quorum_of_five_is_three(bench5: Bench) -> None:
    term = bench5.lead()
    outcome = read(bench5)
    bench5.tick()
    confirm(bench5, "n2", term, 1)
    confirm(
        bench5, "n2", term, 1
    )  # A link delivers at most once, and each confirmation counts once.
    assert outcome == []
    confirm(bench5, "n5", term, 1)
    assert len(outcome) == 1
    confirm(bench5, "n4", term, 1)
    assert len(outcome) == 1


def test_a_node_alone_is_its_own_quorum(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, members=1)
    bench.tick(1.0)
    bench.tick()
    bench.tick()
    outcome = read(bench)
    bench.tick()
    assert outcome == [ReadPoint(index=bench.log()[-1][0], state_ms=0)]


def test_the_state_machine_s_time_is_told(bench: Bench) -> None:
    """So that the time of a read is never before it (T5)."""
    term = bench.lead()
    bench.propose("a")
    bench.tick()
    bench.acknowledge("n2", bench.engine.journal.last_index + 1, term)
    bench.tick()
    outcome = read(bench)
    bench.tick()
    confirm(bench, "n2", term, 1)
    [point] = outcome
    assert isinstance(point, ReadPoint)
    assert point.state_ms == bench.state.now_ms > 0


# --- Rounds


def test_concurrent_readers_share_a_round(bench: Bench) -> None:
    term = bench.lead()
    outcomes = [read(bench) for _ in range(100)]
    bench.tick()
    assert len(questions(bench)) == 2
    confirm(bench, "n2", term, 1)
    assert all(len(outcome) == 1 for outcome in outcomes)


def test_no_read_joins_a_round_that_has_begun(bench: Bench) -> None:
    """Its confirmations may be older than the read."""
    term = bench.lead()
    first = read(bench)
    bench.tick()
    second = read(bench)
    confirm(bench, "n2", term, 1)
    assert len(first) == 1
    assert second == []
    bench.tick()
    confirm(bench, "n3", term, 1)  # Late, and of the first round.
    assert second == []
    confirm(bench, "n3", term, 2)
    assert len(second) == 1


def test_a_removed_voter_does_not_count_any_more() -> None:
    """Of four voters it and the leader are no quorum; of three they would be one."""
    outcome: list[ReadOutcome] = []
    reads, point = ReadIndex(lambda *_: None), ReadPoint(index=5, state_ms=0)

    def ask(*others: str, now: float) -> None:
        reads.ask(term=1, point=point, others=others, now=now, again_s=1.0)

    reads.submit(PendingRead(10.0, outcome.append))
    ask("n2", "n3", "n4", now=1.0)
    reads.confirm("n4", 1, members=4)
    reads.keep_only(frozenset({"n1", "n2", "n3"}))
    ask("n2", "n3", now=3.0)
    assert outcome == []
    reads.confirm("n2", 1, members=3)
    assert outcome == [point]


def test_a_later_round_speaks_for_the_earlier_ones(bench: Bench) -> None:
    term = bench.lead()
    first = read(bench)
    bench.tick()
    second = read(bench)
    bench.tick()
    confirm(bench, "n2", term, 2)
    assert len(first) == len(second) == 1


def test_a_question_that_is_lost_is_asked_again(bench: Bench) -> None:
    term = bench.lead()
    outcome = read(bench)
    bench.tick()
    questions(bench)
    bench.acknowledge("n2", bench.engine.journal.last_index + 1, term)
    bench.tick(0.1)
    assert questions(bench) == [("n2", term, 2), ("n3", term, 2)]
    confirm(bench, "n2", term, 2)
    assert len(outcome) == 1
    bench.acknowledge("n2", bench.engine.journal.last_index + 1, term)
    bench.tick(0.1)
    assert questions(bench) == []


# --- Who may not be believed


def test_a_new_leader_waits_for_an_entry_of_its_own_term(bench: Bench) -> None:
    """Before, it has what is committed, but does not know how far that goes."""
    bench.append("n2", 1, (1, 0), entry(2, 1), entry(3, 1), commit=1)
    bench.tick()
    term = bench.elect()
    outcome = read(bench)
    bench.tick()
    assert questions(bench) == []
    last = bench.engine.journal.last_index
    bench.acknowledge("n3", last + 1, term)
    bench.tick()
    [(_, _, number), _] = questions(bench)
    confirm(bench, "n3", term, number)
    [point] = outcome
    assert isinstance(point, ReadPoint)
    assert point.index == last


def test_without_the_own_term_check_a_new_leader_reads_the_past(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    protections.read_before_own_term(monkeypatch)
    bench.append("n2", 1, (1, 0), entry(2, 1), entry(3, 1), commit=1)
    bench.tick()  # Entries 2 and 3 may be committed, and acknowledged to a client.
    term = bench.elect()
    outcome = read(bench)
    bench.tick()
    confirm(bench, "n3", term, 1)
    [point] = outcome
    assert isinstance(point, ReadPoint)
    assert point.index == 1


def test_confirmations_of_another_term_do_not_count(bench: Bench) -> None:
    term = bench.lead()
    outcome = read(bench)
    bench.tick()
    confirm(bench, "n2", term - 1, 1)
    confirm(bench, "n2", term + 1, 1)
    confirm(bench, "stranger", term, 1)
    assert outcome == []
    assert bench.guard.dropped["confirmation of another term"] == 2


def test_a_member_confirms_the_term_that_it_is_in(bench: Bench) -> None:
    bench.append("n2", 3, (1, 0), entry(2, 3))
    bench.tick()
    bench.take()
    bench.receive("n2", frames.ASK_TO_CONFIRM, term=3, round=9)
    expected = {"type": frames.CONFIRM, "term": 3, "round": 9}
    assert bench.take() == [("n2", expected)]


def test_a_member_that_knows_a_newer_term_says_so_instead(bench: Bench) -> None:
    bench.append("n2", 3, (1, 0), entry(2, 3))
    bench.tick()
    bench.take()
    bench.receive("n3", frames.ASK_TO_CONFIRM, term=2, round=9)
    assert bench.take() == [("n3", {"type": frames.STALE_TERM, "term": 3})]
    bench.receive("n3", frames.ASK_TO_CONFIRM, term=4, round=9)
    assert bench.take() == []


def test_without_the_term_a_deposed_leader_would_be_confirmed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    protections.confirm_any_term(monkeypatch)
    bench.append("n2", 3, (1, 0), entry(2, 3))
    bench.tick()
    bench.take()
    bench.guard._receivers[frames.ASK_TO_CONFIRM] = bench.guard._receive_ask_to_confirm
    bench.receive("n3", frames.ASK_TO_CONFIRM, term=2, round=9)
    assert [m["type"] for _, m in bench.take()] == [frames.CONFIRM]


# --- By the word of a member that asks for its callers


def read_for(
    bench: Bench, member: str, term: int, journal_id: str = ""
) -> list[ReadOutcome]:
    """Ask where to read, as a member does that knows of no newer term than that."""
    outcomes: list[ReadOutcome] = []
    word = Word(member=member, hello=Hello(journal_id), term=term)
    bench.replica.read(timeout_s=3.0, callback=outcomes.append, word=word)
    return outcomes


def test_a_member_s_word_is_as_good_as_a_round(bench: Bench) -> None:
    term = bench.lead()
    outcome = read_for(bench, "n3", term)
    assert outcome == []
    bench.tick()
    assert outcome == [ReadPoint(index=bench.log()[-1][0], state_ms=0)]
    assert questions(bench) == []


def test_a_word_is_for_one_read_alone(bench: Bench) -> None:
    """It may be older than the other read."""
    term = bench.lead()
    report, calls = read_for(bench, "n3", term), read(bench)
    bench.tick()
    assert len(report) == 1
    assert calls == []
    assert questions(bench) == [("n2", term, 1), ("n3", term, 1)]


def test_a_word_and_the_leader_are_no_quorum_of_five(bench5: Bench) -> None:
    term = bench5.lead()
    outcome = read_for(bench5, "n3", term)
    bench5.tick()
    assert outcome == []
    assert len(questions(bench5)) == 4
    confirm(bench5, "n2", term, 1)
    assert outcome == []
    confirm(bench5, "n3", term, 1)
    assert len(outcome) == 1


@pytest.mark.parametrize(
    ("member", "terms"),
    [("n3", -1), ("n3", 1), ("stranger", 0), ("n1", 0)],
    ids=["earlier term", "newer term", "stranger", "the leader itself"],
)
def test_a_word_that_says_nothing_begins_a_round(
    bench: Bench, member: str, terms: int
) -> None:
    term = bench.lead()
    outcome = read_for(bench, member, term + terms)
    bench.tick()
    assert outcome == []
    assert questions(bench) == [("n2", term, 1), ("n3", term, 1)]


def test_the_word_of_a_node_with_another_journal_does_not_count(bench: Bench) -> None:
    """Its promises are lost: it may have voted without knowing."""
    term = bench.lead()
    hello = Hello("its journal")
    bench.guard.receive("n3", {"type": frames.ASK_CLOCK, "round": 1}, hello)
    outcome = read_for(bench, "n3", term, "another journal")
    bench.tick()
    assert outcome == []
    assert bench.guard.dropped[Refusal.ANOTHER_JOURNAL] == 1


def test_a_new_leader_believes_a_word_when_it_knows_what_is_committed(
    bench: Bench,
) -> None:
    bench.append("n2", 1, (1, 0), entry(2, 1), entry(3, 1), commit=1)
    bench.tick()
    term = bench.elect()
    outcome = read_for(bench, "n3", term)
    bench.tick()
    assert outcome == []
    last = bench.engine.journal.last_index
    bench.acknowledge("n3", last + 1, term)
    bench.tick()
    [point] = outcome
    assert isinstance(point, ReadPoint)
    assert point.index == last


# --- Answers


def test_a_follower_answers_no_read(bench: Bench) -> None:
    outcome = read(bench)
    bench.tick()
    assert [type(o) for o in outcome] == [NoPrimaryError]


def test_a_primary_without_a_quorum_answers_no_read(bench: Bench) -> None:
    bench.lead()
    outcome = read(bench)
    bench.tick()
    late = read(bench)
    bench.tick(0.6)
    assert [type(o) for o in outcome + late] == [NoQuorumError, NoQuorumError]


def test_a_leader_that_is_deposed_answers_what_waits(bench: Bench) -> None:
    term = bench.lead()
    outcome = read(bench)
    bench.tick()
    bench.receive("n2", frames.STALE_TERM, term=term + 1)
    assert [type(o) for o in outcome] == [NoPrimaryError]
    confirm(bench, "n2", term, 1)
    assert len(outcome) == 1


def test_a_read_ends_with_its_deadline(bench: Bench) -> None:
    bench.lead()
    outcome = read(bench, timeout_s=0.2)
    bench.tick()
    bench.tick(0.3)
    assert [type(o) for o in outcome] == [NoQuorumError]


def test_too_many_reads_are_shed(bench: Bench) -> None:
    bench.lead()
    outcomes = [read(bench) for _ in range(READS_WAITING_MAX + 1)]
    assert [type(o) for o in outcomes[-1]] == [OverloadedError]
    assert outcomes[-2] == []
    bench.tick()
    assert [type(o) for o in read(bench)] == [OverloadedError]


def test_a_node_that_stops_answers_what_waits(bench: Bench) -> None:
    bench.lead()
    outcome = read(bench)
    bench.replica.stop()
    assert [type(o) for o in outcome] == [NoPrimaryError]
