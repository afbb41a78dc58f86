# SPDX-License-Identifier: Apache-2.0
"""
Fetches the snapshot that this node needs to go on: from one member, to the end.

The snapshot comes in portions, each as large as the link carries in a moment. So a slow
link stays free for heartbeats and pings, and no connection is taken for dead because a
snapshot fills it. If a portion fails, the next one continues where the last byte came
from, at the same member, also if that one does not lead any more.

It begins again from zero only if the entries after the snapshot are gone by now, or a new
primary's log begins later; if the member no longer has it or sends nothing for
`SWITCH_S`; if the received bytes are wrong; or if this node starts again.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import grpc.aio

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.answers import each_of, stub_of
from sparecode_node.replication.errors import NoPrimaryError
from sparecode_node.replication.replica.engine_thread import EngineThread
from sparecode_node.replication.replica.replica import ReplicaStatus
from sparecode_node.replication.snapshots.store import (
    RECEIVED,
    BrokenSnapshotError,
    Manifest,
    SnapshotStore,
)
from sparecode_node.statemachine.snapshots import SnapshotFacts

ENGINE_S = 60.0
"""The engine's thread may be busy with the disk for this time."""

PORTION_S = 0.2
"""
A portion should take about this time: less than a ping may stay unanswered, and more
than a round trip.
"""

PORTION_BYTES_MIN = 16 * 1024
PORTION_BYTES_MAX = 4 * 1024 * 1024

FETCH_S = 30.0
"""Of one portion. Release 0.1.0 sends all the rest as one portion."""

SWITCH_S = 30.0
"""A member that has sent nothing for this time is given up for the primary."""


class OutdatedSnapshotError(Exception):
    """The entries after a snapshot were gone before this node had caught up."""


class SnapshotFetch:
    """Fetches snapshots, one at a time. Lives in the loop."""

    def __init__(
        self,
        engine: EngineThread,
        check: Callable[[Path], SnapshotFacts],
        channel: Callable[[NodeId], grpc.aio.Channel | None],
        status: Callable[[], ReplicaStatus],
    ) -> None:
        """*check* reads a whole snapshot, in any thread. *status* is the newest one."""
        self._engine = engine
        self._check = check
        self._channel = channel
        self._status = status
        self._source: NodeId | None = None
        """Where the part in progress came from."""
        self._arrived_at = 0.0
        self._portion = PORTION_BYTES_MIN
        self._outdated = 0

    async def run(
        self, store: SnapshotStore, offered_by: NodeId
    ) -> tuple[NodeId, Manifest]:
        """
        Fetch, verify and install a snapshot; return its source and its description.

        *offered_by*: the primary, which has offered one.

        Raises what a worker, the engine or a call raises, `BrokenSnapshotError`, and
        `OutdatedSnapshotError`. The part received so far is kept, if it is right.
        """
        self._check_outdated(store)
        source = self._choose(store, offered_by)
        try:
            await self._receive(store, source)
        except grpc.aio.AioRpcError:
            self._portion = PORTION_BYTES_MIN
            raise
        manifest = await asyncio.to_thread(store.complete)
        path = Path(store.storage.where(RECEIVED))
        facts = await asyncio.to_thread(self._check, path)
        if facts.index != manifest.index or facts.digest not in ("", manifest.digest):
            raise BrokenSnapshotError("index or digest differ from the manifest")
        # No bytes may be received into the file while it may be being installed.
        await self._engine.install(manifest)
        return source, manifest

    def _check_outdated(self, store: SnapshotStore) -> None:
        known, self._outdated = self._outdated, self._status().snapshots_outdated
        if self._outdated > known:
            store.abandon()
            # Else it could become outdated again while this node waits, without a fetch.
            self._engine.post(lambda replica: replica.fetch_given_up())
            raise OutdatedSnapshotError(
                "the other members dropped the entries after the snapshot"
            )

    def _choose(self, store: SnapshotStore, primary: NodeId) -> NodeId:
        """Return the member to fetch from."""
        begun = self._source
        if store.receiving_index() < self._status().snapshot_from:
            store.abandon()  # Another primary's log begins later.
        if store.part()[1] and begun is not None and self._channel(begun) is not None:
            silent_s = asyncio.get_running_loop().time() - self._arrived_at
            if silent_s < SWITCH_S:
                return begun
        return primary

    async def _receive(self, store: SnapshotStore, source: NodeId) -> None:
        """Receive the rest, portion by portion."""
        loop = asyncio.get_running_loop()
        while True:
            began, before = loop.time(), store.part()
            await self._receive_portion(store, source)
            self._check_outdated(store)
            if store.is_complete():
                return
            if store.part() == before:
                raise BrokenSnapshotError("the member sends nothing")
            seconds = loop.time() - began
            if seconds < PORTION_S / 2:
                self._portion = min(2 * self._portion, PORTION_BYTES_MAX)
            elif seconds > 2 * PORTION_S:
                self._portion = max(self._portion // 2, PORTION_BYTES_MIN)

    async def _receive_portion(self, store: SnapshotStore, source: NodeId) -> None:
        channel = self._channel(source)
        if channel is None:
            raise NoPrimaryError(f"no channel to {source}")
        stub = stub_of(channel)
        sha256, offset = store.part()
        request = peers_pb2.FetchSnapshotRequest(
            sha256=sha256, offset=offset, max_bytes=self._portion
        )
        call = stub.FetchSnapshot(request, timeout=FETCH_S)
        try:
            async for part in each_of(call):
                await self._take_part(store, source, part)
        finally:
            call.cancel()

    async def _take_part(
        self,
        store: SnapshotStore,
        source: NodeId,
        part: peers_pb2.FetchSnapshotResponse,
    ) -> None:
        if part.WhichOneof("part") == "manifest":
            manifest = Manifest.from_message(part.manifest)
            await self._engine.run(
                lambda replica: replica.check_snapshot(manifest), timeout_s=ENGINE_S
            )
            await asyncio.to_thread(store.begin, manifest)
            self._source = source
            return
        chunk = part.chunk
        await asyncio.to_thread(store.add, chunk.offset, chunk.data, chunk.crc32)
        self._arrived_at = asyncio.get_running_loop().time()
        received = store.part()[1]
        self._engine.post(lambda replica: replica.received(received))
