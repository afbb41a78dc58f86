# SPDX-License-Identifier: Apache-2.0
"""
A cluster of whole nodes: everything between a caller and the disk, but gRPC and threads.

First everything goes wrong. Then a majority, the core, is left alone for some seconds,
while faults go on for the others: in that time its callers must get answers within a
bound. That holds also if links in the core have died before without a word. At last all
nodes recover, and all states are compared.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

from pysyncobj import syncobj

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.errors import (
    NotAppliedError,
    OutcomeUnknownError,
)
from sparecode_node.replication.members import Member
from sparecode_node.replication.raft.read_index import ReadPoint
from sparecode_node.replication.replicator import Proposal
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.statemachine.commands import UnstampedCall
from sparecode_node.statemachine.commands.authentication import Authenticate
from sparecode_node.statemachine.results import Rejected
from tests.simulation.comparisons import Comparison
from tests.simulation.disk import Killed
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.invariants import Read, Submission
from tests.simulation.keepers import drain
from tests.simulation.machines import ENDINGS, EPOCH_S, Node
from tests.simulation.nodes.bandwidth import Bandwidth
from tests.simulation.nodes.bounds import Bounds
from tests.simulation.nodes.connections import Wires
from tests.simulation.nodes.core import Core
from tests.simulation.nodes.faults import NodeFaults
from tests.simulation.nodes.fetches import FLOOD_LOG, FLOOD_RATE, Fetches
from tests.simulation.nodes.lateness import ANSWER_LATE_S, judge_time
from tests.simulation.nodes.loops import Timeline
from tests.simulation.nodes.machines import Machine, patched
from tests.simulation.nodes.memberships import NodeMemberships
from tests.simulation.nodes.turns import LOG, Turns
from tests.simulation.observed import attempt_of
from tests.simulation.point_faults import PointFaults
from tests.simulation.rollbacks import Copy, DiskCopies
from tests.simulation.rules import CodeRules
from tests.simulation.scenarios import Trace
from tests.simulation.sqlite_store import SqliteStore
from tests.simulation.statements import Statements
from tests.simulation.work import PeopleAtWork

STEP_S = 0.05
"""Between two looks at the cluster, and two draws of faults."""

FAULTY_S = 5.0
HEAL_S = 100.0
CALL_S = 3.0

MEMBERS_RATE = 0.06
"""Of membership changes in a step, in the runs in which members come and go."""

COPY_RATE = 0.2
BACK_RATE = 0.3
"""
Of copied machines, and of tries to put one back, in a step of the same runs. Most tries
come to nothing: the disks of all others must know that the copy is older.
"""

SHORT_LOG = RaftSettings(log_entries_max=24, log_entries_kept=6, member_stalled_s=5.0)


class NodesCluster(PeopleAtWork):
    """Nodes n1..nN, each a `ClusterReplicator` in a process of its own."""

    def __init__(self, seed: int, nodes: int = 3) -> None:
        super().__init__()
        self.rng = random.Random(f"{seed} {nodes} whole")
        self.trace = Trace()
        self.effects = Effects()
        self.bounds = Bounds()
        self.rules = self.invariants = CodeRules()
        self.invariants.on_violation = lambda kind, seen: self.trace(
            self.now, f"VIOLATION: {kind}: {seen}"
        )
        self.earlier = self.rules
        """Of a cluster that is lost, if there is a new one."""
        self.cluster_id = "simulated"
        self.raft = SHORT_LOG
        self.faulty_s = FAULTY_S
        self.timeline = Timeline()
        rates = random.Random(f"{seed} {nodes} whole bandwidth")
        self.bandwidth = Bandwidth(rates)
        self.wires = Wires(self.timeline, self.rng, self._count, self.bandwidth)
        self.current: Machine | None = None
        self.starting: Machine | None = None
        self.ids = [f"n{i + 1}" for i in range(nodes)]
        written = tuple(
            Member(node_id=NodeId(i), address=f"{i}:7301") for i in self.ids
        )
        self.nodes: dict[str, Machine] = {
            i: Machine(self, i, SqliteStore(), written) for i in self.ids
        }
        self.wires.processes.update({n.address: n for n in self.nodes.values()})
        self.faults = NodeFaults(self)
        fetches = random.Random(f"{seed} {nodes} whole fetches")
        floods = random.Random(f"{seed} {nodes} whole floods")
        lonely = random.Random(f"{seed} {nodes} whole lonely fetches")
        self.fetches = Fetches(self, fetches, lonely, floods.random() < FLOOD_RATE)
        self.points = PointFaults(self, random.Random(f"{seed} {nodes} points"))
        self.working: Machine | None = None
        """The machine of the worker thread that runs now."""
        # Dice of their own: whether members change alters nothing else.
        dice = random.Random(f"{seed} {nodes} whole members")
        rate = dice.choice([0.0, 0.0, MEMBERS_RATE])
        self.memberships = NodeMemberships(self, dice, rate, nodes)
        self.memberships.impatience.seed(f"{seed} {nodes} impatience")
        copies = random.Random(f"{seed} {nodes} whole copies")
        self._copies = DiskCopies(self, copies, COPY_RATE, BACK_RATE)
        self.statements = Statements(self, "none", signing=0.0)
        """No operator of whole nodes signs to skip an entry."""
        turns = random.Random(f"{seed} {nodes} whole turns")
        self.turns = Turns.drawn(self, turns)
        if self.turns.is_drawn:
            self.raft = LOG
        elif self.fetches.may_flood and not self.memberships.rate:
            self.raft = FLOOD_LOG

    @property
    def now(self) -> float:
        return self.timeline.now

    def _count(self, effect: Effect, number: int = 1) -> None:
        self.effects[effect] += number

    def close(self) -> None:
        """End what is left of all processes."""
        for node in self.nodes.values():
            if node.is_up():
                node.end()
            drain(loop for loop, _ in node.gone)
            node.store.close()
        self._copies.close()

    @contextlib.contextmanager
    def world(self) -> Iterator[None]:
        """Put engines, loops and gRPC under this clock and these dice."""
        clock, state, wall = syncobj.monotonicTime, random.getstate(), time.time
        syncobj.monotonicTime = self._clock
        time.time = self._wall
        random.seed(self.rng.random())
        try:
            with patched(self._machine), self.points.installed():
                for node in self.nodes.values():
                    self.boot(node)
                yield
        finally:
            syncobj.monotonicTime, time.time = clock, wall
            random.setstate(state)

    def _machine(self) -> Machine:
        """Return the machine whose code runs now."""
        if self.starting is not None:
            return self.starting
        loop = asyncio._get_running_loop()
        return next(n for n in self.nodes.values() if n.loop is loop)

    def _clock(self) -> float:
        if self.current:
            return self.current.engine_s()
        loop = asyncio._get_running_loop()
        return loop.time() if loop is not None else self.now

    def _wall(self) -> float:
        return self.current.wall_s() if self.current else EPOCH_S + self.now

    # --- Nodes

    def live(self) -> list[Machine]:
        """Return the nodes whose replica is open; none of a cluster that is lost."""
        return [
            node
            for node in self.nodes.values()
            if node.is_up()
            and node.replica is not None
            and node.cluster_id == self.cluster_id
        ]

    def leader(self) -> Machine | None:
        leaders = [node for node in self.live() if node.leads]
        return max(leaders, key=lambda node: node.term, default=None)

    def clocks(self, ids: Collection[str], since: float) -> list[set[float]]:
        return [self.nodes[i].clocks(since) for i in sorted(ids)]

    def boot(self, node: Machine) -> None:
        node.restart_at = None
        self.trace(self.now, f"{node.node_id} starts")
        node.start()

    def died(self, node: Machine, *, cause: BaseException) -> None:
        """Record that a process has ended by itself, or was killed inside."""
        if not node.is_up():
            return
        if isinstance(cause, Killed):
            cut = node.disk.take_cut()
            power = self.rng.random() < 0.5 if cut is None else cut
            self.stop(node, power=power, cause="killed inside")
            return
        if not isinstance(cause, ENDINGS):
            self.invariants.violated("no exception", f"{node.node_id}: {cause!r}")
        elif not node.disk.broken:
            kind = "no halt" if node.replica is not None else "starts unaided"
            self.invariants.violated(kind, f"{node.node_id}: {cause}")
        self.stop(node, power=self.rng.random() < 0.5, cause=repr(cause))

    def stop(self, node: Any, *, power: bool, cause: str) -> None:
        """End a process; without power, its machine loses what is not synced."""
        if not node.is_up():
            return
        self.trace(self.now, f"{node.node_id} stops: {cause}, power loss: {power}")
        self.effects[Effect.POWER_LOSS if power else Effect.KILL] += 1
        self.invariants.on_stop(node)
        if node.replica is not None:
            node.remember_what_it_had()
        node.disk.fuse = None
        node.disk.failing = node.disk.hurt = False
        node.has_power = not power
        self.wires.process_ended(node, power=power)
        node.end()
        if power:
            node.disk.lose_power()
            node.store.lose_power(self.rng)
        node.restart_at = self.now + self.rng.choice(
            [0.01, 0.3, self.rng.uniform(0, 2)]
        )

    # --- Fault points

    def machine_at_work(self) -> Machine | None:
        at_work = self.current or self.working
        loop = asyncio._get_running_loop()
        if at_work is None and loop is not None:
            at_work = next((n for n in self.nodes.values() if n.loop is loop), None)
        return at_work if at_work is not None and at_work.is_up() else None

    def kill_at_work(self, machine: Machine, *, power: bool) -> None:
        if self.current or self.working:
            machine.disk.cut = power
        else:
            self.stop(machine, power=power, cause="killed")

    def delay_at_work(self, machine: Machine, seconds: float) -> None:
        if self.current or self.working:
            machine.spend(seconds)
        else:
            machine.pause(self.now + seconds)

    # --- Machines that come and go

    def add_machine(self, node_id: str, members: tuple[Member, ...]) -> None:
        """Add a machine that only the members' file names."""
        node = Machine(self, node_id, SqliteStore(), members, joins=True)
        self.nodes[node_id] = self.wires.processes[node.address] = node
        self.ids.append(node_id)
        node.restart_at = self.now

    def wipe(self, node: Node) -> None:
        """Take everything from a machine that it had, and start it again."""
        self.effects[Effect.WIPED] += 1
        self.stop(node, power=False, cause="wiped")
        node.wipe(SqliteStore())

    def put_back(self, node: Node, copy: Copy) -> None:
        """Put a machine back to an earlier time, and start it again."""
        self.stop(node, power=False, cause="put back to an older copy")
        node.put_back(copy.disk, copy.store)
        node.disk.lose_power()
        node.store.lose_power(self.rng)

    # --- Callers

    def propose(
        self,
        node: Node,
        request_id: str,
        make: Callable[[], UnstampedCall],
        timeout_s: float = CALL_S,
    ) -> Submission:
        """Let a caller ask a node, and keep what it is told."""
        assert isinstance(node, Machine)
        count = len(self.invariants.submissions)
        attempt = attempt_of(node, count)
        made = replace(make(), node_id=NodeId(node.node_id))
        submission = Submission(request_id, attempt, self.now + timeout_s, made)
        self.invariants.submissions.append(submission)
        made = replace(made, session_id=submission.session)
        # They are matched in a thread of their own, so a call overtakes others.
        by_code = isinstance(made.command, Authenticate) and self.rng.random() < 0.3
        codes = ("123456",) if by_code else ()
        proposal = Proposal(call=made, tokencodes=codes)
        node.spawn(self._propose(node, submission, proposal, timeout_s))
        return submission

    def probe(self, node: Machine, timeout_s: float) -> Submission:
        """Let a caller guess."""
        name = self._name("probe")
        made = self.guess_of(node, name)
        return self.propose(node, name, lambda: made, timeout_s)

    async def _propose(
        self,
        node: Machine,
        submission: Submission,
        proposal: Proposal,
        timeout_s: float,
    ) -> None:
        assert node.replicator is not None
        outcome: Any
        try:
            outcome = await node.replicator.propose(proposal, timeout_s=timeout_s)
        except Exception as error:  # noqa: BLE001 - the invariants judge it.
            outcome = error
        if isinstance(outcome, OutcomeUnknownError):
            self.effects[Effect.UNKNOWN] += 1
        elif isinstance(outcome, NotAppliedError):
            self.effects[Effect.REFUSED] += 1
        elif submission.request_id in self.invariants.acked:
            self.effects[Effect.REPEATED] += 1
        self.told(outcome)
        self.trace(self.now, f"{node.node_id} answers {submission}: {outcome!r}")
        self.invariants.on_outcome(submission, outcome)
        judge_time(self, node, submission, outcome)

    def told(self, outcome: Any) -> None:
        """Look at what a caller is told."""

    def read(self, node: Machine, timeout_s: float = CALL_S) -> Read:
        """Let a caller read on a node, all that is committed by now."""
        attempt = attempt_of(node, f"r{len(self.invariants.reads)}")
        floor = max(self.invariants.applied, default=0)
        read = Read(attempt, self.now + timeout_s, floor)
        self.invariants.reads.append(read)
        node.spawn(self._read(node, read, timeout_s))
        return read

    async def _read(self, node: Machine, read: Read, timeout_s: float) -> None:
        assert node.replicator is not None
        promised = node.invariants.promises.reads
        asked = promised.now()
        outcome: Any
        try:
            await node.replicator.read_barrier(timeout_s=timeout_s)
            promised.on_passed(asked)
            # What a caller reads now.
            outcome = ReadPoint(index=node.store.state.applied_index, state_ms=0)
        except Exception as error:  # noqa: BLE001 - the invariants judge it.
            outcome = error
        self.invariants.on_read(read, outcome)
        judge_time(self, node, read, outcome)

    def callers(self) -> None:
        """Let some callers come."""
        up = [n for n in self.live() if not n.is_paused()]
        for _ in range(self.rng.choice([0, 1, 1, 2, 4])):
            if up:
                self.ask_something(self.rng.choice(up))
        if up and self.rng.random() < 0.4:
            self.read(self.rng.choice(up))

    # --- Time

    def step(self) -> None:
        """Let a moment pass, start what is to be started, and look at all nodes."""
        self.timeline.run_until(self.now + STEP_S)
        for node in self.nodes.values():
            if node.restart_at is not None and self.now >= node.restart_at:
                self.boot(node)
        for node in self.live():
            if node.leads and node.term not in self.invariants.leaders:
                self.effects[Effect.ELECTION] += 1
                self.memberships.on_leader(node)
                node.invariants.promises.on_leader(node)
                self.trace(self.now, f"{node.node_id} leads in term {node.term}")
            self.invariants.check_leader(node)
            self.memberships.look_at(node)
            node.invariants.promises.look_at(node, self.nodes, self.now)

    def run(self) -> None:
        """Live through all of it."""
        with self.world():
            self._set_up()
            self.points.allow(self.ids)
            for _ in range(round(self.faulty_s / STEP_S)):
                self.faults.act(self.ids)
                self.memberships.act()
                if self.memberships.rate:
                    self._copies.act()
                self.callers()
                self.step()
                self.invariants.check_logs(self.live())
            if not self.memberships.rate:  # Else no one knows who the core is.
                Core(self, STEP_S).leave_alone()
            self.points.allow(())
            self._before_healing()
            self.trace(self.now, "everything heals")
            if not self._heal():
                self.invariants.violated("progress", self.describe())
            elif self.turns.is_drawn:
                self.turns.watch()
            self._check()
        self.effects[Effect.TERM] += max((n.term for n in self.live()), default=0)

    def _before_healing(self) -> None:
        """Do what is due when the faults are over."""

    def _set_up(self) -> None:
        """Elect a primary, and make users and codes, before anything goes wrong."""
        for each in self.beginnings():
            self._insist(each)

    def _insist(self, ask: Callable[[Node], list[Submission]]) -> None:
        """Ask the primary until everything is done."""
        deadline = self.now + 60
        while self.now < deadline:
            self.step()
            if (leader := self.leader()) is None:
                continue
            calls = ask(leader)
            while not all(each.outcomes or each.node_died for each in calls):
                self.step()
            if all(_is_done(each) for each in calls):
                assert not any(isinstance(each.outcomes[0], Rejected) for each in calls)
                return
        raise AssertionError("a cluster in good health does not begin")

    # --- The end

    def _heal(self) -> bool:
        for node in self.nodes.values():
            self.faults.mend(node)
        self.faults.mend_between(self.ids)
        begin, next_at = self.now, self.now
        probe: Submission | None = None
        # A member whose fetches were of no use waits for minutes by then.
        waits = [each.keeper_waits_until() for each in self.nodes.values()]
        while self.now < max(begin, *waits) + HEAL_S:
            self.step()
            belonging = [self.nodes[i] for i in self.memberships.belonging()]
            up = [node for node in belonging if node in self.live()]
            if len(up) < len(belonging) or not up:
                continue
            acked = probe is not None and _is_done(probe)
            if not acked and self.now >= next_at:
                next_at = self.now + 0.5
                probe = self.probe(self.rng.choice(up), 1.0)
            marks = {(n.store.state.applied_index, n.journal.last_index) for n in up}
            if acked and len(marks) == 1:
                self.bounds.healed_s = self.now - begin
                self.invariants.comparisons[Comparison.HEALED] += 1
                return True
        return False

    def _check(self) -> None:
        for _ in range(round((CALL_S + 1.0) / STEP_S)):
            self.step()
        self.invariants.check_answers(self.now, ANSWER_LATE_S)
        self.invariants.check_logs(self.live())
        self.invariants.check_applied()
        self.memberships.check()
        belonging = self.memberships.belonging()
        self.invariants.check_states([self.nodes[i] for i in belonging])

    def describe(self) -> str:
        lines = []
        for node in self.nodes.values():
            seen: object = "down"
            if node.replica is not None:
                with node.engine():
                    seen = node.replica.status()
            lines.append(f"{node.node_id}: {seen}")
        return "; ".join(lines)


def _is_done(submission: Submission) -> bool:
    """Return whether a call was decided: one that is outdated is prepared again (T2)."""
    return any(
        not isinstance(each, Exception)
        and not (isinstance(each, Rejected) and each.reason is Reason.STALE_PARAMETERS)
        for each in submission.outcomes
    )
