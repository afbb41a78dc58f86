# SPDX-License-Identifier: Apache-2.0
"""
A node's own lateness is not silence: the time in which it read nothing does not count.

Each test lets time pass as the engine's thread does: a look before every tick.
"""

import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.log.format import SALT_BYTES
from sparecode_node.replication.members import Member
from sparecode_node.replication.raft import frames
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.rollback import Hello
from sparecode_node.replication.raft.stalls import FORGIVEN_MAX, Stalls
from sparecode_node.replication.replica.engine_thread import EngineThread
from sparecode_node.replication.replica.replica import Replica, ReplicaConfig
from sparecode_node.replication.settings import RaftSettings
from tests.replication.bench import Bench
from tests.replication.recording_state import FixedStamper, RecordingState

SETTINGS = RaftSettings()
TICK_S = SETTINGS.tick_s


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@pytest.fixture
def stalls(bench: Bench) -> Stalls:
    stalls = Stalls(bench.engine, bench.guard.campaign, SETTINGS)
    stalls.look(bench.now)
    return stalls


def run(bench: Bench, stalls: Stalls, seconds: float, *, deaf: bool = False) -> None:
    """Let time pass while the node ticks, and so reads what comes."""
    until = bench.now + seconds
    while bench.now < until:
        bench.now += TICK_S
        stalls.look(bench.now, deaf=deaf)
        bench.tick()


def stand_still(bench: Bench, stalls: Stalls, seconds: float) -> None:
    """Let time pass without a tick; then the node goes on."""
    bench.now += seconds
    stalls.look(bench.now)
    bench.tick()


def follow(bench: Bench, stalls: Stalls) -> None:
    """Follow n2, the leader of term 1, and hear from it."""
    bench.append("n2", 1, (1, 0))
    run(bench, stalls, TICK_S)


def would_vote_for_n3(bench: Bench) -> bool:
    """Return whether the node grants a pre-vote."""
    bench.take()
    bench.receive("n3", frames.PRE_VOTE, term=2, last_log_index=9, last_log_term=1)
    ((_, answer),) = bench.take(frames.PRE_VOTE_ANSWER)
    return bool(answer["granted"])


def test_a_follower_that_stood_still_asks_for_no_election(bench: Bench, stalls: Stalls):
    follow(bench, stalls)

    stand_still(bench, stalls, 10)

    assert not bench.take(frames.PRE_VOTE)


def test_it_asks_once_the_leader_is_silent_while_it_listens(
    bench: Bench, stalls: Stalls
):
    follow(bench, stalls)
    stand_still(bench, stalls, 10)

    run(bench, stalls, SETTINGS.election_max_s + SETTINGS.heartbeat_s)

    assert bench.take(frames.PRE_VOTE)


def test_a_slow_tick_in_which_the_leader_was_heard_is_not_counted_twice(
    bench: Bench, stalls: Stalls
):
    """What waited for a slow sync is read in the same tick, before the next look."""
    follow(bench, stalls)
    bench.now += 20
    bench.append("n2", 1, (1, 0))

    run(bench, stalls, SETTINGS.election_max_s + SETTINGS.heartbeat_s)

    assert bench.take(frames.PRE_VOTE)
    assert would_vote_for_n3(bench)


def test_a_voter_that_stood_still_deposes_no_leader(bench: Bench, stalls: Stalls):
    """Both replicas of three may stand still at once: then neither has heard the leader."""
    follow(bench, stalls)

    stand_still(bench, stalls, 10)

    assert not would_vote_for_n3(bench)
    run(bench, stalls, SETTINGS.election_min_s + SETTINGS.heartbeat_s)
    assert would_vote_for_n3(bench)


def test_short_stalls_add_up(bench: Bench, stalls: Stalls):
    """A machine that is too busy lets a node run for a moment again and again."""
    follow(bench, stalls)

    for _ in range(3):
        stand_still(bench, stalls, 0.3)  # A heartbeat of that is a usual wait.

    assert not bench.take(frames.PRE_VOTE)
    assert not would_vote_for_n3(bench)


