# SPDX-License-Identifier: Apache-2.0
"""
A whole cluster in one thread: real engine, journal and proposals, simulated world.

Every run with the same seed is the same run.
"""

import contextlib
import random
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from typing import Any

from pysyncobj import syncobj

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.replication.members import Member
from sparecode_node.replication.raft.proposals import EXPIRE_S, Outcome
from sparecode_node.replication.raft.read_index import Word
from sparecode_node.replication.replicator import Proposal
from sparecode_node.statemachine.commands import UnstampedCall
from tests.replication.recording_state import call
from tests.simulation import recovery
from tests.simulation.absences import Absences
from tests.simulation.disk import Killed
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.faults import Faults, Profile
from tests.simulation.invariants import Invariants, Read, Submission
from tests.simulation.keepers import Keepers
from tests.simulation.late_installations import LateInstallations
from tests.simulation.late_snapshots import LateSnapshots
from tests.simulation.leader_hunts import LeaderHunts
from tests.simulation.machines import ENDINGS, EPOCH_S, Node
from tests.simulation.memberships import Memberships
from tests.simulation.message_sizes import MessageSizes
from tests.simulation.network import STEP_S, Manners, Network
from tests.simulation.observed import attempt_of
from tests.simulation.overtaken import OvertakenHellos
from tests.simulation.point_faults import PointFaults
from tests.simulation.rogues import Rogues
from tests.simulation.rollbacks import Copy, DiskCopies
from tests.simulation.scenarios import Scenario, Trace
from tests.simulation.slips import Slips
from tests.simulation.statements import Statements

PROPOSAL_S = 3.0
IMPATIENT = 0.15
"""How often a caller waits no longer than for a slow entry."""
IMPATIENT_S = 0.02, 0.3
ANSWER_LATE_S = EXPIRE_S + 0.3
"""How late a node answers a caller whose deadline has passed, pauses aside."""
HEAL_S = 40.0
"""
For a cluster without faults to work again, and to agree. A node with slow threads fetches
a snapshot for ten seconds, and twice if the first one was spoiled.
"""
LOOK_EACH = 5
"""Steps between two comparisons of all logs: compaction takes what they share."""


