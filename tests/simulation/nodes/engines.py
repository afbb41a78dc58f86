# SPDX-License-Identifier: Apache-2.0
"""
The engine's thread of a simulated machine, run step by step at the times it would run.

What a step does takes time. Meanwhile the loop of its process goes on, as in production.
So it is judged here what a step may wait for: while it waits, its node is silent.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from sparecode_node.replication.log import boots
from sparecode_node.replication.log.file import MARK, NAME, SHORTER
from sparecode_node.replication.raft.frames import Message
from sparecode_node.replication.raft.guard import Wire
from sparecode_node.replication.raft.stalls import Stalls
from sparecode_node.replication.replica.engine_thread import (
    EngineThread,
    Job,
    LoopCalls,
)
from sparecode_node.replication.replica.replica import Replica
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.results import Result
from tests.simulation.comparisons import Comparison
from tests.simulation.disk import File
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.installations import JudgedReplica
from tests.simulation.machines import _Applying
from tests.simulation.worker_threads import steps_of

NAPS_S = 0.0, 0.0005
"""How late a thread runs that has been woken."""

LONG_S = 0.5
"""A step that takes longer waits for a disk that is slow for a while, sync after sync."""


WAITED_FOR = (NAME, MARK, boots.NAME, f"{NAME}.new")
"""
The files that the engine's thread may wait for: what it promises is in them. It begins a
new journal after a snapshot that another thread has installed.
"""


def check_sync(machine: Any, file: File) -> None:
    """See that the engine's thread waits for its journal alone, and for no snapshot."""
    machine.invariants.comparisons[Comparison.WAITED] += 1
    names = [name for name, each in machine.disk.names.items() if each is file]
    # It adds the last entries to a shorter journal that another thread has written.
    adds = SHORTER in names and file.durable
    if not (adds or any(name in WAITED_FOR for name in names)):
        seen = f"{machine.node_id} waits for {names}"
        machine.invariants.violated("engine waits for its journal alone", seen)


def check_applied(machine: Any, raft: RaftSettings, *, led: bool) -> None:
    """See that a follower answers again after a heartbeat, however much it must apply."""
    most_s = 1.05 * raft.heartbeat_s + 2 * machine.speed.apply_s
    if not led and machine.applied_s > most_s:
        seen = f"{machine.node_id} applies for {machine.applied_s:.3f} s"
        machine.invariants.violated("a follower that applies answers", seen)


class _TimedApplying(_Applying):
    """The state, whose work takes time."""

    def __init__(self, node: Any) -> None:
        super().__init__(node)
        self._machine = node

    def apply(self, index: int, calls: tuple[Call, ...]) -> tuple[Result, ...]:
        self._machine.applied_s += self._machine.speed.apply_s
        self._machine.spend(self._machine.speed.apply_s)
        return super().apply(index, calls)

    def checkpoint(self) -> int:
        self._machine.spend(self._machine.speed.sync_s)
        return super().checkpoint()


class _StepCalls(LoopCalls):
    """Calls that arrive in the loop when the thread makes them, not when its step begins."""

    def __init__(self, machine: Any) -> None:
        super().__init__(machine.loop)
        self._machine = machine

    def post(self, call: Callable[[], object]) -> None:
        loop = self._machine.loop
        loop.thread_late_s = self._machine.spent_s
        loop.call_soon_threadsafe(call)
        loop.thread_late_s = 0.0


class _CountedStalls(Stalls):
    """Counts where time was taken out of a silence."""

    effects: Effects

    def _forgive(self, lost: float, now: float) -> None:
        self.effects[Effect.FORGIVEN] += 1
        super()._forgive(lost, now)


class _JudgedWire:
    """Lets the promises see what leaves."""

    def __init__(self, machine: Any, wire: Wire) -> None:
        self._machine = machine
        self._wire = wire

    def send(self, peer: str, message: Message) -> None:
        self._machine.promised(peer, message)
        self._wire.send(peer, message)


