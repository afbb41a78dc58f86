# SPDX-License-Identifier: Apache-2.0
"""Snapshots beside an engine that is held up: nothing gets mixed."""

import asyncio
import hashlib
import random
import threading
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc.aio
import pytest

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import StoppingError
from sparecode_node.replication.members import Configuration, Member
from sparecode_node.replication.replica import snapshot_keeper
from sparecode_node.replication.replica.engine_thread import EngineThread
from sparecode_node.replication.replica.observer import Unobserved
from sparecode_node.replication.replica.replica import ReplicaStatus
from sparecode_node.replication.replica.snapshot_keeper import SnapshotKeeper
from sparecode_node.replication.snapshots.store import (
    WRITTEN,
    Manifest,
    SnapshotStore,
)
from sparecode_node.statemachine.snapshots import SnapshotFacts
from tests.simulation.disk import Disk, File

pytestmark = pytest.mark.asyncio

WAIT_S = 60
DUE = ReplicaStatus(snapshot_due=True)


def manifest_of(index: int, digest: str, length: int, sha256: bytes) -> Manifest:
    member = Member(node_id=NodeId("n1"), address="n1:7301")
    return Manifest(
        cluster_id="test",
        index=index,
        term=1,
        configuration=Configuration.of([member]),
        digest=digest,
        length=length,
        sha256=sha256,
    )


class Describing:
    """Describes any snapshot."""

    def describe(
        self, *, index: int, digest: str, length: int, sha256: bytes
    ) -> Manifest:
        return manifest_of(index, digest, length, sha256)


class IdleEngine:
    """Runs jobs at once, and notes whether it is in one."""

    def __init__(self, store: SnapshotStore) -> None:
        self.replica: Any = SimpleNamespace(
            snapshots=store, compaction=Describing(), status=ReplicaStatus
        )
        self.busy = False

    async def run(
        self, job: Callable[[Any], object], *, timeout_s: float | None
    ) -> object:
        self.busy = True
        try:
            return job(self.replica)
        finally:
            self.busy = False


class HangingDisk(Disk):
    """Its syncs hang until they may go on, and are counted."""

    def __init__(self) -> None:
        super().__init__("n1", random.Random(1))
        self.hangs = threading.Event()
        self.goes_on = threading.Event()
        self.syncs: list[bool] = []
        self.engine: IdleEngine | None = None

    def sync(self, file: File) -> None:
        self._note()
        super().sync(file)

    def sync_directory(self) -> None:
        self._note()
        super().sync_directory()

    def _note(self) -> None:
        if self.engine is not None:
            self.syncs.append(self.engine.busy)
            self.hangs.set()
            if not self.engine.busy:  # Else no test would go on.
                assert self.goes_on.wait(WAIT_S)


class Growing:
    """A state that is another one whenever a snapshot is written."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.written = 0

    def write(self, target: Path) -> SnapshotFacts:
        self.written += 1
        file = self.disk.append_to(target.name.partition(":")[2])
        file.append(b"state %d" % self.written)
        return SnapshotFacts(index=self.written, digest="d")

    def check_snapshot(self, snapshot: Path) -> SnapshotFacts:
        raise NotImplementedError


@pytest.mark.parametrize("stops", [False, True])
async def test_the_engine_does_not_wait_for_the_disk(
    monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    """
    A snapshot is synced in a worker, while no other body is begun.

    In the engine's thread, a slow disk would cost a leader its term.
    """
    monkeypatch.setattr(snapshot_keeper, "RETRY_S", 0.01)
    disk = HangingDisk()
    store, state = SnapshotStore(disk), Growing(disk)
    engine = disk.engine = IdleEngine(store)
    keeper = SnapshotKeeper(cast("EngineThread", engine), state, lambda _peer: None)
    await keeper.start()
    keeper.take_status(DUE)
    async with asyncio.timeout(WAIT_S):
        assert await asyncio.to_thread(disk.hangs.wait, WAIT_S)
        stopping = asyncio.ensure_future(keeper.stop()) if stops else None
        task = keeper._task
        assert task is not None
        await asyncio.wait({task}, timeout=0.2)
        assert not task.done()
        assert state.written == 1
        disk.goes_on.set()
        if stopping is not None:
            await stopping
        while store.current is None:
            await asyncio.wait({task}, timeout=0.01)
    await keeper.stop()
    assert store.measure(store.current.body) == (
        store.current.length,
        store.current.sha256,
    )
    assert len(disk.syncs) >= 4
    assert not any(disk.syncs)


class Stopping(Growing):
    """Is not read any more."""

    def write(self, target: Path) -> SnapshotFacts:
        self.written += 1
        raise StoppingError


async def test_a_node_that_stops_has_not_failed_and_begins_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its engine goes on for seconds, and says that one is due."""
    disk = Disk("n1", random.Random(1))
    engine = IdleEngine(SnapshotStore(disk))
    state, failures = Stopping(disk), Failures()
    keeper = SnapshotKeeper(
        cast("EngineThread", engine), state, lambda _peer: None, failures
    )
    await keeper.start()
    for _ in range(2):
        keeper.take_status(DUE)
        assert keeper._task is not None
        async with asyncio.timeout(WAIT_S):
            await keeper._task
    await keeper.stop()
    assert state.written == 1
    assert not failures.seen.is_set()
    assert "snapshot_failed" not in caplog.text


