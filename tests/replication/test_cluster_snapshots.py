# SPDX-License-Identifier: Apache-2.0
"""Compaction and snapshots over real gRPC and on real files, in one process."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Rejected
from sparecode_node.replication.applied_state import AppliedState
from sparecode_node.replication.log.file import NAME, SHORTER
from sparecode_node.replication.log.storage import AppendFile
from sparecode_node.replication.replica.observer import ObservedStorage
from sparecode_node.replication.replica.snapshot_keeper import SnapshotKeeper
from sparecode_node.replication.replicator import Proposal, Stamper
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.replication.snapshots import store as snapshots
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.snapshots import (
    SnapshotFacts,
    check_snapshot,
    write_snapshot,
)
from tests.replication import cluster
from tests.replication.cluster import (
    Node,
    caught_up,
    outcome,
    put,
    ready,
    running,
)
from tests.replication.recording_state import FixedStamper
from tests.replication.test_cluster_replicator import WAIT_S, settled
from tests.statemachine.world import World

pytestmark = pytest.mark.asyncio

SHORT = RaftSettings(log_entries_max=32, log_entries_kept=8)


def snapshot_index(node: Node) -> int:
    """Return which entry the node's newest snapshot is of."""
    store = node.replicator._snapshots._store
    return 0 if store is None or store.current is None else store.current.index


async def until(condition: Callable[[], bool], node: Node) -> None:
    """Wait for what happens in the background, and let the engines work meanwhile."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await caught_up(node)


async def write(node: Node, count: int, prefix: str) -> None:
    for k in range(count):
        await write_one(node, f"{prefix}{k}")


async def write_one(node: Node, request_id: str) -> None:
    """Write, also if the primary is lost for a moment: the machine may be busy."""
    await put(node, request_id)


@contextlib.asynccontextmanager
async def left_behind(directory: Path) -> AsyncIterator[tuple[list[Node], Node]]:
    """Run a cluster of which one node is off, and lacks what the others dropped."""
    async with running(directory, raft=SHORT) as nodes:
        primary, (_, away) = await settled(nodes)
        await away.stop()
        await write(primary, 100, "meanwhile")
        rest = [node for node in nodes if node is not away]
        await until(lambda: all(snapshot_index(n) > 60 for n in rest), primary)
        yield rest, away


async def test_a_node_that_was_away_for_long_is_brought_up(tmp_path: Path) -> None:
    async with left_behind(tmp_path) as (rest, away):
        await away.start()
        await ready(away)
        await caught_up(away)
        assert "meanwhile99" in away.state.results
        assert away.state.digest() == rest[0].state.digest()
        assert snapshot_index(away) > 60
        await write(rest[0], 10, "after")
        await away.stop()
        await away.start()  # On what it was given.
        await ready(away)
        await caught_up(away)
        assert away.state.digest() == rest[0].state.digest()


async def test_a_transfer_that_breaks_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also damaged chunks cost only themselves."""
    offsets: list[int] = []
    send = SnapshotKeeper.send

    async def break_off(
        self: SnapshotKeeper, peer: NodeId, request: peers_pb2.FetchSnapshotRequest
    ) -> AsyncIterator[peers_pb2.FetchSnapshotResponse]:
        offsets.append(request.offset)
        count = 0
        async for part in send(self, peer, request):
            count += 1
            if count == 4 and len(offsets) == 1:
                raise OSError("the disk of the sender failed")
            if count == 4 and len(offsets) == 2:
                part.chunk.data = b"x" * len(part.chunk.data)
            yield part

    monkeypatch.setattr(SnapshotKeeper, "send", break_off)
    monkeypatch.setattr(snapshots, "SNAPSHOT_CHUNK_BYTES", 512)
    async with left_behind(tmp_path) as (rest, away):
        await away.start()
        await ready(away)
        await caught_up(away)
        assert offsets == [0, 1024, 2048]
        assert away.state.digest() == rest[0].state.digest()


async def test_the_journal_stays_short_under_load(tmp_path: Path) -> None:
    async with running(tmp_path, raft=SHORT) as nodes:
        primary, _ = await settled(nodes)
        for k in range(5):
            await write(primary, 60, f"load{k}.")
        for node in nodes:
            await caught_up(node)
        journals = [tmp_path / node.node_id / NAME for node in nodes]
        await until(lambda: all(snapshot_index(n) > 250 for n in nodes), primary)
        await until(lambda: all(j.stat().st_size < 40_000 for j in journals), primary)
        assert len({node.state.digest() for node in nodes}) == 1


class HungFile:
    """A file whose syncs wait."""

    def __init__(self, file: AppendFile, slow: "SlowDisks") -> None:
        self._file, self._slow = file, slow
        self.append, self.close = file.append, file.close

    def sync(self) -> None:
        self._slow.wait()
        self._file.sync()


@dataclass
class SlowDisks:
    """Disks on which a whole journal takes forever, and a few bytes do not."""

    names: tuple[str, ...] = (f"{NAME}.new", SHORTER)
    hung: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event = field(default_factory=threading.Event)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        append_to = ObservedStorage.append_to

        def slow(storage: ObservedStorage, name: str) -> AppendFile:
            file = append_to(storage, name)
            return HungFile(file, self) if name in self.names else file

        patch.setattr(ObservedStorage, "append_to", slow)

    def wait(self) -> None:
        """Wait as a sync does."""
        self.hung.set()
        assert self.goes_on.wait(2 * WAIT_S)


