# SPDX-License-Identifier: Apache-2.0
"""
The snapshot keepers of the nodes, in runs of engines: the code that a node runs.

Each process has an event loop under the simulated clock. The keeper hands work over to
the engine, whose jobs run in the node's next tick, and to worker threads, whose work
takes a while. A snapshot comes over a connection that is cut where the network is.
"""

import asyncio
import contextlib
import random
import sys
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import grpc

from sparecode.internal.v1 import peers_pb2, peers_pb2_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.log.storage import Beside, at_once
from sparecode_node.replication.replica import snapshot_fetch, snapshot_keeper
from sparecode_node.replication.replica.engine_thread import (
    EngineThread,
    Job,
    LoopCalls,
)
from sparecode_node.replication.replica.replica import Replica, ReplicaStatus
from sparecode_node.replication.replica.snapshot_keeper import (
    SnapshotKeeper,
    pause_s,
)
from sparecode_node.replication.snapshots.store import BrokenSnapshotError, Manifest
from sparecode_node.statemachine.snapshots import SnapshotFacts
from tests.simulation.absences import Absences
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.invariants import Invariants
from tests.simulation.late_installations import LateInstallations
from tests.simulation.late_snapshots import LateSnapshots
from tests.simulation.machines import Node
from tests.simulation.memberships import Memberships
from tests.simulation.network import Network
from tests.simulation.nodes.channels import Channel
from tests.simulation.nodes.connections import Wires
from tests.simulation.nodes.loops import NodeLoop, Timeline
from tests.simulation.nodes.servers import Server
from tests.simulation.worker_threads import steps_of

SPOILED = 0.1
"""How often a chunk arrives with a wrong bit, while there are faults."""

SLOW = 0.2
"""How often a message of a snapshot takes long, while there are faults."""

WAITS = {
    (snapshot_keeper, "RETRY_S"): 0.1,
    (snapshot_keeper, "RETRY_MAX_S"): 1.0,
    (snapshot_keeper, "OUTDATED_S"): 0.5,
    (snapshot_keeper, "OUTDATED_MAX_S"): 2.0,
    (snapshot_fetch, "SWITCH_S"): 2.0,
}
"""As short as a run is: in production they are half a second to fifteen minutes."""


class World(Protocol):
    """The surroundings of the keepers."""

    now: float
    ids: list[str]
    nodes: dict[str, Node]
    network: Network
    invariants: Invariants
    effects: Effects
    memberships: Memberships
    absences: Absences

    def live(self) -> list[Node]: ...
    def run_on(self, node: Node, act: Callable[[Any], object]) -> bool: ...


class _TickedEngine(EngineThread):
    """The engine's thread: it runs when the simulation lets the node tick."""

    def __init__(
        self, node: Node, loop: NodeLoop, on_status: Callable[[ReplicaStatus], object]
    ) -> None:
        super().__init__(
            node.config,
            Path(node.node_id),
            open_state=_unused,
            wire=_unused,
            wall_ms=_unused,
            on_status=on_status,
            on_fatal=lambda _message: None,
        )
        self.node = node
        self._calls = LoopCalls(loop)
        self._thread = mock.sentinel.thread
        self._installs: Manifest | None = None
        """What the next job installs."""
        self._delayed: list[Job] = []

    async def install(self, manifest: Manifest) -> None:
        """Install as in production, perhaps later."""
        self._installs = manifest
        await super().install(manifest)

    def post(self, job: Job) -> None:
        manifest, self._installs = self._installs, None
        late = self.node.sim.keepers.installations
        if manifest is not None and late.delay(self.node, manifest):
            self._delayed.append(job)
        else:
            super().post(job)

    def tick(self, replica: Replica) -> None:
        """Run the jobs that wait, and what else is due."""
        if self._delayed and not self.node.sim.keepers.installations.waits(self.node):
            self._jobs.extend(self._delayed)
            self._delayed.clear()
        for _ in range(len(self._jobs)):
            self._jobs.popleft()(replica)
        replica.tick(0)

    def publish(self, replica: Replica) -> None:
        """Tell the loop what has become of the replica."""
        assert self._calls is not None
        self._publish(replica, self._calls)


def _unused(*_: object) -> Any:
    """Open nothing: the node has done it."""
    raise AssertionError("the node opens its state")