class SimCluster:
    """Nodes n1..nN under a simulated clock, network and disk."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self.rng = random.Random(f"{seed} {scenario.nodes}")
        self.scenario = scenario
        self.now = 1000.0
        self.raft = scenario.raft
        self.trace = Trace()
        self.effects = Effects()
        self.invariants = self._invariants()
        self.invariants.on_violation = lambda kind, seen: self.trace(
            self.now, f"VIOLATION: {kind}: {seen}"
        )
        self.ids = [f"n{i + 1}" for i in range(scenario.nodes)]
        manners = scenario.manners or self.rng.choice(list(Manners))
        self.network = Network(self.ids, self.rng, manners, self.effects)
        profile = scenario.profile or self.rng.choice(list(Profile))
        self.faults = Faults(self, profile)
        written = tuple(
            Member(node_id=NodeId(i), address=f"{i}:7301") for i in self.ids
        )
        self.nodes = {i: Node(self, i, scenario.store(), written) for i in self.ids}
        self.network.nodes.update(self.nodes)
        # A generator for each: what one draws alters nothing else.
        run = f"{seed} {scenario.nodes}"
        self.network.overtaken = OvertakenHellos.drawn(f"{run} overtaken hellos")
        rng = random.Random(f"{run} members")
        rate = {Profile.MEMBERS: 0.06}.get(profile, rng.choice([0.0, 0.02]))
        hurry = random.Random(f"{run} hurry")
        self.memberships = Memberships(self, rng, rate, scenario.nodes, hurry)
        self.hunts = LeaderHunts(self, f"{run} hunts", profile)
        self.rogues = Rogues(self, f"{run} rogues", profile)
        self.slips = Slips(self.memberships, f"{run} slips")
        self._copies = DiskCopies(self, random.Random(f"{run} copies"))
        self.points = PointFaults(self, random.Random(f"{run} points"))
        late = LateSnapshots(self, random.Random(f"{run} late snapshots"))
        dice = random.Random(f"{run} late installations")
        installs = LateInstallations(self, dice, late)
        self.absences = Absences(self, random.Random(f"{run} absences"), late, installs)
        self.sizes = MessageSizes(random.Random(f"{run} sizes"), self.network)
        self.keepers = Keepers(self, random.Random(f"{run} keepers"), late, installs)
        self.statements = Statements(self, f"{run} statements")
        self.manners = manners
        self._current: Node | None = None
        self.power: bool | None = None
        """Whether the power is cut when a node is killed; None: as the dice say."""
        self._requests = 0
        self._faulty = False
        """Whether this step may have faults, and impatient callers."""

    def close(self) -> None:
        """Close the databases of the machines."""
        for node in self.nodes.values():
            node.store.close()
        self._copies.close()

    def _invariants(self) -> Invariants:
        return Invariants()

    @contextlib.contextmanager
    def world(self, *, risk: float = 0.0) -> Iterator[None]:
        """Put the engine under this clock and these dice; *risk* is of a bad start."""
        clock, state, wall = syncobj.monotonicTime, random.getstate(), time.time
        syncobj.monotonicTime = self._clock
        time.time = self._wall  # No caller should ask; one that does gets a node's own.
        random.seed(self.rng.random())  # The engine draws election timeouts here.
        try:
            with self.keepers.at_work(), self.sizes.in_force():
                for node in self.nodes.values():
                    if risk and self.rng.random() < risk:
                        self.arm(node.node_id, self.rng.randint(0, 12))
                    self.boot(node)
                with self.points.installed():
                    yield
        finally:
            syncobj.monotonicTime, time.time = clock, wall
            random.setstate(state)

    def _wall(self) -> float:
        return self._current.wall_s() if self._current else EPOCH_S + self.now

    def _clock(self) -> float:
        self.now += 2e-6  # Time passes inside a tick too.
        return self.now

    # --- Nodes

    def running(self) -> list[str]:
        return [i for i in self.ids if self.nodes[i].is_up()]

    def live(self) -> list[Node]:
        return [self.nodes[i] for i in self.running()]

    def leader(self) -> str | None:
        leaders = [node.node_id for node in self.live() if node.leads]
        return self.rng.choice(leaders) if leaders else None

    def boot(self, node: Node) -> None:
        """Start a node on what is on its disk."""
        node.restart_at = None
        if not self.run_on(node, lambda _: node.start(), starting=True):
            return
        self.network.node_started(node.node_id)
        if not node.is_up():
            return  # What the others sent has stopped it already.
        self.keepers.begin(node)
        back = node.had_applied - node.applied_at_start
        lost = node.had_entries - node.journal.last_index
        self.effects[Effect.STORE_BACK] += max(0, back)
        self.effects[Effect.ENTRY_LOST] += max(0, lost)
        self.trace(
            self.now,
            f"{node.node_id} starts: {node.journal.last_index} entries, of which"
            f" {node.applied_at_start} were applied; lost {lost} entries, and the"
            f" store {back}",
        )

    def run_on(
        self, node: Node, act: Callable[[Any], object], *, starting: bool = False
    ) -> bool:
        """Do something in a node's process; False if it did not survive."""
        if node.replica is None and not starting:
            return False
        self._current = node
        try:
            act(node.replica)
        except Killed:
            cut = node.disk.take_cut()
            if cut is None:
                cut = self.rng.random() < 0.5 if self.power is None else self.power
            self._die(node, power=cut, cause="killed inside")
        except ENDINGS as error:
            if not (node.disk.broken or self.statements.must_stop(node)):
                kind = "starts unaided" if starting else "no halt"
                self.invariants.violated(kind, f"{node.node_id}: {error}")
            self._die(node, power=self.rng.random() < 0.5, cause=str(error))
        except Exception as error:  # noqa: BLE001 - any of them is a finding.
            self.invariants.violated("no exception", f"{node.node_id}: {error!r}")
            self._die(node, power=False, cause=repr(error))
        else:
            # A leader of a moment counts too.
            self._see_leader(node)
            return True
        finally:
            self._current = None
        return False

    def _die(self, node: Node, *, power: bool, cause: str) -> None:
        self.invariants.on_stop(node)
        node.remember_what_it_had()
        self.trace(self.now, f"{node.node_id} stops: {cause}, power loss: {power}")
        node.replica = None
        self.keepers.end(node, power=power)
        node.disk.fuse = None
        node.disk.failing = node.disk.hurt = node.disk.unable = False
        node.disk.state_fault = None
        self.network.node_stopped(node.node_id)
        if power:
            node.disk.lose_power()
            node.store.lose_power(self.rng)
        pause = self.rng.choice([0.01, 0.1, self.rng.uniform(0, 1.5)])
        node.restart_at = self.now + pause

    # --- Fault points

    def machine_at_work(self) -> Node | None:
        return self._current or self.keepers.machine_at_work()

    def kill_at_work(self, machine: Node, *, power: bool) -> None:
        if self._current is None:  # Its loop runs.
            self._die(machine, power=power, cause="killed")
        else:
            machine.disk.cut = power

    def delay_at_work(self, machine: Node, seconds: float) -> None:
        self.pause(machine.node_id, seconds)

    # --- Machines that come and go

    def add_machine(self, node_id: str, members: tuple[Member, ...]) -> None:
        """Add a machine that only the members' file names."""
        node = Node(self, node_id, self.scenario.store(), members, joins=True)
        self.nodes[node_id] = self.network.nodes[node_id] = node
        self.ids.append(node_id)
        self.network.ids.append(node_id)
        node.restart_at = self.now

    def wipe(self, node: Node) -> None:
        """Take everything from a machine that it had, and start it again."""
        self.effects[Effect.WIPED] += 1
        self._die(node, power=False, cause="wiped")
        node.wipe(self.scenario.store())

    def put_back(self, node: Node, copy: Copy) -> None:
        """Put a machine back to an earlier time, and start it again."""
        self._die(node, power=False, cause="put back to an older copy")
        node.put_back(copy.disk, copy.store)
        node.disk.lose_power()
        node.store.lose_power(self.rng)

    # --- Faults

    def crash(self, node: str, *, power: bool) -> None:
        if self.nodes[node].is_up():
            self.effects[Effect.POWER_LOSS if power else Effect.KILL] += 1
            self._die(self.nodes[node], power=power, cause="killed")

    def pause(self, node: str, seconds: float) -> None:
        self.effects[Effect.PAUSE] += self.nodes[node].is_up()
        self.trace(self.now, f"{node} pauses for {seconds:.2f} s")
        self.nodes[node].paused_until = self.now + seconds

    def arm(self, node: str, operations: int) -> None:
        self.nodes[node].disk.fuse = operations

    def fail_disk(self, node: str) -> None:
        self.trace(self.now, f"{node}: every sync fails")
        self.nodes[node].disk.fail()

    def spoil_apply(self, node: str) -> None:
        self.nodes[node].disk.unable = True

    def fill_disk(self, node: str, seconds: float) -> None:
        self.trace(self.now, f"{node}: the disk is full for {seconds:.2f} s")
        disk = self.nodes[node].disk
        disk.fill()
        self.network.at(seconds, lambda: setattr(disk, "full", False))

    def jump_clock(self, node: str, seconds: float) -> None:
        self.effects[Effect.CLOCK_JUMP] += self.nodes[node].is_up()
        self.trace(self.now, f"{node}: the clock jumps by {seconds:.0f} s")
        self.nodes[node].set_clock(self.nodes[node].clock_s + seconds)

    def clocks(self, ids: Collection[str], since: float) -> list[set[float]]:
        return [self.nodes[i].clocks(since) for i in sorted(ids)]

    # --- Clients

    def propose(
        self, node: Node, request_id: str, make: Callable[[], UnstampedCall]
    ) -> Submission:
        """Propose a call once, and keep its outcome."""
        made = make()
        attempt = attempt_of(node, len(self.invariants.submissions))
        patience_s = PROPOSAL_S
        if self._faulty and self.rng.random() < IMPATIENT:
            patience_s = self.rng.uniform(*IMPATIENT_S)
        submission = Submission(request_id, attempt, self.now + patience_s, made)
        self.invariants.submissions.append(submission)
        proposal = Proposal(call=replace(made, session_id=submission.session))
        self.run_on(
            node,
            lambda replica: replica.submit(
                proposal,
                timeout_s=patience_s,
                callback=lambda o: self._answered(node, submission, o),
            ),
        )
        return submission

    def read(
        self, node: Node, word: Word | None = None, floor: int | None = None
    ) -> Read:
        """
        Ask a node for the index that a read must wait for; a follower must refuse.

        *word* and *floor* are of a member that asks for its callers: its report, and
        the commit index at the time of their calls.
        """
        calls = attempt_of(node, len(self.invariants.reads))
        if floor is None:
            floor = max(self.invariants.applied, default=0)
        read = Read(calls, self.now + PROPOSAL_S, floor, word)
        self.invariants.reads.append(read)
        self.run_on(
            node,
            lambda replica: replica.read(
                timeout_s=PROPOSAL_S,
                callback=lambda o: self.invariants.on_read(read, o),
                word=word,
            ),
        )
        return read

    def read_anywhere(self) -> None:
        """Read on every node that believes to lead."""
        for node in self.live():
            if node.leads and not node.is_paused():
                self.read(node)

    def _answered(self, node: Node, submission: Submission, outcome: Outcome) -> None:
        """Act as the client that gets an answer."""
        if isinstance(outcome, OutcomeUnknownError):
            self.effects[Effect.UNKNOWN] += 1
        if submission.request_id in self.invariants.acked:
            self.effects[Effect.REPEATED] += not isinstance(outcome, Exception)
        self.trace(
            self.now, f"{node.node_id} answers {submission.request_id}: {outcome!r}"
        )
        self.invariants.on_outcome(submission, outcome)
        self.invariants.check_late(
            submission, self.now, ANSWER_LATE_S, node.paused_until
        )

    def client(self) -> None:
        """Propose something new, or something old again under its request id."""
        leader = self.leader()
        up = [n for n in self.live() if not n.is_paused()]
        if not up:
            return
        for _ in range(self.rng.choice([1, 1, 2, 6])):
            target = self.nodes[leader] if leader else self.rng.choice(up)
            if self.rng.random() < 0.1:
                target = self.rng.choice(up)
            if not target.is_up():
                continue
            if self._requests and self.rng.random() < 0.2:
                request = (
                    f"r{self.rng.randint(max(1, self._requests - 20), self._requests)}"
                )
                self.propose(target, request, lambda r=request: call(r))
            else:
                self.ask(target)

    def ask(self, node: Node) -> None:
        """Propose something new."""
        self._requests += 1
        request = f"r{self._requests}"
        self.propose(node, request, lambda: call(request))

    def set_up(self) -> None:
        """Elect a leader before anything goes wrong."""
        for _ in range(40):
            self.step(faulty=False)
            self.memberships.act_at_once()

    # --- Time

    def step(self, *, faulty: bool) -> None:
        self.now += STEP_S
        self._faulty = faulty
        self.hunts.allow_others()
        self.absences.allow_others()
        may_act = self.hunts.others_may_act and not self.absences.is_one_away
        self.points.allow(self.ids if faulty and may_act else ())
        may_act = may_act and self.absences.others_may_act
        for node in self.nodes.values():
            if node.restart_at is not None and self.now >= node.restart_at:
                self.boot(node)
        self.network.advance(self.now)
        order = self.ids[:]
        self.rng.shuffle(order)
        for node in (self.nodes[i] for i in order):
            if node.is_up() and not node.is_paused() and self.rng.random() > 0.1:
                self.run_on(node, lambda replica, n=node: self.keepers.tick(n, replica))
            if node.is_up():
                self._look_at(node)
        self.keepers.step(faulty=faulty and self.absences.others_may_act)
        if faulty:
            self._act(may_act)
            if self.rng.random() < 0.25:
                self.client()
            if self.rng.random() < 0.2 or self._has_two_leaders():
                self.read_anywhere()

    def _act(self, faults_may: bool) -> None:
        """Let everything that disturbs the cluster do what its dice say."""
        self.hunts.act()
        self.rogues.act()
        if faults_may:
            self.faults.act()
        self.absences.act()
        if self.absences.others_may_act:
            self.memberships.act()
            self.slips.act()
            self._copies.act()
            self.statements.act()

    def _has_two_leaders(self) -> bool:
        """Return whether a node may believe to lead that does not any more."""
        return sum(node.leads for node in self.live()) > 1

    def _see_leader(self, node: Node) -> None:
        if not node.leads:
            return
        if node.term not in self.invariants.leaders:
            self.effects[Effect.ELECTION] += 1
            self.memberships.on_leader(node)
            self.invariants.promises.on_leader(node)
            self.trace(self.now, f"{node.node_id} leads in term {node.term}")
        self.invariants.check_leader(node)

    def _look_at(self, node: Node) -> None:
        self._see_leader(node)
        if node.led and not node.leads:
            self.effects[Effect.DEPOSED] += 1
            self.trace(self.now, f"{node.node_id} leads no more")
        node.led = node.leads
        self.memberships.look_at(node)
        self.invariants.promises.look_at(node, self.nodes, self.now)

    def run(self) -> None:
        """Live through the faults, then heal, then look at everything."""
        self.trace(self.now, f"{self.faults.profile.value}; {self.manners.value}")
        self.absences.begin()
        self.keepers.late.begin(away=self.absences.happen)
        self.keepers.installations.begin(away=self.absences.happen)
        with self.world(risk=0.05):
            self.set_up()
            steps = self.absences.steps(round(self.scenario.seconds / STEP_S))
            for k in range(self.hunts.steps(steps)):
                self.step(faulty=True)
                if k % LOOK_EACH == 0:
                    self.invariants.check_logs(self.live())
                if k % 50 == 0:
                    paused = {n.node_id: n.paused_until for n in self.nodes.values()}
                    self.invariants.check_answers(self.now, ANSWER_LATE_S, paused)
            self.trace(self.now, "everything heals")
            self.absences.end()
            self.keepers.installations.end()
            if not self.heal():
                self.invariants.violated("progress", self.describe())
            self.check()
        self.effects[Effect.TERM] += max((node.term for node in self.live()), default=0)

    def heal(self, seconds: float = HEAL_S) -> bool:
        """End all faults; return whether the cluster works again and agrees."""
        return recovery.heal(self, seconds)

    def probe(self, node: Node, name: str) -> Submission:
        """Propose something that must be answered."""
        return self.propose(node, name, lambda: call(name))

    def acked(self, submission: Submission) -> bool:
        return any(not isinstance(o, Exception) for o in submission.outcomes)

    def check(self) -> None:
        """Check what can be checked at the end."""
        for _ in range(round((PROPOSAL_S + 0.2) / STEP_S)):
            self.step(faulty=False)
        self.invariants.check_answers(self.now, 0.1)
        self.invariants.check_logs(self.live())
        self.invariants.check_applied()
        self.memberships.check()
        belonging = self.memberships.belonging()
        self.invariants.check_states([self.nodes[i] for i in belonging])
        for node in self.live():
            node.remember_what_it_had()

    def describe(self) -> str:
        """Describe the position of every node."""
        return "; ".join(
            f"{n.node_id}: {n.replica.status() if n.replica else 'down'}"
            for n in self.nodes.values()
        )