async def seen(condition: Callable[[], bool]) -> bool:
    """Return whether a condition comes true, which no call of a node waits for."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WAIT_S):
            await cluster.until(condition)
    return condition()


async def engine_answers(node: Node) -> bool:
    """Return whether the engine's thread waits for no disk."""
    try:
        async with asyncio.timeout(WAIT_S):
            await node.replicator._engine.run(lambda _: None, timeout_s=None)
    except TimeoutError:
        return False
    return True


async def test_a_disk_that_is_slow_with_the_log_costs_no_term(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is written again outside of the engine's thread."""
    async with running(tmp_path, raft=SHORT) as nodes:
        primary, _ = await settled(nodes)
        disks = SlowDisks()
        disks.install(monkeypatch)
        writing = asyncio.create_task(write(primary, 100, "before"))
        try:
            assert await seen(disks.hung.is_set)
            # All at once: the sync of the first one that waits ends at some time.
            answers = await asyncio.gather(*(engine_answers(node) for node in nodes))
            assert all(answers)
            await writing  # With a log that does not become shorter.
        finally:
            disks.goes_on.set()
            await asyncio.gather(writing, return_exceptions=True)
        assert await seen(
            lambda: all(n.replicator._status.log_entries < 60 for n in nodes)
        )
        await primary.stop()
        await primary.start()  # On the journal that it went on in.
        await ready(primary)
        await caught_up(primary)
        assert "before99" in primary.state.results


@pytest.mark.parametrize("slow", ["snapshot", "state"])
async def test_a_disk_that_is_slow_with_a_fetched_snapshot_costs_no_quorum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    """While it is installed, the node votes and answers: another member is down."""
    async with left_behind(tmp_path) as ((lasting, third), away):
        disks = SlowDisks(("snapshot.manifest.new",) if slow == "snapshot" else ())
        disks.install(monkeypatch)
        install = away.state.install

        def install_later(snapshot: str) -> None:
            if slow == "state":
                disks.wait()
            install(snapshot)

        monkeypatch.setattr(away.state, "install", install_later)
        try:
            await away.start()
            assert await seen(disks.hung.is_set)
            await third.stop()
            loop = asyncio.get_running_loop()
            alone_s = loop.time() + 2 * SHORT.step_down_s

            def leads() -> bool:
                status = lasting.replicator._status
                leads = status.is_leader and status.has_contact
                return leads and loop.time() > alone_s

            assert await seen(leads)
            assert away.state.applied_index < 60
        finally:
            disks.goes_on.set()
        await write(lasting, 1, "after")
        await caught_up(away)
        assert "after0" in away.state.results


class RealNode(Node):
    """A node with the real state machine in a file."""

    path: Path

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[AppliedState, Stamper]]:
        with contextlib.closing(sqlite3.connect(self.path)) as db:
            yield StateMachine(db), FixedStamper()

    def write(self, target: Path) -> SnapshotFacts:
        return write_snapshot(self.path, target)

    def check_snapshot(self, snapshot: Path) -> SnapshotFacts:
        return check_snapshot(snapshot)


async def test_the_real_state_is_brought_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's files, threads and locks, under load."""

    def real(node_id: str, *rest: Any) -> RealNode:
        node = RealNode(node_id, *rest)
        node.path = tmp_path / f"{node_id}.db"
        node.state = node  # type: ignore[assignment]  # For its snapshots.
        return node

    monkeypatch.setattr(cluster, "Node", real)
    world = World()
    async with running(tmp_path, raft=SHORT) as nodes:
        await ready(nodes[0])
        await caught_up(nodes[0])
        async with asyncio.timeout(WAIT_S):
            await cluster.until(lambda: any(n.replicator.led_term for n in nodes))
        primary = next(n for n in nodes if n.replicator.led_term)
        rest, away = [n for n in nodes if n is not nodes[2]], nodes[2]
        if primary is away:
            rest, away = [n for n in nodes if n is not nodes[1]], nodes[1]

        async def apply(directive: str, **arguments: str) -> None:
            call = world.call(directive, arguments)
            made = Proposal(
                call=UnstampedCall(
                    command=call.command,
                    request=call.request,
                    node_id=call.node_id,
                    session_id=call.session_id,
                )
            )
            result = await outcome(
                lambda: primary.replicator.propose(made, timeout_s=WAIT_S)
            )
            assert not isinstance(result, Rejected), result
            world.apply(call)

        await apply("init")
        await apply("sign-in")
        await away.stop()
        for k in range(100):
            await apply("create-user", name=f"user{k}")
        await until(lambda: all(snapshot_index(n) > 60 for n in rest), primary)
        await away.start()
        await ready(away)
        barrier = await caught_up(away)
        assert snapshot_index(away) > 60
    digests = set()
    for node in nodes:
        with contextlib.closing(sqlite3.connect(node.path)) as db:  # type: ignore[attr-defined]
            state = StateMachine(db)
            assert state.applied_index >= barrier.index
            assert db.execute("SELECT count(*) FROM users").fetchone() == (100,)
            digests.add(state.digest())
    assert len(digests) == 1


async def test_a_member_without_a_snapshot_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        primary, (replica, _) = await settled(nodes)
        channel = replica.replicator._transport.channel(primary.node_id)
        assert channel is not None
        stub: peers_pb2_grpc.PeerServiceAsyncStub = peers_pb2_grpc.PeerServiceStub(
            channel
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.FetchSnapshot(peers_pb2.FetchSnapshotRequest()):
                pass
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
