# SPDX-License-Identifier: Apache-2.0
"""
Takes snapshots when the log is long, sends them, and fetches a missing one.

Lives in the loop. Worker threads read and write the files; the engine's thread does
only what is short and must be in order.
"""

import asyncio
import logging
import time
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol

import grpc
import grpc.aio

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.fault_points import Point, reach
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
from sparecode_node.replication.replica.snapshot_fetch import (
    ENGINE_S,
    OutdatedSnapshotError,
    SnapshotFetch,
)
from sparecode_node.replication.snapshots.store import (
    WRITTEN,
    BrokenSnapshotError,
    SnapshotStore,
)
from sparecode_node.statemachine.snapshots import SnapshotError, SnapshotFacts

log = logging.getLogger(__name__)

RETRY_S = 0.5
"""After a failure; twice as long after each further one, until something was done."""

RETRY_MAX_S = 60.0

OUTDATED_S = 30.0
"""
After a snapshot that did not help, because the entries after it were dropped; twice as
long after each further one. Each attempt costs the other members a long log.
"""

OUTDATED_MAX_S = 900.0


class StateSnapshots(Protocol):
    """Writes and reads snapshots in any thread, until the node is told to stop."""

    def write(self, target: Path) -> SnapshotFacts:
        """Copy the state into the new file *target*. Raises `StoppingError`."""

    def check_snapshot(self, snapshot: Path) -> SnapshotFacts:
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
        self._observer = observer or Unobserved()
        self._fetching = SnapshotFetch(
            engine, state.check_snapshot, channel, lambda: self._status
        )
        self._failures = 0
        """Since something was done."""
        self._outdated = 0
        """Fetched snapshots that did not help, since this node had caught up."""
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
        if status.caught_up and status.snapshot_source is None:
            self._outdated = 0
        idle = self._task is None or self._task.done()
        if idle and self._store is not None and self._next_work(self._store):
            self._task = asyncio.create_task(self._run(self._store), name="snapshots")

    def _next_work(
        self, store: SnapshotStore
    ) -> Callable[[], Coroutine[Any, Any, None]] | None:
        if self._stopping:
            return None
        if (source := self._status.snapshot_source) is not None:
            return lambda: self._observed("fetch", self._fetch(store, source))
        if self._status.snapshot_due:
            return lambda: self._observed("take", self._take(store))
        return None

    async def _observed(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        with snapshot_observed(self._observer, name):
            await work

    async def _run(self, store: SnapshotStore) -> None:
        while work := self._next_work(store):
            part = store.part()
            try:
                await work()
                self._failures = 0
                # Statuses that were published before the work are outdated.
                self._status = await self._engine.run(
                    lambda replica: replica.status(), timeout_s=ENGINE_S
                )
            except StoppingError:
                self._stopping = True  # Not a failure: `stop` will be called.
            except OutdatedSnapshotError as error:
                self._outdated += 1
                await self._pause(error, OUTDATED_S, self._outdated, OUTDATED_MAX_S)
            except (
                BrokenSnapshotError,
                SnapshotError,
                SnapshotRefusedError,
                ProposeError,
                grpc.aio.AioRpcError,
                OSError,
            ) as error:
                has_more = store.part()[1] > part[1]
                self._failures = 1 if has_more else self._failures + 1
                await self._pause(error, RETRY_S, self._failures, RETRY_MAX_S)

    async def _pause(
        self, error: Exception, first_s: float, failures: int, most_s: float
    ) -> None:
        """Report a failure, and wait."""
        seconds = pause_s(first_s, failures, most_s)
        log.warning("snapshot_failed", extra={"cause": str(error), "again_s": seconds})
        self._observer.snapshot_failed()
        await asyncio.sleep(seconds)

    # --- Taking

    async def _take(self, store: SnapshotStore) -> None:
        began = time.perf_counter()
        path = await asyncio.to_thread(store.clear, WRITTEN)
        reach(Point.SNAPSHOT_BEGIN)
        facts = await asyncio.to_thread(self._state.write, Path(path))
        reach(Point.SNAPSHOT_WRITTEN)
        length, sha256 = await asyncio.to_thread(store.measure, WRITTEN)
        manifest = await self._engine.run(
            lambda replica: replica.compaction.describe(
                index=facts.index, digest=facts.digest, length=length, sha256=sha256
            ),
            timeout_s=ENGINE_S,
        )
        # Not in the engine's thread: a slow disk would cost a leader its term.
        await _finished(store.adopt, manifest, WRITTEN)
        seconds = round(time.perf_counter() - began, 3)
        log.info(
            "snapshot_taken",
            extra={"index": manifest.index, "bytes": length, "seconds": seconds},
        )

    # --- Sending

    async def send(
        self, peer: NodeId, request: peers_pb2.FetchSnapshotRequest
    ) -> AsyncIterator[peers_pb2.FetchSnapshotResponse]:
        """
        Yield the newest snapshot, or the part that another member lacks.

        From then on it is kept until *peer* has caught up (`raft.retention`).
        """
        store = self._store
        if store is None or store.current is None:
            raise NoPrimaryError("this node has no snapshot")
        index = store.current.index
        await self._engine.run(
            lambda replica: replica.keep_log(peer, index, request.offset),
            timeout_s=ENGINE_S,
        )
        manifest = store.current
        offset = request.offset if request.sha256 == manifest.sha256 else 0
        end = offset + request.max_bytes if request.max_bytes else manifest.length
        yield peers_pb2.FetchSnapshotResponse(manifest=manifest.to_message())
        while data := await asyncio.to_thread(
            store.chunk, manifest, offset, end - offset
        ):
            chunk = peers_pb2.SnapshotChunk(
                offset=offset, data=data, crc32=zlib.crc32(data)
            )
            reach(Point.SNAPSHOT_LENT)
            yield peers_pb2.FetchSnapshotResponse(chunk=chunk)
            offset += len(data)

    # --- Fetching

    async def _fetch(self, store: SnapshotStore, offered_by: NodeId) -> None:
        source, manifest = await self._fetching.run(store, offered_by)
        log.info("snapshot_fetched", extra={"peer": source, "index": manifest.index})


def pause_s(first_s: float, failures: int, most_s: float) -> float:
    """Return the wait after *failures* in a row: twice as long after each."""
    return min(first_s * 2.0 ** min(failures - 1, 16), most_s)


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
