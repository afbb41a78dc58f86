# SPDX-License-Identifier: Apache-2.0
"""Schedules that random ones rarely come to, written out."""

import pytest

from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.replication.settings import (
    APPEND_BYTES_MAX,
    WINDOW_ENTRIES,
    RaftSettings,
)
from tests.replication.recording_state import call
from tests.simulation.cluster import SimCluster
from tests.simulation.machines import Node
from tests.simulation.network import Manners
from tests.simulation.scenarios import Scenario


class Script(SimCluster):
    """A cluster to which only the script does something."""

    def __init__(
        self, seed: int, nodes: int = 3, raft: RaftSettings | None = None
    ) -> None:
        raft = raft or RaftSettings()  # With a log that does not become too long.
        scenario = Scenario(nodes=nodes, manners=Manners.FIFO, raft=raft)
        super().__init__(seed, scenario)
        self.network.hiccups = 0.0
        self.keepers.beside_s = [0.0]
        self.sizes.append_bytes, self.sizes.window = APPEND_BYTES_MAX, WINDOW_ENTRIES

    def run_for(self, seconds: float) -> None:
        for _ in range(round(seconds * 50)):
            self.step(faulty=False)

    def leading(self) -> Node:
        """Return the leader of the newest term, when there is one."""
        for _ in range(500):
            leaders = [n for n in self.live() if n.leads]
            if leaders:
                return max(leaders, key=lambda node: node.term)
            self.step(faulty=False)
        raise AssertionError("no leader within ten seconds")

    def isolate(self, node: Node) -> None:
        pairs = {(a, b) for a in self.ids for b in self.ids if a != b}
        cut = {pair for pair in pairs if node.node_id in pair}
        self.network.cut(cut, seconds=1e9, notice=0)

    def reconnect(self) -> None:
        self.network.blocked.clear()


@pytest.mark.parametrize("seed", range(5))
def test_what_a_stranded_leader_was_given_is_never_acknowledged(seed: int) -> None:
    """
    Ten writes go to a leader that is cut off; the others move on; all meet again.

    Unchanged, PySyncObj acknowledges all ten, and has them on no node.
    """
    sim = Script(seed)
    with sim.world():
        sim.run_for(2)
        stranded = sim.leading()
        sim.isolate(stranded)
        lost = [
            sim.propose(stranded, f"lost{k}", lambda k=k: call(f"lost{k}"))
            for k in range(10)
        ]
        sim.run_for(2)
        assert not stranded.leads
        others = sim.leading()
        kept = []
        for k in range(50):
            kept.append(sim.propose(others, f"kept{k}", lambda k=k: call(f"kept{k}")))
            sim.run_for(0.1)
        assert all(s.request_id in sim.invariants.acked for s in kept)
        sim.reconnect()
        assert sim.heal(seconds=5)
        sim.check()
    assert all(isinstance(s.outcomes[0], OutcomeUnknownError) for s in lost)
    assert sim.invariants.violations == {}
    states = [node.store.applied() for node in sim.nodes.values()]
    assert all(s.request_id not in applied for s in lost for applied in states)


def test_a_conflict_with_a_long_backlog_behind_it_is_resolved() -> None:
    """PySyncObj answers batch by batch, and never comes to an end (p11e)."""
    sim = Script(1)
    with sim.world():
        sim.run_for(2)
        stranded = sim.leading()
        sim.isolate(stranded)
        sim.propose(stranded, "conflict", lambda: call("conflict"))
        sim.run_for(2)
        leader = sim.leading()
        before = leader.journal.last_index
        for k in range(3 * WINDOW_ENTRIES):
            sim.propose(leader, f"r{k}", lambda k=k: call(f"r{k}"))
            sim.step(faulty=False)
        sim.run_for(1)
        assert leader.journal.last_index > before + 2 * WINDOW_ENTRIES
        sim.reconnect()
        assert sim.heal(seconds=5)
        sim.check()
    assert sim.invariants.violations == {}


def test_a_node_that_was_cut_off_does_not_depose_the_leader() -> None:
    """Pre-vote: it asks first, and no member would vote for it."""
    sim = Script(2)
    with sim.world():
        sim.run_for(2)
        leader = sim.leading()
        term = leader.term
        away = next(node for node in sim.live() if node is not leader)
        sim.isolate(away)
        sim.run_for(10)
        sim.reconnect()
        sim.run_for(3)
        assert leader.leads
        assert away.term == leader.term == term


def test_a_cluster_survives_a_power_cut_of_all_at_once() -> None:
    """Everything acknowledged just before is there afterwards."""
    sim = Script(3)
    with sim.world():
        sim.run_for(2)
        for k in range(100):
            leader = sim.leading()
            sim.propose(leader, f"r{k}", lambda k=k: call(f"r{k}"))
            sim.step(faulty=False)
            if k % 20 == 19:
                for node in sim.running():
                    sim.crash(node, power=True)
                sim.run_for(3)
        assert sim.heal()
        sim.check()
    assert sim.invariants.violations == {}
    assert len(sim.invariants.acked) > 50