class SteppedEngine(EngineThread):
    """The engine's thread, run step by step by the simulation."""

    def __init__(self, machine: Any, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._machine = machine
        self._replica: Replica | None = None
        self._stalls: Stalls | None = None
        self._turn = 0
        self._free_at = 0.0
        self._step_s = 0.0
        self._next_at = float("inf")
        self.stalled_until = 0.0
        """The thread does nothing until then, and the loop goes on."""

    async def start(self) -> None:
        """Open journal and state as the thread does."""
        self._calls = _StepCalls(self._machine)
        self._show_life(self._machine.loop)
        with self._machine.engine():
            self._open(self._calls)
        self._thread = mock.sentinel.thread
        self._wake()

    def _open(self, calls: LoopCalls) -> None:
        machine = self._machine
        machine.store.start(machine.disk)
        machine.applied_at_start = machine.store.state.applied_index
        self._stamper = machine
        self._replica = machine.replica = JudgedReplica(
            machine,
            self._config,
            storage=machine.disk,
            state=_TimedApplying(machine),
            stamper=machine,
            wire=_JudgedWire(machine, self._make_wire(calls)),
            wall_ms=self._wall_ms,
            beside=self._beside,
        )
        engine = self._replica.engine
        engine.addOnTickCallback(self._published)
        campaign, raft = engine.guard.campaign, self._config.raft
        self._stalls = _CountedStalls(engine, campaign, raft)
        self._stalls.effects = machine.sim.effects
        machine._watch()
        effects = machine.sim.effects
        lost = machine.had_entries - machine.journal.last_index
        effects[Effect.ENTRY_LOST] += max(0, lost)
        back = machine.had_applied - machine.applied_at_start
        effects[Effect.STORE_BACK] += max(0, back)

    def _published(self) -> None:
        assert self._replica is not None
        assert self._calls is not None
        self._publish(self._replica, self._calls)

    async def stop(self) -> None:
        """Stop as the thread does."""
        self._stopping = True
        if self._replica is not None:
            with self._machine.engine():
                self._replica.stop()
        self._thread = self._replica = None
        self._abandon()

    def post(self, job: Job) -> None:
        self._jobs.append(job)
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._step_in(self._machine.sim.rng.uniform(*NAPS_S))

    def _step_in(self, seconds: float) -> None:
        """Let the thread run after a while, unless it is to run sooner."""
        timeline = self._machine.sim.timeline
        at = max(timeline.now + seconds, self._free_at)
        if at < self._next_at:
            self._next_at = at
            self._turn += 1
            turn = self._turn
            timeline.at(at, lambda: self._step(turn))

    @property
    def takes_long(self) -> bool:
        """Whether it is in a step that takes long, and publishes nothing until its end."""
        return self.is_busy and self._step_s > LONG_S

    @property
    def is_busy(self) -> bool:
        """Whether it still waits for the disk, in a step that has begun."""
        return bool(self._machine.sim.timeline.now < self._free_at)

    def stall(self, until: float) -> None:
        """Do nothing until then. An earlier stall that would last longer ends, too."""
        earlier, self.stalled_until = self.stalled_until, until
        if until < earlier:
            self.go_on()

    def go_on(self) -> None:
        """Run now, not when a stall or a pause was to end."""
        self._next_at = float("inf")
        self._step_in(0.0)

    def _step(self, turn: int) -> None:
        machine = self._machine
        if turn != self._turn or machine.engine_thread is not self or self._stopping:
            return
        if machine.is_paused() or machine.sim.timeline.now < self.stalled_until:
            until = max(machine.paused_until, self.stalled_until)
            machine.sim.timeline.at(until, lambda: self._step(turn))
            return
        self._next_at = float("inf")
        replica, stalls = self._replica, self._stalls
        if replica is None or stalls is None:
            return
        machine.applied_s, led = 0.0, machine.leads
        with machine.engine() as spent, self._judged():
            self._woken = False
            for _ in range(len(self._jobs)):
                self._jobs.popleft()(replica)
            # After the jobs: the real thread runs them at the end of a tick, in its poller.
            self._look_for(stalls)
            replica.tick(0)
            behind = replica.engine.raftLastApplied < replica.engine.raftCommitIndex
            self._step_s = spent()
            self._free_at = machine.sim.timeline.now + self._step_s
        if not machine.is_up():
            return
        check_applied(machine, self._config.raft, led=led or machine.leads)
        go_on = self._woken or (behind and not replica._journal.is_held)
        self._step_in(0.0 if go_on else self._config.raft.tick_s)

    @contextlib.contextmanager
    def _judged(self) -> Iterator[None]:
        """Judge the files that a step waits for."""
        disk = self._machine.disk
        disk.on_sync = lambda file: check_sync(self._machine, file)
        try:
            yield
        finally:
            disk.on_sync = lambda _file: None

    def _beside(self, work: Callable[[], object], then: Callable[[], object]) -> None:
        """Run *work* as a worker thread does, and *then* in a later step."""
        timeline = self._machine.sim.timeline

        def run() -> None:
            if self._machine.engine_thread is not self:
                return
            tried, go_on = steps_of(work, then)
            seconds = self._machine.run_beside(tried)
            timeline.after(seconds, lambda: self.post(go_on))

        timeline.after(self._machine.sim.rng.uniform(0, 0.002), run)
