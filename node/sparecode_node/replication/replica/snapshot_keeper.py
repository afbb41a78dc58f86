# SPDX-License-Identifier: Apache-2.0
"""
Takes snapshots when the log is long, sends them, and fetches a missing one.

Lives in the loop. Worker threads read and write the files; the engine's thread does
only what is short and must be in order.
"""

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.answers import each_of
from sparecode_node.replication.errors import (
    NoPrimaryError,
    ProposeError,
    SnapshotRefusedError,
    StoppingError,
)
from sparecode_node.replication.replica.engine_thread import EngineThread
from sparecode_node.replication.replica.observer import (
    Observer,
    Unobserved,
    snapshot_observed,
)
from sparecode_node.replication.replica.replica import ReplicaStatus
from sparecode_node.replication.snapshots.store import (
    RECEIVED,
    WRITTEN,
    BrokenSnapshotError,
    Manifest,
    SnapshotStore,
)
from sparecode_node.statemachine.snapshots import SnapshotError, SnapshotFacts

log = logging.getLogger(__name__)

RETRY_S = 0.5
"""After a failure."""

FETCH_S = 60.0
"""Of one stream; the next stream continues where it ended."""

ENGINE_S = 60.0
"""The engine's thread may be busy with the disk for this time."""


class StateSnapshots(Protocol):
    """Writes and reads snapshots in any thread, until the node is told to stop."""

    def write(self, target: Path) -> SnapshotFacts:
        """Copy the state into the new file *target*. Raises `StoppingError`."""

    def read(self, snapshot: Path) -> SnapshotFacts:
        """Read a whole snapshot. Raises `SnapshotError` and `StoppingError`."""


class SnapshotKeeper:
    """Does one thing at a time, and repeats what has failed."""

    def __init__(
        self,
        engine: EngineThread,
        state: StateSnapshots,
        channel: Callable[[NodeId], grpc.aio.Channel | None],
        observer: Observer | None = None,
    ) -> None:
        self._engine = engine
        self._state = state
        self._channel = channel
        self._observer = observer or Unobserved()
        self._status = ReplicaStatus()
        self._store: SnapshotStore | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self) -> None:
        """Start; the engine runs already."""
        self._store = await self._engine.run(
            lambda replica: replica.snapshots, timeout_s=ENGINE_S
        )
        self.take_status(self._status)

    async def stop(self) -> None:
        """Cancel the work in progress: it leaves nothing that counts."""
        self._store = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def take_status(self, status: ReplicaStatus) -> None:
        """Start work if this status asks for it."""
        self._status = status
        idle = self._task is None or self._task.done()
        if idle and self._store is not None and self._next_work(self._store):
            self._task = asyncio.create_task(self._run(self._store), name="snapshots")

    def _next_work(
        self, store: SnapshotStore
    ) -> Callable[[], Coroutine[Any, Any, None]] | None:
        if self._stopping:
            return None
        source = self._status.snapshot_source
        if source is not None:
            return lambda: self._observed("fetch", self._fetch(store, source))
        if self._status.snapshot_due:
            return lambda: self._observed("take", self._take(store))
        return None

    async def _observed(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        with snapshot_observed(self._observer, name):
            await work

    async def _run(self, store: SnapshotStore) -> None:
        while work := self._next_work(store):
            try:
                await work()
                # Statuses that were published before the work are outdated.
                self._status = await self._engine.run(
                    lambda replica: replica.status(), timeout_s=ENGINE_S
                )
            except StoppingError:
                self._stopping = True  # Not a failure: `stop` will be called.
            except (
                BrokenSnapshotError,
                SnapshotError,
                SnapshotRefusedError,
                ProposeError,
                grpc.aio.AioRpcError,
                OSError,
            ) as error:
                log.warning("snapshot_failed", extra={"cause": str(error)})
                self._observer.snapshot_failed()
                await asyncio.sleep(RETRY_S)

    # --- Taking

    async def _take(self, store: SnapshotStore) -> None:
        path = await asyncio.to_thread(store.clear, WRITTEN)
        facts = await asyncio.to_thread(self._state.write, Path(path))
        length, sha256 = await asyncio.to_thread(store.measure, WRITTEN)
        manifest = await self._engine.run(
            lambda replica: replica.compaction.describe(
                index=facts.index, digest=facts.digest, length=length, sha256=sha256
            ),
            timeout_s=ENGINE_S,
        )
        # Not in the engine's thread: a slow disk would cost a leader its term.
        await _finished(store.adopt, manifest, WRITTEN)
        log.info("snapshot_taken", extra={"index": manifest.index, "bytes": length})

    # --- Sending

    async def send(
        self, request: peers_pb2.FetchSnapshotRequest
    ) -> AsyncIterator[peers_pb2.FetchSnapshotResponse]:
        """Yield the newest snapshot, or the part that another member lacks."""
        store = self._store
        manifest = None if store is None else store.current
        if store is None or manifest is None:
            raise NoPrimaryError("this node has no snapshot")
        offset = request.offset if request.sha256 == manifest.sha256 else 0
        yield peers_pb2.FetchSnapshotResponse(manifest=manifest.to_message())
        while data := await asyncio.to_thread(store.chunk, manifest, offset):
            chunk = peers_pb2.SnapshotChunk(
                offset=offset, data=data, crc32=zlib.crc32(data)
            )
            yield peers_pb2.FetchSnapshotResponse(chunk=chunk)
            offset += len(data)

    # --- Fetching

    async def _fetch(self, store: SnapshotStore, source: NodeId) -> None:
        channel = self._channel(source)
        if channel is None:
            raise NoPrimaryError(f"no channel to {source}")
        stub: peers_pb2_grpc.PeerServiceAsyncStub = peers_pb2_grpc.PeerServiceStub(
            channel
        )
        sha256, offset = store.part()
        request = peers_pb2.FetchSnapshotRequest(sha256=sha256, offset=offset)
        async for part in each_of(stub.FetchSnapshot(request, timeout=FETCH_S)):
            await self._take_part(store, part)
        manifest = await asyncio.to_thread(store.complete)
        path = Path(store.storage.where(RECEIVED))
        facts = await asyncio.to_thread(self._state.read, path)
        if facts != SnapshotFacts(index=manifest.index, digest=manifest.digest):
            raise BrokenSnapshotError("index or digest differ from the manifest")
        # No bytes may be received into the file while it may be being installed.
        await self._engine.run(
            lambda replica: replica.install(manifest), timeout_s=None
        )
        log.info("snapshot_fetched", extra={"peer": source, "index": manifest.index})

    async def _take_part(
        self, store: SnapshotStore, part: peers_pb2.FetchSnapshotResponse
    ) -> None:
        if part.WhichOneof("part") == "manifest":
            manifest = Manifest.from_message(part.manifest)
            await self._engine.run(
                lambda replica: replica.check_snapshot(manifest), timeout_s=ENGINE_S
            )
            await asyncio.to_thread(store.begin, manifest)
        else:
            chunk = part.chunk
            await asyncio.to_thread(store.add, chunk.offset, chunk.data, chunk.crc32)


async def _finished(work: Callable[..., object], *arguments: object) -> None:
    """
    Run *work* in a worker thread; return when it is done, even if canceled before.

    No other body may be written meanwhile, and the folder must stay open.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise
