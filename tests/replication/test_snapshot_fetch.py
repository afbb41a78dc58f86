# SPDX-License-Identifier: Apache-2.0
"""A fetch goes on where it was, at the member where it began."""

import asyncio
import contextlib
import hashlib
import random
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import SnapshotRefusedError
from sparecode_node.replication.replica import snapshot_fetch, snapshot_keeper
from sparecode_node.replication.replica.engine_thread import EngineThread
from sparecode_node.replication.replica.replica import ReplicaStatus
from sparecode_node.replication.replica.snapshot_fetch import (
    PORTION_BYTES_MIN,
    OutdatedSnapshotError,
    SnapshotFetch,
)
from sparecode_node.replication.replica.snapshot_keeper import SnapshotKeeper
from sparecode_node.replication.snapshots.store import (
    BrokenSnapshotError,
    Manifest,
    SnapshotStore,
)
from sparecode_node.statemachine.snapshots import SnapshotFacts
from tests.replication.cluster import until
from tests.replication.test_snapshot_keeper import WAIT_S, Holding, manifest_of
from tests.simulation.disk import Disk

pytestmark = pytest.mark.asyncio

BODY_BYTES = 8 * PORTION_BYTES_MIN


class Sender(peers_pb2_grpc.PeerServiceServicer):
    """A member with a snapshot of its own, which may break off."""

    def __init__(self, node_id: str, index: int = 7) -> None:
        self.node_id = NodeId(node_id)
        self.body = random.Random(node_id).randbytes(BODY_BYTES)
        self.requests: list[tuple[int, int]] = []
        """Offset and length of each portion that was asked for."""
        self.breaks_after: int | None = None
        self.on_portion: Callable[[], object] = lambda: None
        sha256 = hashlib.sha256(self.body).digest()
        self.manifest = manifest_of(index, "held", BODY_BYTES, sha256)

    async def FetchSnapshot(
        self,
        request: peers_pb2.FetchSnapshotRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncIterator[peers_pb2.FetchSnapshotResponse]:
        same = request.sha256 == self.manifest.sha256
        offset = request.offset if same else 0
        self.requests.append((offset, request.max_bytes))
        self.on_portion()
        yield peers_pb2.FetchSnapshotResponse(manifest=self.manifest.to_message())
        if self.breaks_after is not None and len(self.requests) > self.breaks_after:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "it is gone")
        data = self.body[offset : offset + request.max_bytes]
        chunk = peers_pb2.SnapshotChunk(
            offset=offset, data=data, crc32=zlib.crc32(data)
        )
        yield peers_pb2.FetchSnapshotResponse(chunk=chunk)


class Engine:
    """An engine that does everything at once."""

    def __init__(self) -> None:
        self.primary = "n2"
        self.outdated = 0
        self.first = 0
        self.refusal = ""
        self.arrived: list[int] = []
        self.given_up = 0
        self.installed: list[Manifest] = []

    async def run(
        self, job: Callable[[Any], object], *, timeout_s: float | None
    ) -> object:
        return job(self)

    def post(self, job: Callable[[Any], object]) -> None:
        job(self)

    def check_snapshot(self, manifest: Manifest) -> None:
        if self.refusal:
            raise SnapshotRefusedError(self.refusal)

    def received(self, length: int) -> None:
        self.arrived.append(length)

    def fetch_given_up(self) -> None:
        self.given_up += 1

    async def install(self, manifest: Manifest) -> None:
        self.installed.append(manifest)

    def status(self) -> ReplicaStatus:
        return ReplicaStatus(
            snapshot_source=None if self.installed else NodeId(self.primary),
            snapshot_from=self.first,
            snapshots_outdated=self.outdated,
        )


class Fetching:
    """A node that needs a snapshot, and two members that have one."""

    def __init__(self, senders: list[Sender], channels: dict[str, Any]) -> None:
        self.first, self.second = senders
        self.engine = Engine()
        self.disk = Disk("n1", random.Random(1))
        self.store = SnapshotStore(self.disk)
        self.channels = channels
        self.fetch = SnapshotFetch(
            cast("EngineThread", self.engine),
            Holding().check_snapshot,
            self.channels.get,
            self.engine.status,
        )

    async def run(self) -> tuple[NodeId, Manifest]:
        async with asyncio.timeout(WAIT_S):
            return await self.fetch.run(self.store, NodeId(self.engine.primary))


