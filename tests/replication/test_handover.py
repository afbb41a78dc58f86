# SPDX-License-Identifier: Apache-2.0
"""Handing the leadership over: told to the right one, by the right one, in time."""

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.errors import ChangeRefusedError, NoPrimaryError
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.handover import HandOverOutcome
from tests.replication.bench import Bench, entry
from tests.simulation.test_directed import Script


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def transfer(bench: Bench, target: str | None = None) -> list[HandOverOutcome]:
    outcomes: list[HandOverOutcome] = []
    bench.replica.transfer(
        NodeId(target) if target else None, timeout_s=3, callback=outcomes.append
    )
    return outcomes


def targets(bench: Bench) -> list[str]:
    return [peer for peer, _ in bench.take(frames.HAND_OVER)]


def refusal(outcomes: list[HandOverOutcome]) -> Reason:
    (outcome,) = outcomes
    assert isinstance(outcome, ChangeRefusedError)
    return outcome.rejected.reason


# --- On the leader


def test_the_target_is_told_when_it_has_everything(bench: Bench) -> None:
    term = bench.lead()
    outcome = bench.propose("a")
    bench.tick()
    last = bench.engine.journal.last_index
    bench.acknowledge("n3", last + 1, term)
    bench.tick()
    bench.take()
    received = transfer(bench, "n2")
    bench.tick(0.1)
    assert targets(bench) == []
    bench.acknowledge("n2", last + 1, term)
    bench.tick()
    assert targets(bench) == ["n2"]
    assert len(outcome) == 1  # Nothing is under way any more.
    assert received == []
    bench.receive(
        "n2",
        frames.REQUEST_VOTE,
        term=term + 1,
        last_log_index=last,
        last_log_term=term,
    )
    assert received == ["n2"]
    assert not bench.engine.is_leader()


def test_the_most_advanced_member_takes_over_by_default(bench: Bench) -> None:
    term = bench.lead()
    bench.propose("a")
    bench.tick()
    bench.acknowledge("n2", bench.engine.journal.last_index + 1, term)
    bench.tick()
    bench.take()
    transfer(bench)
    bench.tick()
    assert targets(bench) == ["n2"]


def test_nothing_is_proposed_meanwhile_and_everything_afterwards(bench: Bench) -> None:
    term = bench.lead()
    before = bench.log()
    received = transfer(bench, "n2")
    refused = bench.propose("a")
    bench.tick()
    assert isinstance(refused[0], NoPrimaryError)
    assert bench.log() == before
    for _ in range(11):  # n2 hears, and does not take over.
        for other in bench.others:
            bench.acknowledge(other, before[-1][0] + 1, term)
        bench.tick(0.1)
    assert refusal(received) is Reason.MEMBER_NOT_READY
    bench.propose("a")
    bench.tick()
    assert len(bench.log()) == len(before) + 1


def test_a_member_out_of_contact_does_not_take_over(bench: Bench) -> None:
    """A leader without followers is worse than the present one."""
    term = bench.lead()
    last = bench.engine.journal.last_index
    bench.tick(0.3)
    bench.acknowledge("n3", last + 1, term)
    bench.tick(0.3)
    bench.take()
    received = transfer(bench, "n2")
    for _ in range(11):
        bench.acknowledge("n3", last + 1, term)
        bench.tick(0.1)
    assert targets(bench) == []
    assert refusal(received) is Reason.MEMBER_NOT_READY


@pytest.mark.parametrize("target", ["n1", "n9"])
def test_only_another_member_can_be_told(bench: Bench, target: str) -> None:
    bench.lead()
    assert refusal(transfer(bench, target)) is Reason.MEMBER_UNKNOWN


def test_one_at_a_time(bench: Bench) -> None:
    bench.lead()
    first = transfer(bench, "n2")
    assert refusal(transfer(bench, "n3")) is Reason.MEMBER_NOT_READY
    assert first == []


def test_a_follower_hands_nothing_over(bench: Bench) -> None:
    (outcome,) = transfer(bench)
    assert isinstance(outcome, NoPrimaryError)


# --- On the target


def call_up(bench: Bench, peer: str, **fields: int) -> bool:
    """Follow n2 in term 1, with entries up to 3; say whether the node campaigns."""
    bench.append("n2", 1, (1, 0), entry(2, 1), entry(3, 1), commit=3)
    bench.tick()
    bench.take()
    text = {"term": 1, "last_log_index": 3, "last_log_term": 1, **fields}
    bench.receive(peer, frames.HAND_OVER, **text)
    bench.append("n2", 1, (3, 1), commit=3)  # Must not put the election off.
    bench.tick()
    calls = bench.take(frames.REQUEST_VOTE)
    return {peer for peer, _ in calls} == {"n2", "n3"}


def test_the_target_campaigns_at_once_without_a_pre_vote(bench: Bench) -> None:
    assert call_up(bench, "n2")
    assert bench.engine.raftCurrentTerm == 2


@pytest.mark.parametrize(
    ("peer", "fields"),
    [
        ("n3", {}),  # Another than the leader.
        ("n9", {}),  # No member.
        ("n2", {"term": 0}),  # Of an earlier leadership.
        ("n2", {"term": 2}),
        ("n2", {"last_log_index": 4}),  # Something is missing here.
    ],
)
def test_a_false_call_changes_nothing(
    bench: Bench, peer: str, fields: dict[str, int]
) -> None:
    assert not call_up(bench, peer, **fields)
    assert bench.engine.raftCurrentTerm == 1


# --- All together


def test_a_hand_over_takes_no_election_timeout() -> None:
    sim = Script(5)
    with sim.world():
        sim.run_for(2)
        leader = sim.leading()
        target = next(node for node in sim.live() if node is not leader)
        received: list[HandOverOutcome] = []
        leader.running.transfer(
            NodeId(target.node_id), timeout_s=3, callback=received.append
        )
        begin = sim.now
        while not target.leads:
            sim.step(faulty=False)
        assert sim.now - begin < sim.raft.election_min_s
        sim.run_for(1)
        assert received == [target.node_id]
        assert sim.leading() is target
        assert sim.heal(seconds=5)
        sim.check()
    assert sim.invariants.violations == {}
