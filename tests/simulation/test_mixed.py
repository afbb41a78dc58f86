# SPDX-License-Identifier: Apache-2.0
"""Long runs keep every promise, whatever the mix of their seed."""

import contextlib
import random
from dataclasses import replace

from sparecode_node.statemachine.feature_level import NEWEST
from tests.simulation.comparisons import Comparison
from tests.simulation.fault_effects import Effect
from tests.simulation.nodes.mixed import LONG, Mix, MixedCluster
from tests.simulation.nodes.queue_bounds import BOUNDS
from tests.simulation.rotations import Rotations


def test_a_long_run_with_mixed_releases_keeps_every_promise() -> None:
    """It begins at the first feature level, and its queues and windows are small."""
    drawn = Mix.drawn(random.Random(1))
    mix = replace(drawn, seconds=2.0, members=0.0, upgrades=True, bounds=True)
    with contextlib.closing(MixedCluster(0, mix=mix)) as sim:
        sim.new_cluster = None
        sim.run()
        levels = {node.store.state.feature_level for node in sim.nodes.values()}
    assert sim.invariants.violations == {}
    assert len(sim.invariants.acked) > 50
    assert levels == {NEWEST}


def test_seeds_differ_in_what_they_are_about() -> None:
    mixes = [Mix.drawn(random.Random(seed)) for seed in range(20)]
    assert (
        {mix.bounds for mix in mixes}
        == {mix.upgrades for mix in mixes}
        == {True, False}
    )
    assert len({mix.link_kinds for mix in mixes}) > 10
    assert len({mix.log_entries for mix in mixes}) > 1


def test_every_fourth_seed_has_a_log_of_thousands_of_entries() -> None:
    mixes = [Mix.of_seed(seed, 3) for seed in range(8)]
    assert [seed for seed, mix in enumerate(mixes) if mix.is_long] == [0, 4]
    assert all(mix.log_entries > LONG for mix in mixes if mix.is_long)


def test_a_bound_is_smaller_than_in_production() -> None:
    """Each is set in the module that keeps it, under the name that it has there."""
    for module, bounds in BOUNDS.items():
        for name, bound in bounds.items():
            assert bound < vars(module)[name], name


def test_a_crowd_fills_queues_and_is_told_so() -> None:
    """Nothing that was refused is applied, and what was not counts once."""
    drawn = Mix.drawn(random.Random(1))
    calm: frozenset[str] = frozenset()
    mix = replace(drawn, seconds=2.0, members=0.0, crowd=200, crowd_rate=0.3)
    mix = replace(mix, bounds=True, link_kinds=calm, node_kinds=calm)
    with contextlib.closing(MixedCluster(0, mix=mix)) as sim:
        sim.new_cluster = None
        sim.run()
    assert sim.invariants.violations == {}
    for effect in (
        Effect.CROWD,
        Effect.CALLERS_FULL,
        Effect.FORWARDS_FULL,
        Effect.PROPOSALS_FULL,
        Effect.ENTRY_FULL,
        Effect.TOLD_OVERLOADED,
    ):
        assert sim.effects[effect], effect


def test_an_engine_is_held_up_while_its_loop_goes_on() -> None:
    """Its callers get answers in time, and the others go on without it."""
    drawn = Mix.drawn(random.Random(1))
    mix = replace(drawn, seconds=4.0, members=0.0, upgrades=False, crowd=0)
    with contextlib.closing(MixedCluster(0, mix=mix)) as sim:
        sim.new_cluster = None
        sim.faults.node_kinds = ["stall"]
        sim.faults._nodes = 0.2
        sim.run()
    assert sim.invariants.violations == {}
    assert sim.effects[Effect.STALL] > 3


def test_keys_are_rotated_on_whole_nodes() -> None:
    """Retired keys seal nothing any more, and every value opens."""
    drawn = Mix.drawn(random.Random(3))
    mix = replace(drawn, seconds=4.0, members=0.0, upgrades=False, crowd=0)
    with contextlib.closing(MixedCluster(3, mix=mix)) as sim:
        sim.new_cluster = None
        sim.rotations = Rotations(sim, random.Random(3), 0.04)
        sim.run()
    assert sim.invariants.violations == {}
    assert sim.effects[Effect.KEY_RETIRED]
    assert sim.invariants.comparisons[Comparison.OPENED]