class NodeSnapshots:
    """`StateSnapshots` on the simulated disk of a node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def write(self, target: Path) -> SnapshotFacts:
        node = self._node
        body = node.store.serialize()
        file = node.disk.append_to(str(target).partition(":")[2])
        file.append(body)
        file.close()
        node.sim.effects[Effect.SNAPSHOT_TAKEN] += 1
        index = node.store.state.applied_index
        return SnapshotFacts(index=index, digest=node.store.digest())

    def check_snapshot(self, snapshot: Path) -> SnapshotFacts:
        name = str(snapshot).partition(":")[2]
        return self._node.store.facts(self._node.disk.read(name))


class CountedKeeper(SnapshotKeeper):
    """Counts what it has refused, and shows when it waits, and for whom a log is kept."""

    node: Node

    async def _pause(
        self, error: Exception, first_s: float, failures: int, most_s: float
    ) -> None:
        refused = isinstance(error, BrokenSnapshotError)
        self.node.sim.effects[Effect.CHUNK_REFUSED] += refused
        seconds = pause_s(first_s, failures, most_s)
        self.node.keeper_waits = self.node.life, self.node.sim.now + seconds
        await super()._pause(error, first_s, failures, most_s)

    def send(
        self, peer: NodeId, request: peers_pb2.FetchSnapshotRequest
    ) -> AsyncIterator[peers_pb2.FetchSnapshotResponse]:
        """Send a part as in production; a member that asks for one needs the log after it."""
        lengths = self.node.invariants.promises.lengths
        lengths.needed(by=peer, of=self.node.node_id)
        return super().send(peer, request)


class Process(Protocol):
    """A process, or a part of it, that has an event loop."""

    node: Node
    loop: NodeLoop


def whose_loop_runs(processes: Iterable[Process]) -> Node | None:
    """Return the machine of that one of these whose event loop runs now."""
    loop = asyncio._get_running_loop()
    return next((each.node for each in processes if each.loop is loop), None)


class KeeperProcess:
    """The keeper of a machine: of its process that runs now, if one does."""

    server: Server | None = None
    has_power = True

    def __init__(self, keepers: "Keepers", node: Node) -> None:
        self.node_id = node.node_id
        self._keepers = keepers
        self.node = node
        self._channels: dict[str, Channel] = {}
        self.engine: _TickedEngine | None = None
        self.loop = keepers.new_loop(self._beside)
        self._beside_s = 0.0

    def is_up(self) -> bool:
        return self.engine is not None

    def begin(self) -> None:
        """Start in a process that has opened its journal and its state."""
        node, rng = self.node, self._keepers.rng
        self.has_power = True
        choice = self._keepers.beside_s
        if self._keepers.world.absences.happen:
            choice = choice[:3]  # A fetch would take until everything heals.
        self._beside_s = rng.choice(choice)
        self._channels = {}
        self.loop = self._keepers.new_loop(self._beside)
        keeper: CountedKeeper | None = None

        def take(status: ReplicaStatus) -> None:
            if keeper is not None:
                keeper.take_status(status)

        self.engine = engine = _TickedEngine(node, self.loop, take)
        state = NodeSnapshots(node)
        keeper = CountedKeeper(engine, state, self._channel)  # type: ignore[arg-type]
        keeper.node = node
        replica = node.running
        replica.engine.addOnTickCallback(lambda: engine.publish(replica))
        self.server = Server(self, (), self._keepers.on_error)
        register: Any = peers_pb2_grpc.add_PeerServiceServicer_to_server
        register(_Sender(self._keepers, keeper), self.server)
        self.spawn(keeper.start())

    def spawn(self, work: Any) -> None:
        """Run a coroutine in this process."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self.loop)
        try:
            self.loop.create_task(work)
        finally:
            asyncio._set_running_loop(before)

    def _channel(self, peer: NodeId) -> Channel | None:
        if peer not in self._channels:
            address = _address(peer)
            self._channels[peer] = Channel(self._keepers.wires, self, address)
        return self._channels[peer]

    def _beside(self, work: Callable[[], Any]) -> float:
        """Do what a worker thread does; the process may not survive it."""
        keepers = self._keepers
        keepers.world.run_on(self.node, lambda _replica: work())
        return self._beside_s * keepers.rng.uniform(0.2, 2)

    def write(self, work: Callable[[], object], then: Callable[[], object]) -> None:
        """Let a worker thread do *work*, and the engine *then*, in a later tick."""
        engine = self.engine
        assert engine is not None
        tried, go_on = steps_of(work, then)
        if self._keepers.world.absences.is_done_at_once(self.node):
            tried()
            engine.post(go_on)
            return
        later_s = self._keepers.world.absences.takes_longer_s(self.node)
        done = self.loop.run_in_executor(None, tried)
        done.add_done_callback(
            lambda _: self.loop.call_later(later_s, engine.post, go_on)
        )

    def end(self, *, power: bool) -> None:
        """Run nothing more of this process."""
        if self.engine is None:
            return
        self.has_power = not power
        self._keepers.wires.process_ended(self, power=power)
        self.loop.kill()
        self._keepers.gone.append(self.loop)
        self.engine = self.server = None


_Servicer: Any = peers_pb2_grpc.PeerServiceServicer


