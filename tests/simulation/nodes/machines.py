# SPDX-License-Identifier: Apache-2.0
"""
Machines that run a whole `ClusterReplicator`: its loop, its links and its engine.

The engine's thread is stepped at the times at which it would run. What it does costs
time, drawn for each machine: a sync, an apply, a checkpoint, the work of a worker
thread. Meanwhile the loop goes on, as in production.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication import cluster_replicator
from sparecode_node.replication.cluster_replicator import (
    ClusterConfig,
    ClusterReplicator,
)
from sparecode_node.replication.errors import Fatal
from sparecode_node.replication.links import transport
from sparecode_node.replication.links.tls import PeerTls
from sparecode_node.replication.links.transport import PeerAddresses
from sparecode_node.replication.members import Member
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.statemachine.feature_level import NEWEST
from sparecode_node.statemachine.snapshots import SnapshotFacts
from tests.simulation.disk import Killed
from tests.simulation.invariants import Invariants
from tests.simulation.keepers import CountedKeeper, NodeSnapshots
from tests.simulation.machines import EPOCH_S, Node, Store
from tests.simulation.nodes.channels import Channel
from tests.simulation.nodes.connections import Wires
from tests.simulation.nodes.engines import SteppedEngine
from tests.simulation.nodes.loops import NodeLoop, Timeline
from tests.simulation.nodes.refusals import JudgedPeers
from tests.simulation.nodes.servers import Server
from tests.simulation.nodes.speeds import Speed, TimedDisk
from tests.simulation.nodes.turns import Turns

TLS = PeerTls(certificate=b"", key=b"", ca=b"")


class World(Protocol):
    """The surroundings of a machine."""

    now: float
    rng: random.Random
    raft: RaftSettings
    timeline: Timeline
    wires: Wires
    current: Any
    working: Any
    invariants: Any
    cluster_id: str
    turns: Turns

    def died(self, node: "Machine", *, cause: BaseException) -> None: ...


class _TimedSnapshots(NodeSnapshots):
    """Snapshots, which take as long as they are large."""

    def __init__(self, node: "Machine") -> None:
        super().__init__(node)
        self._machine = node

    def write(self, target: Path) -> SnapshotFacts:
        begin = self._machine.sim.timeline.now
        facts = super().write(target)
        seconds = self._spend_on(target)
        self._machine.sim.turns.wrote(self._machine.node_id, begin, seconds)
        return facts

    def check_snapshot(self, snapshot: Path) -> SnapshotFacts:
        facts = super().check_snapshot(snapshot)
        self._spend_on(snapshot)
        return facts

    def _spend_on(self, snapshot: Path) -> float:
        size = len(self._machine.disk.read(str(snapshot).partition(":")[2]))
        seconds = size / self._machine.speed.bytes_s
        self._machine.spend(seconds)
        return seconds


class Machine(Node):
    """A machine with a process, or without one for a while."""

    sim: Any
    disk: TimedDisk
    disk_type = TimedDisk
    late_calls = True  # Of connections that were given up.

    def __init__(
        self,
        sim: World,
        node_id: str,
        store: Store,
        written: tuple[Member, ...],
        *,
        joins: bool = False,
    ) -> None:
        self.speed = Speed.drawn(sim.rng)
        self.spent_s = 0.0
        self.applied_s = 0.0
        """Spent on entries in this step of the engine."""
        self.cluster_id = sim.cluster_id
        self.software_level = NEWEST
        self.raising_in = 0
        """The life in which it raises the cluster's feature level, if any."""
        super().__init__(sim, node_id, store, written, joins=joins)
        self.server: Server | None = None
        self.has_power = True
        self.replicator: ClusterReplicator | None = None
        self.engine_thread: SteppedEngine | None = None
        self.gone: list[tuple[NodeLoop, object]] = []
        """What is left of earlier processes; it runs no more."""
        self.loop = self._new_loop()

    @property
    def invariants(self) -> Invariants:
        """The rules that the log of its cluster is judged by."""
        if self.cluster_id == self.sim.cluster_id:
            return self.sim.invariants  # type: ignore[no-any-return]
        return self.sim.earlier  # type: ignore[no-any-return]

    def _new_disk(self) -> TimedDisk:
        disk = super()._new_disk()
        assert isinstance(disk, TimedDisk)
        disk.sync_s = self.speed.sync_s
        disk.spend = self.spend
        return disk

    @property
    def address(self) -> str:
        return f"{self.node_id}:7301"

    def _new_loop(self) -> NodeLoop:
        loop = NodeLoop(
            self.sim.timeline,
            self.sim.rng,
            rate=self.speed.rate,
            run_beside=self.run_beside,
            on_error=lambda seen: self.sim.invariants.violated(
                "no exception", f"{self.node_id}: {seen}"
            ),
        )
        loop.paused_until = self.paused_until
        return loop

    # --- Time

    def spend(self, seconds: float) -> None:
        """Let time pass inside what is being done now."""
        self.spent_s += seconds

    def engine_s(self) -> float:
        """Return this machine's monotonic clock inside a step of the engine."""
        self.spent_s += 2e-6
        return float((self.sim.now + self.spent_s) * self.speed.rate)

    def wall_s(self) -> float:
        return EPOCH_S + self.sim.now + self.spent_s + self.clock_s

    # --- Running

    @contextlib.contextmanager
    def engine(self) -> Iterator[Callable[[], float]]:
        """Do something in the engine's thread; the process may not survive it."""
        before, self.spent_s = self.spent_s, 0.0
        outer, self.sim.current = self.sim.current, self
        try:
            yield lambda: self.spent_s
        except (Killed, Fatal, Exception) as error:  # noqa: BLE001 - all are findings.
            self.sim.died(self, cause=error)
        finally:
            self.spent_s, self.sim.current = before, outer

    def run_beside(self, work: Callable[[], Any]) -> float:
        """Do what a worker thread does; return how long it takes."""
        before, self.spent_s = self.spent_s, 0.0
        outer, self.sim.working = self.sim.working, self
        try:
            work()
        except Killed as error:
            self.sim.died(self, cause=error)
        finally:
            seconds, self.spent_s = self.spent_s, before
            self.sim.working = outer
        return seconds + self.speed.beside_s * self.sim.rng.uniform(0.2, 2)

    def is_up(self) -> bool:
        return self.replicator is not None

    def start(self) -> None:
        """Start a process, which serves as soon as it is open."""
        self.life += 1
        self.led = False
        self.replica = None
        self.has_power = True
        self.loop = self._new_loop()
        self.sim.starting = self
        self.replicator = replicator = ClusterReplicator(
            ClusterConfig(
                cluster_id=self.cluster_id,
                addresses=PeerAddresses(
                    node_id=NodeId(self.node_id),
                    listen=self.address,
                    members={m.node_id: m.address for m in self.written},
                    joins=self.joins,
                ),
                tls=TLS,
                directory=Path(self.node_id),
                raft=self.sim.raft,
                feature_level=self.software_level,
            ),
            clock=_Clock(self),
            salt=self.sim.rng.randbytes(16),
            open_state=_unused,
            read_digest=lambda: (0, ""),
            read_head=lambda: (0, ""),
            snapshots=_TimedSnapshots(self),
            on_fatal=lambda _message: None,
        )
        self.engine_thread = replicator._engine  # type: ignore[assignment]
        self.sim.starting = None
        self.spawn(replicator.start())

    def spawn(self, work: Any) -> "asyncio.Task[Any] | None":
        """Run a coroutine in this process."""
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self.loop)
        try:
            return self.loop.create_task(work)
        finally:
            asyncio._set_running_loop(before)

    def end(self) -> None:
        """Run nothing more of this process."""
        self.loop.kill()
        self.gone.append((self.loop, self.replicator))
        self.replicator = self.engine_thread = self.server = None
        self.replica = None

    def pause(self, until: float) -> None:
        """
        Stop the process for a while, without its knowing.

        An earlier pause that would last longer ends, too: no node of the core is paused.
        It is remembered until when there was one: it excuses late answers.
        """
        ends_early = self.is_paused() and until < self.paused_until
        until = max(until, min(self.paused_until, self.sim.now))
        self.paused_until = self.loop.paused_until = until
        if ends_early and self.engine_thread is not None:
            self.engine_thread.go_on()

    def takes_no_snapshot(self) -> bool:
        engine = self.engine_thread
        if engine is not None and (
            self.sim.now < engine.stalled_until or engine.takes_long
        ):
            return True
        return super().takes_no_snapshot()

    def snapshot_s(self) -> float:
        """Count worker threads, late syncs, and four steps of an engine that applies."""
        size_s = len(self.store.serialize()) / self.speed.bytes_s
        late_s = 8 * self.speed.beside_s + 40 * self.speed.sync_s
        return size_s + late_s + 4 * float(self.sim.raft.heartbeat_s)

    def stall(self, until: float) -> None:
        """Hold the engine's thread up, as a disk does that does not answer."""
        if self.engine_thread is not None:
            self.engine_thread.stall(until)


