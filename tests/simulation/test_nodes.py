# SPDX-License-Identifier: Apache-2.0
"""
Whole nodes keep every promise while the links between them die, and work on in time.

They run the code of `ClusterReplicator`, its queues, its links and its hand-over to the
engine's thread; a caller is never told something wrong of what became of a call.
"""

import asyncio
import contextlib
import random
from collections.abc import Iterator

import grpc
import grpc.aio
import pytest

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from tests.simulation.fault_effects import Effect
from tests.simulation.nodes.channels import Channel
from tests.simulation.nodes.cluster import NodesCluster
from tests.simulation.nodes.connections import CLIENT, SERVER
from tests.simulation.nodes.loops import NodeLoop, Timeline


def run(seed: int, nodes: int = 3) -> NodesCluster:
    with contextlib.closing(NodesCluster(seed, nodes)) as sim:
        sim.run()
    return sim


@pytest.mark.parametrize("seed", range(3))
def test_three_whole_nodes_keep_every_promise(seed: int) -> None:
    sim = run(seed)
    assert sim.invariants.violations == {}
    assert len(sim.invariants.acked) > 50


@pytest.mark.long
def test_five_whole_nodes_keep_every_promise() -> None:
    assert run(1, nodes=5).invariants.violations == {}


@pytest.mark.long
def test_a_seed_of_whole_nodes_is_a_run() -> None:
    one, other = run(4), run(4)
    assert one.effects == other.effects
    assert one.invariants.applied == other.invariants.applied
    assert one.invariants.acked == other.invariants.acked
    assert one.now == other.now


# --- The stand-in for gRPC has what gRPC does


@pytest.fixture
def healthy() -> Iterator[NodesCluster]:
    """Return a cluster that has a primary, to which nothing happens."""
    with contextlib.closing(NodesCluster(7)) as sim, sim.world():
        while sim.leader() is None:
            sim.step()
        yield sim


async def ping(channel: Channel, timeout_s: float) -> grpc.StatusCode:
    stub = peers_pb2_grpc.PeerServiceStub(channel)  # type: ignore[arg-type]
    call = stub.Ping(peers_pb2.PingRequest(), timeout=timeout_s)
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def pinged(sim: NodesCluster, channel: Channel, timeout_s: float = 0.3) -> str:
    """Return the code with which a ping ends."""
    task = channel.process.spawn(ping(channel, timeout_s))
    assert isinstance(task, asyncio.Task)
    for _ in range(40):
        sim.step()
    return task.result().name


def test_a_ping_is_answered_until_its_connection_swallows_it(
    healthy: NodesCluster,
) -> None:
    channel = Channel(healthy.wires, healthy.nodes["n1"], "n2:7301")
    assert pinged(healthy, channel) == "OK"
    for end in (CLIENT, SERVER):
        assert channel.connection is not None
        channel.connection.swallowing = [end == CLIENT, end == SERVER]
        assert channel.get_state() is grpc.ChannelConnectivity.READY
        assert pinged(healthy, channel) == "DEADLINE_EXCEEDED"


def test_a_process_that_is_killed_ends_its_connections_and_one_without_power_does_not(
    healthy: NodesCluster,
) -> None:
    n1, n2 = healthy.nodes["n1"], healthy.nodes["n2"]
    for power, state in ((False, "IDLE"), (True, "READY")):
        channel = Channel(healthy.wires, n1, "n2:7301")
        assert pinged(healthy, channel) == "OK"
        healthy.stop(n2, power=power, cause="test")
        n2.restart_at = healthy.now + 0.5
        healthy.step()
        assert channel.get_state().name == state
        for _ in range(40):
            healthy.step()


def test_a_call_on_a_channel_that_closes_is_cancelled(healthy: NodesCluster) -> None:
    channel = Channel(healthy.wires, healthy.nodes["n1"], "n2:7301")
    assert pinged(healthy, channel) == "OK"
    assert channel.connection is not None
    channel.connection.swallowing = [True, True]
    task = channel.process.spawn(ping(channel, 5.0))
    assert isinstance(task, asyncio.Task)
    healthy.step()
    channel.process.spawn(channel.close())
    healthy.step()
    assert task.cancelled()


def test_dead_links_are_replaced_before_grpc_notices(healthy: NodesCluster) -> None:
    """The members' own pings find them (`links.liveness`)."""
    healthy.faults.silence(healthy.ids)
    for _ in range(30):
        healthy.step()
    assert healthy.effects[Effect.LINK_REPLACED] >= 6
    assert not healthy.effects[Effect.KEEPALIVE]


def test_a_storm_ends_the_new_connections_of_its_machines_alone(
    healthy: NodesCluster,
) -> None:
    """Else it would hold a core up that is left alone."""
    healthy.wires.storms["n3"] = healthy.now + 60
    channels = [Channel(healthy.wires, healthy.nodes["n1"], f"n{i}:7301") for i in "23"]
    assert [pinged(healthy, channel) for channel in channels] == ["OK", "OK"]
    assert [channel.get_state().name for channel in channels] == ["READY", "IDLE"]
    healthy.faults.mend_between(["n2", "n3"])
    assert pinged(healthy, channels[1]) == "OK"
    assert channels[1].get_state().name == "READY"


def test_a_machine_that_is_mended_goes_on_at_once(healthy: NodesCluster) -> None:
    """Else one that was paused before would hold a core up that is left alone."""
    leader = healthy.leader()
    assert leader is not None
    leader.pause(healthy.now + 60)
    waiting = healthy.probe(leader, 90.0)
    for _ in range(100):
        healthy.step()
    assert not waiting.outcomes
    healthy.faults.mend(leader)
    for _ in range(4):
        healthy.step()
    assert waiting.outcomes


# --- Loops


def test_a_killed_loop_runs_nothing_more_and_a_paused_one_runs_it_later() -> None:
    timeline = Timeline()
    seen: list[tuple[str, float]] = []
    loops = [
        NodeLoop(
            timeline,
            random.Random(1),
            rate=1.0,
            run_beside=lambda _: 0.0,
            on_error=seen.append,  # type: ignore[arg-type]
        )
        for _ in range(3)
    ]

    async def work(name: str) -> None:
        try:
            await asyncio.sleep(1)
            seen.append((name, timeline.now - 1000))
        finally:
            seen.append((f"{name} ends", timeline.now - 1000))

    for loop, name in zip(loops, ("runs", "killed", "paused"), strict=True):
        loop.create_task(work(name))
    timeline.run_until(1000.5)
    loops[1].kill()
    loops[2].paused_until = 1003.0
    timeline.run_until(1010.0)
    assert seen == [
        ("runs", 1.0),
        ("runs ends", 1.0),
        ("paused", 3.0),
        ("paused ends", 3.0),
    ]
    loops[1].drain()
    assert seen[-1][0] == "killed ends"