def test_a_follower_whose_loop_is_held_up_asks_for_no_election(
    bench: Bench, stalls: Stalls
):
    """The engine runs, but what the members send waits in the loop."""
    follow(bench, stalls)

    run(bench, stalls, 3, deaf=True)

    assert not bench.take(frames.PRE_VOTE)
    assert not would_vote_for_n3(bench)


def test_a_node_that_is_always_late_asks_at_last(bench: Bench, stalls: Stalls):
    """Otherwise a cluster on machines that are too busy would stay without a leader."""
    follow(bench, stalls)
    patience_s = FORGIVEN_MAX * SETTINGS.election_max_s

    run(bench, stalls, patience_s + SETTINGS.election_max_s + 1, deaf=True)

    assert bench.take(frames.PRE_VOTE)


def test_a_leader_that_is_heard_is_waited_for_again(bench: Bench, stalls: Stalls):
    follow(bench, stalls)
    for _ in range(3):
        run(bench, stalls, 3, deaf=True)
        follow(bench, stalls)

    assert not bench.take(frames.PRE_VOTE)
    assert not would_vote_for_n3(bench)


def test_a_leader_that_stood_still_goes_on_once_it_hears_a_quorum(
    bench: Bench, stalls: Stalls
):
    """It takes no call before: another node may lead by now, and would not know of it."""
    term = bench.lead()
    stalls.look(bench.now)

    stand_still(bench, stalls, 10)

    assert bench.engine.is_leader()
    assert not bench.engine.has_contact()
    bench.acknowledge("n2", bench.engine.journal.last_index + 1, term)
    run(bench, stalls, TICK_S)
    assert bench.engine.has_contact()


def test_a_leader_that_hears_no_quorum_steps_down_after_it_stood_still(
    bench: Bench, stalls: Stalls
):
    bench.lead()
    stalls.look(bench.now)
    stand_still(bench, stalls, 10)

    run(bench, stalls, SETTINGS.election_min_s + SETTINGS.heartbeat_s)

    assert not bench.engine.is_leader()


class _Ticks:
    """Counts ticks, which the engine's thread goes on with while the loop stands still."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.more = 0, threading.Condition()
        tick = Replica.tick

        def counted(replica: Replica, wait_s: float) -> None:
            tick(replica, wait_s)
            with self.more:
                self.count += 1
                self.more.notify_all()

        monkeypatch.setattr(Replica, "tick", counted)

    def wait(self, more: int) -> None:
        """Hold the calling thread up for this many ticks."""
        with self.more:
            until = self.count + more
            assert self.more.wait_for(lambda: self.count >= until, 60)


def hear_the_leader(replica: Replica) -> None:
    """Take a heartbeat of n2, the leader of term 1."""
    replica.guard.connected("n2", Hello(""))
    heartbeat = {
        "type": frames.APPEND_ENTRIES,
        "term": 1,
        "commit_index": 1,
        "prevLogIdx": 1,
        "prevLogTerm": 0,
        "entries": [],
    }
    replica.guard.receive("n2", heartbeat, Hello(""))


@pytest.mark.asyncio
async def test_the_engine_notices_that_its_loop_is_held_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ticks = _Ticks(monkeypatch)
    requests: list[str] = []

    class Wire:
        def send(self, peer: str, message: Message) -> None:
            if message["type"] == frames.PRE_VOTE:
                requests.append(peer)

    engine = EngineThread(
        ReplicaConfig(
            cluster_id="c1",
            node_id=NodeId("n1"),
            members=tuple(
                Member(node_id=NodeId(name), address="") for name in ("n1", "n2", "n3")
            ),
            salt=bytes(SALT_BYTES),
        ),
        tmp_path,
        open_state=lambda: nullcontext((cast("Any", RecordingState()), FixedStamper())),
        wire=lambda _: Wire(),
        wall_ms=lambda: 0,
        on_status=lambda _: None,
        on_fatal=lambda _: None,
    )
    await engine.start()
    try:
        await engine.run(hear_the_leader, timeout_s=60)
        requests.clear()

        ticks.wait(more=100)  # Two seconds: more than twice the longest patience.

        assert not requests
    finally:
        await engine.stop()
