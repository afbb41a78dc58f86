# SPDX-License-Identifier: Apache-2.0
"""Members come and go, at random and by script; and what each protection is for."""

import random
from types import SimpleNamespace
from typing import Any

import pytest

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.members import Configuration, Member, MemberRole
from sparecode_node.replication.raft.admission import Refusal
from sparecode_node.replication.raft.membership_changes import (
    AddLearner,
    Change,
    ChangeOutcome,
    Promote,
    Remove,
)
from tests.replication.recording_state import call
from tests.simulation import protections
from tests.simulation.cluster import SimCluster
from tests.simulation.faults import Profile
from tests.simulation.machines import Node
from tests.simulation.memberships import Memberships
from tests.simulation.scenarios import Scenario
from tests.simulation.test_directed import Script

N4, N5 = NodeId("n4"), NodeId("n5")


class Growing(Script):
    """A cluster whose members the script changes."""

    def change(
        self, change: Change, node: Node | None = None, timeout_s: float = 3.0
    ) -> list[ChangeOutcome]:
        """Ask the leader, or another node that believes to be one."""
        outcomes: list[ChangeOutcome] = []
        self.run_on(
            node or self.leading(),
            lambda replica: replica.change_members(
                change, timeout_s=timeout_s, callback=outcomes.append
            ),
        )
        return outcomes

    def changed(self, change: Change) -> None:
        """Return the result of a membership change."""
        outcomes = self.change(change)
        self.run_for(3)
        assert isinstance(outcomes[0], int), outcomes

    def add(self, node_id: NodeId) -> Node:
        members = self.leading().journal.configuration.members
        new = Member(node_id=node_id, address=f"{node_id}:7301")
        self.add_machine(node_id, (*members, new))
        self.changed(AddLearner(new))
        return self.nodes[node_id]

    def followers(self) -> list[Node]:
        leader = self.leading()
        return [node for node in self.live() if node is not leader]


@pytest.mark.parametrize("nodes", [3, 5])
@pytest.mark.parametrize("seed", range(8))
def test_members_that_come_and_go_break_no_promise(seed: int, nodes: int) -> None:
    sim = SimCluster(seed, Scenario(nodes=nodes, profile=Profile.MEMBERS))
    sim.run()
    assert sim.invariants.violations == {}


def test_a_node_is_added_catches_up_votes_and_takes_anothers_place() -> None:
    sim = Growing(1)
    with sim.world():
        sim.run_for(2)
        for k in range(20):
            sim.propose(sim.leading(), f"r{k}", lambda k=k: call(f"r{k}"))
        new = sim.add(N4)
        assert new.store.applied() == sim.leading().store.applied()
        assert N4 not in sim.leading().journal.configuration.voters
        sim.changed(Promote(N4))
        old = sim.followers()[0]
        sim.changed(Remove(NodeId(old.node_id)))
        voters = sim.leading().journal.configuration.voters
        assert voters == {"n1", "n2", "n3", N4} - {old.node_id}
        assert sim.heal(seconds=5)
        sim.check()
    assert sim.invariants.violations == {}


def outvoted(sim: Growing) -> bool:
    """Cut a leader off with two learners; say whether it takes them for a quorum."""
    sim.run_for(2)
    leader, rest = sim.leading(), {node.node_id for node in sim.followers()}
    sim.add(N4)
    sim.add(N5)
    ours = set(sim.ids) - rest
    pairs = {(a, b) for a in ours for b in rest}
    sim.network.cut(pairs | {pair[::-1] for pair in pairs}, seconds=1e9, notice=0)
    calls = sim.propose(leader, "r", lambda: call("r"))
    sim.run_for(3)
    return not isinstance(calls.outcomes[0], Exception)


def test_a_learner_is_no_part_of_a_quorum(monkeypatch: pytest.MonkeyPatch) -> None:
    sim = Growing(2)
    with sim.world():
        assert not outvoted(sim)
    protections.count_learners(monkeypatch)
    sim = Growing(2)
    with sim.world():
        assert outvoted(sim)