@contextlib.asynccontextmanager
async def two_members() -> AsyncIterator[Fetching]:
    senders = [Sender("n2"), Sender("n3")]
    async with contextlib.AsyncExitStack() as stack:
        channels = {}
        for sender in senders:
            server = grpc.aio.server()
            peers_pb2_grpc.add_PeerServiceServicer_to_server(sender, server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            stack.push_async_callback(server.stop, 0)
            channels[sender.node_id] = await stack.enter_async_context(
                grpc.aio.insecure_channel(f"127.0.0.1:{port}")
            )
        yield Fetching(senders, channels)


async def test_a_fetch_goes_on_at_the_same_member_though_another_one_leads() -> None:
    """Two members' bodies differ: at the other one it would begin again."""
    async with two_members() as node:
        node.first.breaks_after = 2
        with pytest.raises(grpc.aio.AioRpcError, match="gone"):
            await node.run()
        part = node.store.part()
        assert 0 < part[1] < BODY_BYTES
        node.engine.primary = "n3"
        node.first.breaks_after = None
        assert await node.run() == ("n2", node.first.manifest)
        offsets = [offset for offset, _ in node.first.requests]
        assert part[1] in offsets
        assert offsets.count(0) == 1
        assert node.second.requests == []
        assert node.engine.installed == [node.first.manifest]
        assert node.engine.arrived == sorted(set(node.engine.arrived))
        assert node.engine.arrived[-1] == BODY_BYTES


async def test_a_snapshot_before_a_new_primarys_log_is_given_up_for_its_own() -> None:
    async with two_members() as node:
        node.first.breaks_after = 1
        with pytest.raises(grpc.aio.AioRpcError):
            await node.run()
        node.first.breaks_after = None
        node.engine.primary, node.engine.first = "n3", 8
        node.second.manifest = replace(node.second.manifest, index=8)
        node.fetch._check = lambda _path: SnapshotFacts(index=8, digest="held")
        assert await node.run() == ("n3", node.second.manifest)
        assert node.engine.installed == [node.second.manifest]


@pytest.mark.parametrize(
    ("digest", "index", "right"),
    [("held", 7, True), ("", 7, True), ("other", 7, False), ("", 8, False)],
)
async def test_the_state_is_the_announced_one(
    digest: str, index: int, right: bool
) -> None:
    """Without a digest it is not compared: another release may have announced one."""
    async with two_members() as node:
        assert (node.first.manifest.digest, node.first.manifest.index) == ("held", 7)
        node.fetch._check = lambda _path: SnapshotFacts(index=index, digest=digest)
        if right:
            assert await node.run() == ("n2", node.first.manifest)
        else:
            with pytest.raises(BrokenSnapshotError, match="index or digest differ"):
                await node.run()
            assert node.engine.installed == []


@pytest.mark.parametrize("gone", ["silent", "removed"])
async def test_a_member_that_is_gone_is_given_up_for_the_primary(
    monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    async with two_members() as node:
        node.first.breaks_after = 1
        with pytest.raises(grpc.aio.AioRpcError):
            await node.run()
        node.engine.primary = "n3"
        if gone == "silent":
            monkeypatch.setattr(snapshot_fetch, "SWITCH_S", 0.0)
        else:
            del node.channels["n2"]
        assert await node.run() == ("n3", node.second.manifest)
        assert node.second.requests[0][0] == 0
        assert node.engine.installed == [node.second.manifest]


async def test_portions_are_as_large_as_the_link_carries_in_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for portion_s, sizes in ((WAIT_S, [1, 2, 4, 8]), (0.0, [1] * 8)):
        monkeypatch.setattr(snapshot_fetch, "PORTION_S", portion_s)
        async with two_members() as node:
            await node.run()
            asked = [size // PORTION_BYTES_MIN for _, size in node.first.requests]
            assert asked == sizes


async def test_a_snapshot_whose_log_is_gone_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At once, and not when all of it has arrived."""
    async with two_members() as node:

        def outdate() -> None:
            node.engine.outdated = len(node.first.requests) // 2

        node.first.on_portion = outdate
        with pytest.raises(OutdatedSnapshotError):
            await node.run()
        assert len(node.first.requests) == 2
        assert node.store.part() == (b"", 0)
        assert node.engine.given_up == 1
        node.first.on_portion = lambda: None
        node.engine.primary = "n3"
        assert await node.run() == ("n3", node.second.manifest)


async def test_a_refused_snapshot_takes_no_place() -> None:
    async with two_members() as node:
        node.engine.refusal = "the primary's log begins after it"
        with pytest.raises(SnapshotRefusedError):
            await node.run()
        assert node.store.part() == (b"", 0)


async def test_a_full_disk_keeps_what_has_arrived() -> None:
    """Otherwise a fetch would begin again with each attempt."""
    async with two_members() as node:

        def fill() -> None:
            node.disk.full = len(node.first.requests) == 3

        node.first.on_portion = fill
        with pytest.raises(OSError, match="no space"):
            await node.run()
        _, received = node.store.part()
        assert received == node.first.requests[2][0] > 0
        await node.run()
        assert node.first.requests[3][0] == received
        assert node.engine.installed == [node.first.manifest]


# --- Waiting after failures


class Failing:
    """A state that is never read."""

    def write(self, target: Path) -> SnapshotFacts:
        raise NotImplementedError

    check_snapshot = write


async def pauses(
    keeper: SnapshotKeeper, caplog: pytest.LogCaptureFixture, count: int
) -> list[float]:
    """Return how long the keeper waits after each of its failures."""

    def seen() -> list[float]:
        records = [r for r in caplog.records if r.message == "snapshot_failed"]
        return [r.again_s for r in records]  # type: ignore[attr-defined]

    async with asyncio.timeout(WAIT_S):
        await until(lambda: len(seen()) >= count)
    await keeper.stop()
    return seen()[:count]


async def test_failures_wait_longer_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(snapshot_keeper, "RETRY_S", 0.001)
    monkeypatch.setattr(snapshot_keeper, "RETRY_MAX_S", 0.004)
    engine = Engine()
    engine.snapshots = SnapshotStore(Disk("n1", random.Random(1)))  # type: ignore[attr-defined]
    keeper = SnapshotKeeper(cast("EngineThread", engine), Failing(), lambda _: None)
    await keeper.start()
    keeper.take_status(engine.status())
    expected = [0.001, 0.002, 0.004, 0.004]
    assert await pauses(keeper, caplog, 4) == expected


async def test_useless_snapshots_wait_longer_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each one costs the other members a long log."""
    assert snapshot_keeper.OUTDATED_S > snapshot_keeper.RETRY_S
    monkeypatch.setattr(snapshot_keeper, "OUTDATED_S", 0.01)
    monkeypatch.setattr(snapshot_keeper, "OUTDATED_MAX_S", 0.03)
    engine = Engine()
    store = SnapshotStore(Disk("n1", random.Random(1)))
    engine.snapshots = store  # type: ignore[attr-defined]
    keeper = SnapshotKeeper(cast("EngineThread", engine), Failing(), lambda _: None)

    async def useless(_store: SnapshotStore, _primary: NodeId) -> None:
        raise OutdatedSnapshotError("it is too old")

    monkeypatch.setattr(keeper._fetching, "run", useless)
    await keeper.start()
    keeper.take_status(ReplicaStatus(snapshot_source=NodeId("n2")))
    assert await pauses(keeper, caplog, 3) == [0.01, 0.02, 0.03]
    assert keeper._outdated >= 3
    keeper.take_status(ReplicaStatus(snapshot_source=NodeId("n2"), caught_up=True))
    assert keeper._outdated >= 3  # It needs another one.
    keeper.take_status(ReplicaStatus(caught_up=True))
    assert keeper._outdated == 0
