# SPDX-License-Identifier: Apache-2.0
"""A machine that returns as an older copy of itself, by script and at random."""

import pytest

from sparecode_node.replication.raft.rollback import Rollbacks
from tests.replication.recording_state import call
from tests.simulation.cluster import SimCluster
from tests.simulation.faults import Profile
from tests.simulation.rollbacks import copy_of
from tests.simulation.scenarios import Scenario
from tests.simulation.test_memberships import Growing


def keep_every_promise(_self: object, _seen: object, _hello: object, **_: bool) -> bool:
    """Be what accepts every node that has the right journal."""
    return True


def an_older_copy_elects(sim: Growing) -> bool:
    """Put one of two that had an entry back; return whether the third leads without it."""
    sim.run_for(3)
    leader = sim.leading()
    copied, behind = sim.followers()
    copy = copy_of(copied)
    sim.propose(leader, "known to all", lambda: call("known to all"))
    sim.run_for(2)
    sim.isolate(behind)
    kept = sim.propose(leader, "kept", lambda: call("kept"))
    sim.run_for(0.3)
    assert not isinstance(kept.outcomes[0], Exception)
    sim.put_back(copied, copy)
    sim.crash(leader.node_id, power=False)
    leader.restart_at = None
    sim.reconnect()
    sim.run_for(6)
    return any(node.leads for node in sim.live())


def test_an_older_copy_does_not_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has forgotten what it acknowledged, and the member that asks never had it."""
    sim = Growing(4)
    with sim.world():
        assert not an_older_copy_elects(sim)
    monkeypatch.setattr(Rollbacks, "_fits", keep_every_promise)
    sim = Growing(4)
    with sim.world():
        assert an_older_copy_elects(sim)
        assert "leader completeness" in sim.invariants.violations


def a_majority_of_older_copies_goes_on(sim: Growing) -> bool:
    """Put two of three back at once; return whether they lead without the third."""
    sim.run_for(3)
    kept = sim.leading()
    rest = sim.followers()
    copies = [copy_of(node) for node in rest]
    sim.run_for(0.1)
    written = sim.propose(kept, "kept", lambda: call("kept"))
    sim.run_for(2)
    assert not isinstance(written.outcomes[0], Exception)
    for node, copy in zip(rest, copies, strict=True):
        sim.put_back(node, copy)
    sim.run_for(6)
    return any(node.leads for node in sim.live())


def test_a_majority_of_older_copies_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would accept each other; the member that has not gone back fences both."""
    sim = Growing(5)
    with sim.world():
        assert not a_majority_of_older_copies_goes_on(sim)
        fenced = [n for n in sim.live() if n.running.status().refused_by]
        assert len(fenced) == 2
    monkeypatch.setattr(Rollbacks, "_fits", keep_every_promise)
    sim = Growing(5)
    with sim.world():
        assert a_majority_of_older_copies_goes_on(sim)


@pytest.mark.parametrize("seed", range(4))
def test_disks_that_go_back_at_random_break_no_promise(seed: int) -> None:
    sim = SimCluster(seed, Scenario(profile=Profile.MEMBERS, seconds=9))
    sim.run()
    assert sim.invariants.violations == {}