def split_by_two_changes(sim: Growing) -> dict[str, str]:
    """Let a leader that is cut off remove one member after the other, then write."""
    sim.run_for(2)
    stranded = sim.leading()
    rest = sim.followers()
    sim.isolate(stranded)
    for node in rest:
        sim.change(Remove(NodeId(node.node_id)), stranded)
        sim.step(faulty=False)
    sim.propose(stranded, "here", lambda: call("here"))
    sim.run_for(3)
    sim.propose(sim.leading(), "there", lambda: call("there"))
    sim.run_for(3)
    return sim.invariants.violations


def test_one_change_at_a_time_keeps_quorums_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(audit, p12b) Otherwise a cut-off leader shrinks the cluster to itself."""
    sim = Growing(3)
    with sim.world():
        assert split_by_two_changes(sim) == {}
    protections.change_without_waiting(monkeypatch)
    sim = Growing(3)
    with sim.world():
        assert "same entries" in split_by_two_changes(sim)


def a_wiped_voter_elects(sim: Growing) -> bool:
    """Wipe one of two that had an entry; say whether the third leads without it."""
    sim.run_for(2)
    leader = sim.leading()
    wiped, behind = sim.followers()
    sim.isolate(behind)
    kept = sim.propose(leader, "kept", lambda: call("kept"))
    sim.run_for(1)
    assert not isinstance(kept.outcomes[0], Exception)
    sim.wipe(wiped)
    sim.crash(leader.node_id, power=False)
    leader.restart_at = None
    sim.reconnect()
    for a, b in (("n1", "n2"), ("n1", "n3"), ("n2", "n3")):
        sim.network.connect(a, b)
    sim.run_for(5)
    return any(node.leads for node in sim.live())


def test_a_wiped_node_does_not_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    """(audit, p12d) It would forget that it had acknowledged, or voted."""
    sim = Growing(4)
    with sim.world():
        assert not a_wiped_voter_elects(sim)
        refused = [n.running.guard.dropped[Refusal.ANOTHER_JOURNAL] for n in sim.live()]
        assert any(refused)
    protections.know_no_journals(monkeypatch)
    sim = Growing(4)
    with sim.world():
        assert a_wiped_voter_elects(sim)


def wiped_majority_founds_again(sim: Growing) -> bool:
    """Wipe two of three nodes while the third is away; return whether they lead."""
    sim.run_for(2)
    kept = sim.leading()
    calls = sim.propose(kept, "kept", lambda: call("kept"))
    sim.run_for(1)
    assert not isinstance(calls.outcomes[0], Exception)
    rest = sim.followers()
    sim.crash(kept.node_id, power=False)
    kept.restart_at = None
    for node in rest:
        sim.wipe(node)
    sim.run_for(6)
    return any(node.leads for node in sim.live())


def test_nodes_that_lost_everything_do_not_found_the_cluster_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first election needs every founder: the one with data would refuse."""
    sim = Growing(5)
    with sim.world():
        assert not wiped_majority_founds_again(sim)
    protections.found_without_everyone(monkeypatch)
    sim = Growing(5)
    with sim.world():
        assert wiped_majority_founds_again(sim)


def test_a_removed_node_disturbs_no_member() -> None:
    """It keeps asking, is refused, and causes no new term."""
    sim = Growing(6)
    with sim.world():
        sim.run_for(2)
        gone = sim.followers()[0]
        sim.changed(Remove(NodeId(gone.node_id)))
        leader, term = sim.leading(), sim.leading().term
        for power in (False, True):
            sim.crash(gone.node_id, power=power)
            sim.run_for(5)
        assert (sim.leading(), leader.term) == (leader, term)
        assert not gone.running.status().has_contact
        assert gone.term <= term
        dropped = [
            n.running.guard.dropped[Refusal.REMOVED]
            for n in sim.live()
            if n is not gone
        ]
        assert all(dropped)
    assert sim.invariants.violations == {}