class _Sender(_Servicer):
    """Sends snapshots to other members, some of them with a wrong bit."""

    def __init__(self, keepers: "Keepers", keeper: SnapshotKeeper) -> None:
        self._keepers = keepers
        self._keeper = keeper

    async def FetchSnapshot(
        self, request: peers_pb2.FetchSnapshotRequest, context: Any
    ) -> AsyncIterator[peers_pb2.FetchSnapshotResponse]:
        peer = NodeId(context.peer().partition(":")[2])
        try:
            async for part in self._keeper.send(peer, request):
                if part.HasField("chunk"):
                    self._keepers.spoil(part.chunk)
                    await self._keepers.stop_some()
                yield part
        except (ProposeError, OSError) as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))


class Keepers:
    """All keepers, their loops, and the connections between them."""

    def __init__(
        self,
        world: World,
        rng: random.Random,
        late: LateSnapshots,
        installations: LateInstallations,
    ) -> None:
        """*rng*: dice of their own."""
        self.world = world
        self.late = late
        self.installations = installations
        self.rng = rng
        self.timeline = Timeline()
        self.wires = Wires(self.timeline, rng, lambda _effect: None)
        self.gone: list[NodeLoop] = []
        """Of earlier processes; they run no more."""
        self._processes: dict[str, KeeperProcess] = {}
        self._faulty = False
        self.beside_s = [0.0, 0.002, 0.02, 0.1]
        """How long worker threads take for one thing: drawn for each process."""

    def new_loop(self, run_beside: Callable[[Callable[[], Any]], float]) -> NodeLoop:
        return NodeLoop(
            self.timeline,
            self.rng,
            rate=1.0,
            run_beside=run_beside,
            on_error=self.on_error,
        )

    def on_error(self, seen: str) -> None:
        """Report what no code has caught."""
        self.world.invariants.violated("no exception", seen)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Shorten their waits; in the end, end all that is left of them."""
        with contextlib.ExitStack() as stack:
            for (module, name), seconds in WAITS.items():
                stack.enter_context(mock.patch.object(module, name, seconds))
            try:
                yield
            finally:
                for process in self._processes.values():
                    process.end(power=False)
                drain(self.gone)

    # --- Processes

    def begin(self, node: Node) -> None:
        """Let the keeper of a process start."""
        process = self._processes.get(node.node_id)
        if process is None:
            process = self._processes[node.node_id] = KeeperProcess(self, node)
            self.wires.processes[_address(node.node_id)] = process
        process.begin()

    def process_of(self, node: Node) -> KeeperProcess:
        """Return the process of a node that runs."""
        return self._processes[node.node_id]

    def beside(self, node: Node) -> Beside:
        """Return how the engine of a node has its long work done."""
        if not self.world.absences.happen:
            return at_once

        def write(work: Callable[[], object], then: Callable[[], object]) -> None:
            self._processes[node.node_id].write(work, then)

        return write

    def machine_at_work(self) -> Node | None:
        """Return the machine whose loop runs now, where its points may act."""
        if not self.world.absences.happen:
            return None
        return whose_loop_runs(p for p in self._processes.values() if p.is_up())

    def end(self, node: Node, *, power: bool) -> None:
        """End the keeper with its process."""
        if process := self._processes.get(node.node_id):
            process.end(power=power)

    def tick(self, node: Node, replica: Replica) -> None:
        """Let the engine of a node do what is due, and what its keeper wants."""
        engine = self._processes[node.node_id].engine
        assert engine is not None
        engine.tick(replica)

    def spoil(self, chunk: peers_pb2.SnapshotChunk) -> None:
        """Flip a bit of a chunk, sometimes."""
        if not (self._faulty and chunk.data and self.rng.random() < SPOILED):
            return
        data = bytearray(chunk.data)
        data[self.rng.randrange(len(data))] ^= 0x10
        chunk.data = bytes(data)
        if self.rng.random() < 0.5:
            chunk.crc32 = zlib.crc32(data)

    async def stop_some(self) -> None:
        """Let a part of a snapshot stop on its way, sometimes."""
        if self._faulty:
            await self.late.stop_some()

    # --- Time

    def step(self, *, faulty: bool) -> None:
        """Let happen what is due, where the network is not cut."""
        self._faulty = faulty
        self.wires.slowness = SLOW if faulty else 0.0
        for node in self.world.live():
            if process := self._processes.get(node.node_id):
                process.loop.paused_until = node.paused_until
        self._cut(self.world.network.blocked)
        self.timeline.run_until(self.world.now)

    def _cut(self, blocked: set[tuple[str, str]]) -> None:
        wires = self.wires
        if wires.blocked == blocked:
            return
        wires.blocked = set(blocked)
        for connection in wires.ordered():
            connection.unpark()
            if connection.is_dead():
                connection.impair()


def _address(node_id: str) -> str:
    return f"{node_id}:7301"


def drain(loops: Iterable[NodeLoop]) -> None:
    """End the tasks of processes that are gone, without a word."""
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        for loop in loops:
            loop.drain()
    finally:
        sys.unraisablehook = hook
