# SPDX-License-Identifier: Apache-2.0
"""Snapshots in the simulation: taken beside the engine, and sent in pieces."""

import random
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from sparecode_node.replication.errors import SnapshotRefusedError
from sparecode_node.replication.replica.replica import Replica
from sparecode_node.replication.settings import SNAPSHOT_CHUNK_BYTES
from sparecode_node.replication.snapshots.store import (
    WRITTEN,
    BrokenSnapshotError,
    Manifest,
)
from tests.simulation.comparisons import Comparison
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.invariants import Invariants
from tests.simulation.machines import Node
from tests.simulation.network import Network


class World(Protocol):
    """The surroundings of the snapshots."""

    now: float
    rng: random.Random
    nodes: dict[str, Node]
    network: Network
    invariants: Invariants
    effects: Effects

    def live(self) -> list[Node]: ...
    def run_on(self, node: Node, act: Callable[[Any], object]) -> bool: ...


class SnapshotTraffic:
    """Does what a node's loop does: take a snapshot, fetch one, install it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._taking: dict[str, tuple[int, float, int, bytes, str]] = {}
        """Life, when it is written, index, body and digest."""
        self._sources: dict[str, str] = {}
        """Where the snapshot came from that each node has received a part of."""
        self.chunk_bytes = SNAPSHOT_CHUNK_BYTES
        """What a node receives in one step, when nothing is faulty."""

    def step(self, *, faulty: bool) -> None:
        """Let every node that runs do a little."""
        for node in self._world.live():
            if node.is_up() and not node.is_paused():
                self._take(node)
            if node.is_up() and not node.is_paused():
                self._fetch(node, faulty=faulty)

    def _count(self, effect: Effect) -> None:
        self._world.effects[effect] += 1

    # --- Taking

    def _take(self, node: Node) -> None:
        world, status = self._world, node.running.status()
        taking = self._taking.get(node.node_id)
        if taking is None or taking[0] != node.life:
            self._taking.pop(node.node_id, None)
            if status.snapshot_due:
                body = node.store.serialize()
                due = world.now + world.rng.choice([0, 0.02, world.rng.uniform(0, 1)])
                index, digest = node.store.state.applied_index, node.store.digest()
                taken = (node.life, due, index, body, digest)
                self._taking[node.node_id] = taken
        elif world.now >= taking[1]:
            del self._taking[node.node_id]
            world.run_on(node, lambda replica: self._keep(node, replica, taking))

    def _keep(
        self, node: Node, replica: Replica, taken: tuple[int, float, int, bytes, str]
    ) -> None:
        _, _, index, body, digest = taken
        try:
            replica.snapshots.clear(WRITTEN)
            file = node.disk.append_to(WRITTEN)
            file.append(body)
            file.close()
            length, sha256 = replica.snapshots.measure(WRITTEN)
            manifest = replica.compaction.describe(
                index=index, digest=digest, length=length, sha256=sha256
            )
            replica.snapshots.adopt(manifest, WRITTEN)
        except (OSError, SnapshotRefusedError):
            return  # As in production: it is tried again.
        self._count(Effect.SNAPSHOT_TAKEN)

    # --- Fetching

    def _fetch(self, node: Node, *, faulty: bool) -> None:
        world = self._world
        source_id = node.running.status().snapshot_source
        if source_id is None:
            return
        begun = world.nodes.get(self._sources.get(node.node_id, ""))
        if begun is not None and begun.is_up() and node.running.snapshots.part()[1]:
            source_id = begun.node_id
        source = world.nodes[source_id]
        pair = (node.node_id, str(source_id))
        cut = {pair, pair[::-1]} & world.network.blocked
        slow = faulty and world.rng.random() < 0.5
        if cut or slow or not source.is_up() or source.is_paused():
            return
        manifest = source.running.snapshots.current
        if manifest is None:
            # In production, a source that sends nothing is given up after a while.
            self._sources.pop(node.node_id, None)
        else:
            _, offset = node.running.snapshots.part()
            world.run_on(
                source,
                lambda replica: replica.keep_log(node.node_id, manifest.index, offset),
            )
            sent = Manifest.from_bytes(manifest.to_bytes())
            world.run_on(
                node, lambda replica: self._receive(node, source, replica, sent, faulty)
            )

    def _receive(
        self,
        node: Node,
        source: Node,
        replica: Replica,
        manifest: Manifest,
        faulty: bool,
    ) -> None:
        rng, store = self._world.rng, replica.snapshots
        try:
            replica.check_snapshot(manifest)
        except SnapshotRefusedError:
            store.abandon()  # Another node's may help.
            return
        store.begin(manifest)
        self._sources[node.node_id] = source.node_id
        _, offset = store.part()
        data = source.running.snapshots.chunk(manifest, offset, self.chunk_bytes)
        if faulty:
            data = data[: rng.randint(1, max(4000, manifest.length // 4))]
        crc32 = zlib.crc32(data)
        spoiled = bytearray(data)
        if faulty and data and rng.random() < 0.1:
            spoiled[rng.randrange(len(data))] ^= 0x10
            if rng.random() < 0.5:
                crc32 = zlib.crc32(bytes(spoiled))
        try:
            if data:
                store.add(offset, bytes(spoiled), crc32)
                replica.received(store.part()[1])
            if store.part()[1] == manifest.length:
                received = store.complete()
                self._install(node, replica, received)
        except (OSError, SnapshotRefusedError):
            return  # As in production: it is tried again.
        except BrokenSnapshotError:
            self._count(Effect.CHUNK_REFUSED)

    def _install(self, node: Node, replica: Replica, manifest: Manifest) -> None:
        invariants = self._world.invariants
        before = replica.engine.raftCommitIndex
        refused: list[SnapshotRefusedError | None] = []
        replica.install(manifest, refused.append)
        for refusal in refused:
            if refusal is not None:
                raise refusal
        self._count(Effect.SNAPSHOT_INSTALLED)
        invariants.comparisons[Comparison.INSTALLED] += 1
        if manifest.index <= before:
            invariants.violated("never back", f"{node.node_id}: {manifest}")
        if manifest.index > max(invariants.applied, default=0):
            invariants.violated("committed only", f"{node.node_id}: {manifest}")
        if node.store.digest() != manifest.digest:
            invariants.violated("snapshot digest", f"{node.node_id}: {manifest}")