def a_removal_taken_back(sim: Growing) -> bool:
    """Let a leader that is cut off remove the next leader; return whether all agree."""
    sim.run_for(2)
    stranded = sim.leading()
    sim.isolate(stranded)
    sim.run_for(0.04)
    target = sim.followers()[0]
    sim.change(Remove(NodeId(target.node_id)), stranded)
    sim.run_for(0.1)
    assert target.node_id in stranded.journal.configuration.removed
    others = [n for n in sim.live() if n not in (stranded, target)]
    for _ in range(20):  # Until it is the one that leads.
        sim.run_for(2)
        leads = [n for n in sim.live() if n.leads and n is not stranded]
        if leads == [target]:
            break
        if leads:
            sim.run_on(
                leads[0],
                lambda replica: replica.transfer(
                    NodeId(target.node_id), timeout_s=1, callback=lambda _o: None
                ),
            )
    assert target.leads
    assert others
    sim.reconnect()
    return sim.heal(seconds=5)


def test_a_removal_that_is_not_committed_is_taken_back_by_whom_it_would_have_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by the simulation: refused by it, a leader cannot correct a node's log."""
    sim = Growing(7)
    with sim.world():
        assert a_removal_taken_back(sim)
    assert sim.invariants.violations == {}
    protections.refuse_before_commit(monkeypatch)
    sim = Growing(7)
    with sim.world():
        assert not a_removal_taken_back(sim)


def test_a_change_that_is_cut_off_is_taken_back() -> None:
    sim = Growing(8)
    with sim.world():
        sim.run_for(2)
        stranded = sim.leading()
        sim.isolate(stranded)
        target = NodeId(sim.followers()[0].node_id)
        outcome = sim.change(Remove(target), stranded)
        sim.run_for(0.1)
        assert target not in stranded.journal.configuration.voters
        sim.run_for(3)
        for k in range(3):
            sim.propose(sim.leading(), f"r{k}", lambda k=k: call(f"r{k}"))
            sim.run_for(0.2)
        sim.reconnect()
        assert sim.heal(seconds=5)
        assert target in stranded.journal.configuration.voters
        assert isinstance(outcome[0], Exception)
        voters = {
            frozenset(n.running.engine.guard.campaign.voters()) | {n.node_id}
            for n in sim.live()
        }
        assert voters == {frozenset({"n1", "n2", "n3"})}
    assert sim.invariants.violations == {}


def test_a_leader_forgets_whom_it_fed_in_an_earlier_term() -> None:
    """
    It has fed a node that is no member any more, and leads again later.

    Were it to go on where it once left off, and that node's id the one of another
    change that was taken back, it could send what stands behind an entry that it
    has not.
    """
    sim = Growing(1)
    with sim.world():
        sim.run_for(2)
        first = sim.leading()
        sim.add(N4)
        sim.changed(Remove(N4))
        seen: set[str] = set()
        for _ in range(40):
            leader = sim.leading()
            if seen - {first.node_id} and leader is first:
                break
            seen.add(leader.node_id)
            rest = [each for each in sim.ids if each not in {leader.node_id, N4}]
            pairs = {(leader.node_id, each) for each in rest}
            sim.network.cut(pairs | {p[::-1] for p in pairs}, seconds=2.5, notice=0)
            sim.run_for(5)
        assert sim.leading() is first
        fed = {node.id for node in first.replica.engine._SyncObj__raftNextIndex}
        assert fed == {*sim.ids} - {N4, first.node_id}


def test_no_good_machine_is_removed_while_another_has_to_be_replaced() -> None:
    """Of three voters two would be left, and one of them does not come back."""
    founders = tuple(
        Member(node_id=NodeId(each), address=f"{each}:7301", role=MemberRole.VOTER)
        for each in ("n1", "n2", "n3")
    )
    world: Any = SimpleNamespace(statements=SimpleNamespace(signs=False))
    members = Memberships(world, random.Random(0), rate=1.0, founders=3, _added=9)
    members.configuration = Configuration(members=founders)

    def wanted() -> set[Change | None]:
        return {members._wanted() for _ in range(200)}

    assert wanted() == {None, *(Remove(each.node_id) for each in founders)}
    members.doubtful.add("n1")
    assert wanted() == {None, Remove(NodeId("n1"))}
