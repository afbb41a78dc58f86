# SPDX-License-Identifier: Apache-2.0
"""
Connections between members that die silently: TCP acknowledges, nothing arrives.

Bounds are counted in election timeouts, or in the bound that gRPC's options state. They
are generous, because a machine that runs tests may be slow: without the protection it
takes a minute, or forever.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from local_cluster.cluster import free_ports

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.certificates import Authority
from sparecode_node.replication.errors import NoQuorumError, OutcomeUnknownError
from sparecode_node.replication.links import liveness, transport
from sparecode_node.replication.links.liveness import LinkWatch, ping
from sparecode_node.replication.links.peer_service import PeerServicer
from sparecode_node.replication.links.transport import PeerAddresses
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.rpc import server as public
from sparecode_node.rpc.health import READY, Health
from tests.replication.cluster import Node, member_tls, new_authority, ready, until
from tests.replication.recording_state import proposal
from tests.replication.silent_proxy import Death, SilentProxy, before
from tests.replication.test_transport import WAIT_S, End, vote

pytestmark = pytest.mark.asyncio

RAFT = RaftSettings()

PATIENCE = 30
"""A loaded machine may take this many times as long."""

NOTICED_S = 4.0
"""By gRPC itself, between members: as its options say."""

NUMBERS = itertools.count()

KEEPALIVE = dict(transport._KEEPALIVE)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return new_authority()


@pytest.fixture
def trusting_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let gRPC notice nothing."""
    for name in ("_CHANNEL_OPTIONS", "_SERVER_OPTIONS"):
        kept = tuple(o for o in getattr(transport, name) if o[0] not in KEEPALIVE)
        assert len(kept) == len(getattr(transport, name)) - len(KEEPALIVE)
        monkeypatch.setattr(transport, name, kept)


async def comes_within(seconds: float, event: Awaitable[object]) -> bool:
    """Return whether an event comes in time."""
    try:
        async with asyncio.timeout(seconds):
            await event
    except TimeoutError:
        return False
    return True


@dataclass(frozen=True)
class Pair:
    """n1 dials n2 through a proxy."""

    one: End
    two: End
    proxy: SilentProxy


@contextlib.asynccontextmanager
async def pair(
    authority: Authority, patience_s: float = RAFT.election_min_s
) -> AsyncIterator[Pair]:
    own, target, front = (f"127.0.0.1:{port}" for port in free_ports(3))
    addresses = {NodeId("n1"): own, NodeId("n2"): front}
    made = [
        End(
            PeerAddresses(node_id=NodeId(i), listen=listen, members=addresses),
            member_tls(authority, i),
            patience_s,
        )
        for i, listen in (("n1", own), ("n2", target))
    ]
    async with before(target, front) as proxy:
        for end in made:
            await end.start()
        try:
            await made[0].until_seen("connected", "n2")
            one, two = made
            yield Pair(one, two, proxy)
        finally:
            for end in made:
                await end.transport.stop()


@pytest.mark.usefixtures("trusting_grpc")
async def test_a_silently_dead_link_is_replaced_within_an_election_timeout(
    authority: Authority,
) -> None:
    """However it has died, and whatever gRPC thinks."""

    async def replaced(death: Death) -> bool:
        async with pair(authority) as link:
            link.one.wire.send("n2", vote(1))
            await link.two.until_seen("message", "n1", 1)
            assert link.proxy.kill(death)
            if not await comes_within(
                PATIENCE * RAFT.election_max_s,
                link.one.until_seen("connected", "n2", times=2),
            ):
                return False
            link.one.wire.send("n2", vote(2))
            await link.two.until_seen("message", "n1", 2)
            return True

    outcomes = await asyncio.gather(*(replaced(death) for death in Death))
    assert dict(zip(Death, outcomes, strict=True)) == dict.fromkeys(Death, True)


