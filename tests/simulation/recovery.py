# SPDX-License-Identifier: Apache-2.0
"""The end of all faults, after which a cluster must work again by itself."""

from collections.abc import Iterable
from typing import Protocol

from sparecode_node.replication.raft.read_index import ReadPoint
from tests.simulation.comparisons import Comparison
from tests.simulation.invariants import Invariants, Read, Submission
from tests.simulation.machines import Node
from tests.simulation.memberships import Memberships
from tests.simulation.network import STEP_S, Network
from tests.simulation.statements import Statements


class World(Protocol):
    """The cluster."""

    now: float
    nodes: dict[str, Node]
    network: Network
    invariants: Invariants
    memberships: Memberships
    statements: Statements

    def step(self, *, faulty: bool) -> None: ...
    def leader(self) -> str | None: ...
    def probe(self, node: Node, name: str) -> Submission: ...
    def acked(self, submission: Submission) -> bool: ...
    def read(self, node: Node) -> Read: ...


def heal(world: World, seconds: float) -> bool:
    """
    End all faults; return whether the cluster works again and agrees.

    It must elect a leader, write, bring all members to the same index, and read.
    """
    world.statements.take_back()
    mend(world.nodes.values(), world.now)
    world.network.heal()
    probe: Submission | None = None
    read: Read | None = None
    for k in range(round(seconds / STEP_S)):
        world.step(faulty=False)
        leader = world.leader()
        calls = probe is not None and (world.acked(probe) or k % 50)
        if leader and not calls:
            name = f"probe{k}"
            probe = world.probe(world.nodes[leader], name)
        if leader and probe and world.acked(probe) and _agree(world):
            if read is None or _refused(read):
                read = world.read(world.nodes[leader])
            elif read.outcomes:
                world.invariants.comparisons[Comparison.HEALED] += 1
                return True
    return False


def mend(nodes: Iterable[Node], now: float) -> None:
    """End what is wrong with machines."""
    for node in nodes:
        node.disk.fuse = node.disk.state_fault = None
        node.disk.failing = node.disk.full = node.disk.unable = False
        node.paused_until = min(node.paused_until, now)
        node.set_clock(0.0)
        if node.restart_at is not None:
            node.restart_at = now


def _agree(world: World) -> bool:
    belonging = [world.nodes[i] for i in world.memberships.belonging()]
    marks = {
        (n.store.state.applied_index, n.journal.last_index)
        for n in belonging
        if n.is_up()
    }
    return all(n.is_up() for n in belonging) and len(marks) == 1


def _refused(read: Read) -> bool:
    return any(not isinstance(outcome, ReadPoint) for outcome in read.outcomes)