def _unused() -> Any:
    """Open no state: `SteppedEngine` has it."""
    raise AssertionError("the stepped engine opens the state")


class _Clock:
    """The clocks of a machine."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def now_ms(self) -> int:
        return int(self._machine.wall_s() * 1000)

    def monotonic_s(self) -> float:
        return self._machine.loop.time()


def patched(machine_of: Callable[[], Machine]) -> contextlib.ExitStack:
    """Replace gRPC and the engine's thread, until the stack is closed."""
    stack = contextlib.ExitStack()

    def dial(_peer: NodeId, address: str, _tls: PeerTls) -> Channel:
        machine = machine_of()
        return Channel(machine.sim.wires, machine, address)

    def server(*, interceptors: Any = (), **_options: Any) -> Server:
        machine = machine_of()
        return Server(
            machine,
            interceptors,
            lambda seen: machine.sim.invariants.violated(
                "no exception", f"{machine.node_id}: {seen}"
            ),
        )

    def engine(*args: Any, **more: Any) -> SteppedEngine:
        return SteppedEngine(machine_of(), *args, **more)

    def keeper(*args: Any) -> CountedKeeper:
        result = CountedKeeper(*args)
        result.node = machine_of()
        return result

    def peers(*args: Any) -> JudgedPeers:
        result = JudgedPeers(*args)
        result.machine = machine_of()
        return result

    for module, name, stand_in in (
        (transport, "dial", dial),
        (transport, "KnownPeers", peers),
        (transport, "new_server", server),
        (transport, "renewable_credentials", lambda _current: None),
        (cluster_replicator, "EngineThread", engine),
        (cluster_replicator, "SnapshotKeeper", keeper),
    ):
        stack.enter_context(mock.patch.object(module, name, stand_in))
    return stack


__all__ = ["Machine", "patched"]
