# SPDX-License-Identifier: Apache-2.0
"""
A whole cluster in one thread: real engine, journal and proposals, simulated world.

Every run with the same seed is the same run.
"""

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pysyncobj import syncobj

from sparecode_node.domain.ids import SessionId
from sparecode_node.replication.errors import Fatal, StartRefusedError
from sparecode_node.replication.replicator import Proposal
from sparecode_node.replication.settings import RaftSettings
from sparecode_node.statemachine.commands import Call
from tests.replication.recording import call
from tests.simulation.disk import Killed
from tests.simulation.faults import Faults, Profile
from tests.simulation.invariants import Invariants, Read, Submission
from tests.simulation.machines import Node, RecordingStore, Store
from tests.simulation.network import Manners, Network

STEP_S = 0.02
PROPOSAL_S = 3.0
PAUSE_MAX_S = 2.0


@dataclass(frozen=True)
class Scenario:
    """What distinguishes one run from another, besides the seed."""

    nodes: int = 3
    profile: Profile | None = None
    manners: Manners | None = None
    seconds: float = 6.0
    store: Callable[[], Store] = RecordingStore


class SimCluster:
    """Nodes n1..nN under a simulated clock, network and disk."""

    def __init__(self, seed: int, scenario: Scenario) -> None:
        self.rng = random.Random(f"{seed} {scenario.nodes}")
        self.scenario = scenario
        self.now = 1000.0
        self.raft = RaftSettings()
        self.invariants = Invariants()
        self.ids = [f"n{i + 1}" for i in range(scenario.nodes)]
        manners = scenario.manners or self.rng.choice(list(Manners))
        self.network = Network(self.ids, self.rng, manners)
        profile = scenario.profile or self.rng.choice(list(Profile))
        self.faults = Faults(self, profile)
        self.nodes = {i: Node(self, i, scenario.store()) for i in self.ids}
        self.network.nodes.update(self.nodes)
        self.bites: dict[str, int] = {}
        """How often each kind of fault has struck."""
        self._requests = 0

    def stamp(self, proposals: Sequence[Proposal]) -> tuple[Call, ...]:
        """Be the stamper of every primary."""
        return tuple(replace(p.call, at_ms=int(self.now * 1000)) for p in proposals)

    @contextlib.contextmanager
    def world(self) -> Iterator[None]:
        """Put the engine under this clock and these dice."""
        clock, state = syncobj.monotonicTime, random.getstate()
        syncobj.monotonicTime = self._clock
        random.seed(self.rng.random())  # The engine draws election timeouts here.
        try:
            for node in self.nodes.values():
                self.boot(node)
            yield
        finally:
            syncobj.monotonicTime = clock
            random.setstate(state)

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
        if self.run_on(node, lambda _: node.start(), starting=True):
            self.network.node_started(node.node_id)

    def run_on(
        self, node: Node, act: Callable[[Any], object], *, starting: bool = False
    ) -> bool:
        """Do something in a node's process; False if it did not survive."""
        if node.replica is None and not starting:
            return False
        try:
            act(node.replica)
        except Killed:
            self._bite("killed in a file operation")
            self._die(node, power=self.rng.random() < 0.5)
            return False
        except (Fatal, StartRefusedError) as error:
            if not node.disk.failing:
                self.invariants.violated("no halt", f"{node.node_id}: {error}")
            self._die(node, power=True)
            return False
        except Exception as error:  # noqa: BLE001 - any of them is a finding.
            self.invariants.violated("no exception", f"{node.node_id}: {error!r}")
            self._die(node, power=False)
            return False
        return True

    def _die(self, node: Node, *, power: bool) -> None:
        for submission in self.invariants.submissions:
            if submission.attempt.startswith(f"{node.node_id}.{node.life}."):
                submission.node_died = True
        for read in self.invariants.reads:
            if read.asked.startswith(f"{node.node_id}.{node.life}."):
                read.node_died = True
        node.replica = None
        node.disk.fuse = None
        node.disk.failing = False
        self.network.node_stopped(node.node_id)
        if power:
            node.disk.lose_power()
            node.store.lose_power(self.rng)
        pause = self.rng.choice([0.01, 0.1, self.rng.uniform(0, 1.5)])
        node.restart_at = self.now + pause

    def _bite(self, kind: str) -> None:
        self.bites[kind] = self.bites.get(kind, 0) + 1

    # --- Faults

    def crash(self, node: str, *, power: bool) -> None:
        if self.nodes[node].is_up():
            self._bite("power loss" if power else "kill")
            self._die(self.nodes[node], power=power)

    def pause(self, node: str, seconds: float) -> None:
        self._bite("pause")
        self.nodes[node].paused_until = self.now + seconds

    def arm(self, node: str, operations: int) -> None:
        self.nodes[node].disk.fuse = operations

    def fail_disk(self, node: str) -> None:
        self._bite("disk failure")
        self.nodes[node].disk.failing = True

    # --- Clients

    def propose(
        self, node: Node, request_id: str, make: Callable[[], Call]
    ) -> Submission:
        """Propose a call once, and keep its outcome."""
        attempt = f"{node.node_id}.{node.life}.{len(self.invariants.submissions)}"
        submission = Submission(request_id, attempt, self.now + PROPOSAL_S)
        self.invariants.submissions.append(submission)
        made = make()
        if not made.session_id.startswith("open"):
            made = replace(made, session_id=SessionId(attempt))
        proposal = Proposal(call=made)
        self.run_on(
            node,
            lambda replica: replica.submit(
                proposal,
                timeout_s=PROPOSAL_S,
                callback=lambda o: self.invariants.on_outcome(submission, o),
            ),
        )
        return submission

    def read(self, node: Node) -> Read:
        """Ask a node up to where to read; whoever does not lead must refuse."""
        asked = f"{node.node_id}.{node.life}.{len(self.invariants.reads)}"
        floor = max(self.invariants.applied, default=0)
        read = Read(asked, self.now + PROPOSAL_S, floor)
        self.invariants.reads.append(read)
        self.run_on(
            node,
            lambda replica: replica.read(
                timeout_s=PROPOSAL_S,
                callback=lambda o: self.invariants.on_read(read, o),
            ),
        )
        return read

    def read_anywhere(self) -> None:
        """Have somebody read, on every node that believes to lead."""
        for node in self.live():
            if node.leads and not node.is_paused():
                self.read(node)

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
            if self._requests and self.rng.random() < 0.2:
                request = (
                    f"r{self.rng.randint(max(1, self._requests - 20), self._requests)}"
                )
            else:
                self._requests += 1
                request = f"r{self._requests}"
            if target.is_up():
                self.propose(target, request, lambda r=request: call(r))

    # --- Time

    def step(self, *, faulty: bool) -> None:
        self.now += STEP_S
        for node in self.nodes.values():
            if node.restart_at is not None and self.now >= node.restart_at:
                self.boot(node)
        self.network.advance(self.now)
        order = self.ids[:]
        self.rng.shuffle(order)
        for node in (self.nodes[i] for i in order):
            if node.is_up() and not node.is_paused() and self.rng.random() > 0.1:
                self.run_on(node, lambda replica: replica.tick(0))
            if node.is_up():
                self.invariants.check_leader(node)
        if faulty:
            self.faults.act()
            if self.rng.random() < 0.25:
                self.client()
            if self.rng.random() < 0.2:
                self.read_anywhere()

    def run(self) -> None:
        """Live through the faults, then heal, then look at everything."""
        with self.world():
            for k in range(round(self.scenario.seconds / STEP_S)):
                self.step(faulty=k > 40)
                if k % 50 == 0:
                    self.invariants.check_logs(self.live())
                    self.invariants.check_answers(self.now, PAUSE_MAX_S + 1)
            if not self.heal():
                self.invariants.violated("progress", self.describe())
            self.check()

    def heal(self, seconds: float = 12.0) -> bool:
        """End all faults; return whether the cluster works again and agrees."""
        for node in self.nodes.values():
            node.disk.fuse = None
            node.disk.failing = False
            node.paused_until = 0.0
            if node.restart_at is not None:
                node.restart_at = self.now
        self.network.heal()
        probe: Submission | None = None
        for k in range(round(seconds / STEP_S)):
            self.step(faulty=False)
            leader = self.leader()
            asked = probe is not None and (self._acked(probe) or k % 50)
            if leader and not asked:
                name = f"probe{k}"
                probe = self.propose(self.nodes[leader], name, lambda n=name: call(n))
            if probe and self._acked(probe) and self._agree():
                return True
        return False

    def _acked(self, submission: Submission) -> bool:
        return any(not isinstance(o, Exception) for o in submission.outcomes)

    def _agree(self) -> bool:
        marks = {
            (n.store.state.applied_index, n.journal.last_index) for n in self.live()
        }
        return len(self.live()) == len(self.ids) and len(marks) == 1

    def check(self) -> None:
        """Check what can be checked at the end."""
        for _ in range(round((PROPOSAL_S + 0.2) / STEP_S)):
            self.step(faulty=False)
        self.invariants.check_answers(self.now, 0.1)
        self.invariants.check_logs(self.live())
        self.invariants.check_applied()
        self.invariants.check_states(
            (n.node_id, n.store.applied(), n.store.digest()) for n in self.live()
        )

    def describe(self) -> str:
        """Say where every node is."""
        return "; ".join(
            f"{n.node_id}: {n.replica.status() if n.replica else 'down'}"
            for n in self.nodes.values()
        )


def violations(seed: int, scenario: Scenario) -> dict[str, str]:
    """Run one seed, and return what went wrong."""
    sim = SimCluster(seed, scenario)
    sim.run()
    return sim.invariants.violations


def first_violation(
    seeds: Sequence[int], scenario: Scenario
) -> tuple[int, dict[str, str]] | None:
    """Return the first seed that finds something, and what."""
    for seed in seeds:
        if found := violations(seed, scenario):
            return seed, found
    return None
