# SPDX-License-Identifier: Apache-2.0
"""A cluster is lost in some long runs, and a new one begins."""

import contextlib
import random
from dataclasses import replace

import pytest

from tests.simulation.comparisons import Comparison
from tests.simulation.fault_effects import Effect
from tests.simulation.nodes.mistakes import Mistake, Mistakes
from tests.simulation.nodes.mixed import Mix, MixedCluster, lost_cluster
from tests.simulation.nodes.new_clusters import NEW_ID, NewCluster

SECONDS = 4.0


@pytest.mark.parametrize("cause", ["recover", "restore"])
def test_a_new_cluster_counts_nothing_of_the_old_one(cause: str) -> None:
    drawn = Mix.drawn(random.Random(1))
    mix = replace(drawn, seconds=SECONDS, members=0.0, upgrades=False, crowd=0)
    with contextlib.closing(MixedCluster(1, mix=mix)) as sim:
        sim.new_cluster = NewCluster(sim, random.Random(1), cause)
        sim.run()
        clusters = {node.cluster_id for node in sim.live()}
        voters = sim.memberships.configuration.voters
        returned = [n for n in sim.nodes.values() if n.is_up() and n not in sim.live()]
    assert sim.invariants.violations == {}
    assert clusters == {NEW_ID}
    assert {"m1", "m2"} < voters
    assert len(voters) == 3
    assert returned
    comparisons = sim.invariants.comparisons
    assert comparisons[Comparison.OLD_MEMBER]
    assert comparisons[Comparison.SPENT_AGAIN]
    kept = Comparison.RECOVERED if cause == "recover" else Comparison.RESTORED
    assert comparisons[kept]


@pytest.mark.parametrize("seed", [26, 27])
def test_a_run_goes_on_whatever_is_late(seed: int) -> None:
    """A node that lags makes no backup yet; one that starts knows of no older copies."""
    with contextlib.closing(lost_cluster(seed, 3)) as sim:
        sim.run()
    assert sim.invariants.violations == {}


@pytest.mark.parametrize(
    ("kind", "effect"),
    [(Mistake.EMPTY, Effect.MAJORITY_EMPTY), (Mistake.BACK, Effect.MAJORITY_BACK)],
)
def test_nothing_comes_of_a_mistake_with_the_lost_machines(
    kind: Mistake, effect: Effect
) -> None:
    """Afterwards the survivor has all that it had, and its cluster works."""
    drawn = Mix.drawn(random.Random(1))
    mix = replace(drawn, seconds=SECONDS, members=0.0, upgrades=False, crowd=0)
    with contextlib.closing(MixedCluster(1, mix=mix)) as sim:
        sim.new_cluster = NewCluster(sim, random.Random(1), "recover")
        sim.new_cluster.mistakes = Mistakes(sim, random.Random(1), kind)
        sim.run()
    assert sim.invariants.violations == {}
    assert sim.effects[effect]
    assert sim.invariants.comparisons[Comparison.RECOVERED]


def test_half_of_the_long_runs_lose_their_cluster() -> None:
    with contextlib.closing(MixedCluster(1)) as sim:
        drawn = [NewCluster.drawn(sim, random.Random(seed)) for seed in range(100)]
    causes = {each.cause for each in drawn if each}
    assert causes == {"recover", "restore"}
    assert 30 < sum(map(bool, drawn)) < 70
