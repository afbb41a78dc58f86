# SPDX-License-Identifier: Apache-2.0
"""A primary whose clock differs from a quorum's stamps nothing, and hands over (T5)."""

import pytest

from sparecode_node.replication.errors import NotAppliedError
from tests.replication.recording_state import call
from tests.simulation.faults import Profile
from tests.simulation.protections import stamp_with_any_clock
from tests.simulation.scenarios import Scenario
from tests.simulation.seed_search import first_violation
from tests.simulation.test_directed import Script


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 5.0])
@pytest.mark.parametrize("seed", range(3))
def test_another_takes_over_from_a_primary_whose_clock_jumps(
    seed: int, seconds: float
) -> None:
    """(T5)."""
    sim = Script(seed)
    with sim.world():
        sim.run_for(2)
        wrong = sim.leading()
        sim.jump_clock(wrong.node_id, seconds)
        proposal = sim.propose(wrong, "given", lambda: call("given"))
        sim.run_for(3)
        leader = sim.leading()
        assert leader is not wrong
        assert not wrong.leads
        assert isinstance(proposal.outcomes[0], NotAppliedError)
        sim.propose(leader, "new", lambda: call("new"))
        sim.run_for(1)
        assert "new" in sim.invariants.acked
        assert abs(sim.invariants.applied_ms() / 1000 - leader.wall_s()) < 5
        term = leader.term
        sim.run_for(20)
        assert (sim.leading(), leader.term) == (leader, term)
        assert sim.heal()
        sim.check()
    assert sim.invariants.violations == {}


def test_a_replica_with_a_wrong_clock_disturbs_no_member() -> None:
    """(T5): it follows, it votes, it never leads."""
    sim = Script(4)
    with sim.world():
        sim.run_for(2)
        leader = sim.leading()
        wrong = next(node for node in sim.live() if node is not leader)
        sim.jump_clock(wrong.node_id, 86_400.0)
        sim.run_for(5)
        assert sim.leading() is leader
        sim.crash(leader.node_id, power=False)
        leader.restart_at = sim.now + 60
        sim.run_for(10)
        # Two clocks of three are left, and no node knows which of them is right.
        assert not any(node.leads for node in sim.live())
        wrong.set_clock(0.0)
        sim.run_for(3)
        sim.propose(sim.leading(), "new", lambda: call("new"))
        sim.run_for(1)
        assert "new" in sim.invariants.acked
        assert sim.heal()
        sim.check()
    assert sim.invariants.violations == {}


def test_no_clock_agrees_with_another_and_nothing_is_stamped() -> None:
    """(T5): until one of them is set."""
    sim = Script(5)
    with sim.world():
        sim.run_for(2)
        for k, node in enumerate(sim.live()):
            sim.jump_clock(node.node_id, 100.0 * k)
        sim.run_for(10)
        assert not any(node.leads for node in sim.live())
        sim.live()[1].set_clock(0.0)
        sim.run_for(3)
        assert sim.leading() in sim.live()[:2]
        assert sim.heal()
        sim.check()
    assert sim.invariants.violations == {}


def test_without_the_watch_a_wrong_clock_stamps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """(T5): the invariant has teeth."""
    stamp_with_any_clock(monkeypatch)
    result = first_violation(range(50), Scenario(profile=Profile.CLOCKS))
    assert result is not None
    assert "clock of a quorum" in result[1]
