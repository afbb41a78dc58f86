# SPDX-License-Identifier: Apache-2.0
"""
Random faults, seeded: the promise holds, and without a protection it does not.

An acknowledged change is never lost, and a node that cannot know says so.
"""

from collections.abc import Callable

import pytest

from tests.simulation.cluster import SimCluster
from tests.simulation.fault_effects import Effect
from tests.simulation.faults import Profile
from tests.simulation.protections import FOUND_AT_RANDOM
from tests.simulation.scenarios import Scenario
from tests.simulation.seed_search import first_violation


@pytest.mark.parametrize("seed", range(20))
def test_three_nodes_keep_every_promise(seed: int) -> None:
    sim = SimCluster(seed, Scenario(nodes=3))
    sim.run()
    assert sim.invariants.violations == {}


@pytest.mark.parametrize("seed", range(10))
def test_five_nodes_keep_every_promise(seed: int) -> None:
    sim = SimCluster(seed, Scenario(nodes=5))
    sim.run()
    assert sim.invariants.violations == {}


def test_faults_strike_and_work_is_done_all_the_same() -> None:
    """A simulation in which nothing happens would prove nothing."""
    sims = [SimCluster(seed, Scenario(profile=Profile.POWER)) for seed in range(8)]
    for sim in sims:
        sim.run()
        assert sim.invariants.acked
    assert sum(len(sim.invariants.acked) for sim in sims) > 30
    assert sum(sim.effects[Effect.KILL] for sim in sims)
    assert sum(sim.effects[Effect.POWER_LOSS] for sim in sims)
    assert sum(len(sim.invariants.leaders) for sim in sims) > 6


def test_a_seed_is_a_run() -> None:
    runs = []
    for _ in range(2):
        sim = SimCluster(11, Scenario())
        sim.run()
        runs.append(
            (sim.effects, sim.invariants.applied, sim.invariants.acked, sim.now)
        )
    assert runs[0] == runs[1]


@pytest.mark.parametrize("without", FOUND_AT_RANDOM, ids=lambda f: f.__name__)
def test_a_missing_protection_is_found(
    without: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The invariants have teeth: each of these loses what was acknowledged."""
    without(monkeypatch)
    result = first_violation(range(300), Scenario(profile=Profile.POWER))
    assert result is not None