# --- From one member to another


class Engine:
    """An engine that does everything at once, and names a source of snapshots."""

    def __init__(self, store: SnapshotStore) -> None:
        self.snapshots = store
        self.checked: list[Manifest] = []
        self.installed: list[Manifest] = []
        self.arrived = 0
        self.kept = ("", 0, 0)

    async def run(
        self, job: Callable[[Any], object], *, timeout_s: float | None
    ) -> object:
        assert timeout_s is None or timeout_s > 0
        return job(self)

    def post(self, job: Callable[[Any], object]) -> None:
        job(self)

    def check_snapshot(self, manifest: Manifest) -> None:
        self.checked.append(manifest)

    def received(self, length: int) -> None:
        self.arrived = length

    def keep_log(self, member: str, index: int, progress: int) -> None:
        self.kept = (member, index, progress)

    async def install(self, manifest: Manifest) -> None:
        self.installed.append(manifest)

    def status(self) -> ReplicaStatus:
        source = None if self.installed else NodeId("n2")
        return ReplicaStatus(snapshot_source=source)


class Holding:
    """A reader to which every snapshot holds entry 7."""

    def write(self, target: Path) -> SnapshotFacts:
        raise NotImplementedError

    def check_snapshot(self, snapshot: Path) -> SnapshotFacts:
        return SnapshotFacts(index=7, digest="held")


class Failures(Unobserved):
    """Is told of them."""

    def __init__(self) -> None:
        self.seen = asyncio.Event()

    def snapshot_failed(self) -> None:
        self.seen.set()


class Source(peers_pb2_grpc.PeerServiceServicer):
    """Sends a snapshot, and says of it what the test wants."""

    body = b"the state"

    def __init__(self, index: int, digest: str) -> None:
        sha256 = hashlib.sha256(self.body).digest()
        self.manifest = manifest_of(index, digest, len(self.body), sha256)

    async def FetchSnapshot(
        self, request: object, context: object
    ) -> AsyncIterator[peers_pb2.FetchSnapshotResponse]:
        yield peers_pb2.FetchSnapshotResponse(manifest=self.manifest.to_message())
        crc32 = zlib.crc32(self.body)
        chunk = peers_pb2.SnapshotChunk(offset=0, data=self.body, crc32=crc32)
        yield peers_pb2.FetchSnapshotResponse(chunk=chunk)


@pytest.mark.parametrize(
    ("index", "digest", "fits"),
    [(7, "held", True), (8, "held", False), (7, "d", False)],
)
async def test_only_what_holds_what_its_manifest_says_is_installed(
    index: int, digest: str, *, fits: bool
) -> None:
    """Each byte arrived as it was sent; but the state would be that of another entry."""
    source, server = Source(index, digest), grpc.aio.server()
    peers_pb2_grpc.add_PeerServiceServicer_to_server(source, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    engine = Engine(SnapshotStore(Disk("n1", random.Random(1))))
    failures = Failures()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        keeper = SnapshotKeeper(
            cast("EngineThread", engine), Holding(), lambda _peer: channel, failures
        )
        await keeper.start()
        keeper.take_status(engine.status())
        assert keeper._task is not None
        failed = asyncio.ensure_future(failures.seen.wait())
        await asyncio.wait(
            {keeper._task, failed},
            timeout=WAIT_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        await keeper.stop()
        failed.cancel()
    await server.stop(0)
    assert engine.checked[0] == source.manifest  # Before anything of it is taken.
    assert engine.installed == ([source.manifest] if fits else [])


async def test_a_member_with_part_of_another_snapshot_gets_the_whole() -> None:
    """Parts of two make none."""
    store = SnapshotStore(Disk("n1", random.Random(1)))
    store.clear(WRITTEN)
    store.storage.append_to(WRITTEN).append(b"the state")
    manifest = manifest_of(7, "d", *store.measure(WRITTEN))
    store.adopt(manifest, WRITTEN)
    engine = Engine(store)
    keeper = SnapshotKeeper(cast("EngineThread", engine), Holding(), lambda _peer: None)
    await keeper.start()
    for sha256, size, data in (
        (manifest.sha256, 0, b"state"),
        (manifest.sha256, 3, b"sta"),
        (manifest.sha256, 9, b"state"),
        (b"another", 0, b"the state"),
        (b"another", 3, b"the"),
    ):
        request = peers_pb2.FetchSnapshotRequest(
            sha256=sha256, offset=4, max_bytes=size
        )
        first, *parts = [part async for part in keeper.send(NodeId("n3"), request)]
        assert Manifest.from_message(first.manifest) == manifest
        assert b"".join(part.chunk.data for part in parts) == data
    assert engine.kept == ("n3", 7, 4)  # Before anything is sent.
    await keeper.stop()