@pytest.mark.usefixtures("trusting_grpc")
async def test_a_slow_member_keeps_its_link(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers the first ping before the ping over another connection."""
    held: list[asyncio.Event] = []
    pinged = asyncio.Event()

    async def slow(*_: object) -> peers_pb2.PingResponse:
        held.append(asyncio.Event())
        pinged.set()
        await held[-1].wait()
        return peers_pb2.PingResponse()

    async def until_pinged(times: int) -> None:
        async with asyncio.timeout(WAIT_S):
            while len(held) < times:
                pinged.clear()
                await pinged.wait()

    monkeypatch.setattr(PeerServicer, "Ping", slow)
    async with pair(authority) as link:
        for first in (0, 2):
            await until_pinged(first + 2)  # n1 to n2, over two connections.
            held[first].set()
        await until_pinged(5)
        link.one.wire.send("n2", vote(1))
        await link.two.until_seen("message", "n1", 1)
        assert link.one.engine.guard.events.count(("connected", "n2")) == 1


async def test_connections_over_a_slow_network_are_not_replaced_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each suspicion doubles the wait, and an answer in time ends that."""
    slow = True
    replaced = 0
    channel = SimpleNamespace(get_state=lambda: grpc.ChannelConnectivity.READY)

    async def answer(pinged: object, **_: object) -> bool:
        if slow and pinged is channel:
            await asyncio.Event().wait()
        return True

    async def replace(*_: object) -> bool:
        nonlocal replaced
        replaced += 1
        return True

    monkeypatch.setattr(liveness, "ping", answer)
    watch = LinkWatch(
        peer=NodeId("n2"),
        channel=lambda: cast("grpc.aio.Channel", channel),
        dial=lambda: cast("grpc.aio.Channel", object()),
        replace=replace,
        patience_s=0.002,
    )
    running = asyncio.create_task(watch.run())
    try:
        assert await comes_within(WAIT_S, until(lambda: replaced >= 5))
        assert watch._slowness == liveness.SLOWNESS_MAX
        slow = False
        assert await comes_within(WAIT_S, until(lambda: watch._slowness == 1))
    finally:
        running.cancel()


async def test_grpc_itself_notices_a_silently_dead_link_at_both_ends(
    authority: Authority,
) -> None:
    async def noticed(death: Death) -> bool:
        async with pair(authority, patience_s=1000) as link:
            channel = link.one.transport.channel(NodeId("n2"))
            assert channel is not None
            (dead,) = link.proxy.kill(death)
            return await comes_within(
                10 * NOTICED_S,
                asyncio.gather(
                    dead.closed_by_called.wait(),
                    channel.wait_for_state_change(grpc.ChannelConnectivity.READY),
                ),
            )

    outcomes = await asyncio.gather(*(noticed(death) for death in Death))
    assert dict(zip(Death, outcomes, strict=True)) == dict.fromkeys(Death, True)


@contextlib.asynccontextmanager
async def cluster(
    directory: Path,
) -> AsyncIterator[tuple[list[Node], list[SilentProxy]]]:
    """Run three nodes, each with a proxy before its listener for members."""
    authority = new_authority()
    ids = [NodeId(f"n{i + 1}") for i in range(3)]
    ports = [f"127.0.0.1:{port}" for port in free_ports(6)]
    own = dict(zip(ids, ports[:3], strict=True))
    fronts = dict(zip(ids, ports[3:], strict=True))
    async with contextlib.AsyncExitStack() as stack:
        proxies = [
            await stack.enter_async_context(before(own[i], fronts[i])) for i in ids
        ]
        nodes = [Node(i, fronts, member_tls(authority, i), directory / i) for i in ids]
        for node in nodes:
            addresses = replace(node.config.addresses, listen=own[node.node_id])
            node.config = replace(node.config, addresses=addresses)
            await node.start()
            stack.push_async_callback(node.stop)
        await named(nodes)
        yield nodes, proxies
        assert [node.fatal for node in nodes] == [[] for _ in nodes]


async def test_replicas_whose_links_are_silently_dead_elect_a_primary(
    tmp_path: Path, trusting_grpc: None
) -> None:
    """It took a minute: each waited for votes over a link that was up and dead."""
    async with cluster(tmp_path) as (nodes, proxies):
        killed = primary_of(nodes)
        for proxy in proxies:
            proxy.kill(Death.SWALLOWED)
        await killed.stop()
        assert await comes_within(
            PATIENCE * 2 * RAFT.election_max_s,  # One to open links, one to elect.
            asyncio.gather(
                *(
                    elected(node, but=killed.node_id)
                    for node in nodes
                    if node is not killed
                )
            ),
        )


async def test_a_node_without_a_quorum_says_so_after_an_election_timeout(
    tmp_path: Path,
) -> None:
    """
    It does not keep its callers until their deadlines, even if no link looks dead.

    The primary says so, too, and the load balancer and the caller hear the same.
    """
    async with cluster(tmp_path) as (nodes, proxies):
        for proxy in proxies:
            proxy.stuck = Death.SWALLOWED
            proxy.kill(Death.SWALLOWED)
        early = [*map(write, nodes), *map(read, nodes)]
        for outcome in await outcomes(early, RAFT.contact_s + RAFT.election_max_s):
            assert isinstance(outcome, NoQuorumError | OutcomeUnknownError)
        async with asyncio.timeout(WAIT_S):
            for node in nodes:
                await until(lambda node=node: not node.replicator.ready)
                # One that still knows a primary would send it the call.
                await until(lambda node=node: node.replicator.primary is None)
        late = [*map(write, nodes), *map(read, nodes)]
        for outcome in await outcomes(late, RAFT.election_max_s):
            assert isinstance(outcome, NoQuorumError)


async def outcomes(
    calls: list[Coroutine[None, None, object]], seconds: float
) -> list[object]:
    """Return the outcomes of calls. They come in this time, or much later."""
    tasks = [asyncio.create_task(each) for each in calls]
    _, late = await asyncio.wait(tasks, timeout=PATIENCE * seconds)
    for task in late:
        task.cancel()
    assert not late
    return await asyncio.gather(*tasks, return_exceptions=True)


async def write(node: Node) -> object:
    """Propose a call, with a deadline that no test reaches."""
    name = f"write {next(NUMBERS)}"
    return await node.replicator.propose(
        proposal(name, node.node_id), timeout_s=1000 * RAFT.election_max_s
    )


async def read(node: Node) -> object:
    """Ask for the index to read at, with a deadline that no test reaches."""
    return await node.replicator.read_barrier(timeout_s=1000 * RAFT.election_max_s)


def primary_of(nodes: list[Node]) -> Node:
    """Return the primary, as all nodes know it."""
    (name,) = {node.replicator.primary for node in nodes}
    (primary,) = (node for node in nodes if node.node_id == name)
    return primary


async def named(nodes: list[Node]) -> None:
    """Return when the nodes could elect a primary without one of them."""
    for node in nodes:
        await ready(node)
        async with asyncio.timeout(WAIT_S):
            await until(lambda r=node.replicator: r.replica_status.agreed.is_named)


async def elected(node: Node, *, but: NodeId | None) -> None:
    """Return when a node knows another primary."""
    await until(lambda: node.replicator.primary not in (None, but))


async def test_the_public_listeners_notice_a_caller_that_is_silently_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within the time of their options, which are cut short here, and not a minute."""
    short = 80
    options = [
        (name, value // short if name in KEEPALIVE else value)
        for name, value in public._OPTIONS
    ]
    keepalive = {name: value for name, value in options if name in KEEPALIVE}
    noticed_s = (
        keepalive["grpc.keepalive_time_ms"] + keepalive["grpc.http2.ping_timeout_ms"]
    ) / 1000
    own, front = (f"127.0.0.1:{port}" for port in free_ports(2))
    health = Health(lambda: True, watchers_max=1)
    async with (
        serving(own, options) as server,
        before(own, front) as proxy,
        grpc.aio.insecure_channel(front) as channel,
    ):
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=READY)
        )
        await watch.read()
        (dead,) = proxy.kill(Death.SWALLOWED)
        assert await comes_within(PATIENCE * noticed_s, dead.closed_by_called.wait())
        watch.cancel()


async def test_a_member_of_release_0_1_answers_a_ping() -> None:
    """It does not know the method, and says so over the same connection."""
    (own,) = (f"127.0.0.1:{port}" for port in free_ports(1))
    async with grpc.aio.insecure_channel(own) as channel:
        async with serving(own):
            assert await ping(channel, timeout_s=WAIT_S)
        assert not await ping(channel, timeout_s=0.1)


@contextlib.asynccontextmanager
async def serving(
    address: str, options: list[tuple[str, int]] | None = None
) -> AsyncIterator[grpc.aio.Server]:
    """Run a server without services."""
    server = grpc.aio.server(options=options)
    server.add_insecure_port(address)
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)
