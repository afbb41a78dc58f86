# SPDX-License-Identifier: Apache-2.0
"""Long runs keep every promise, whatever the mix of their seed."""

import contextlib
import random
from dataclasses import replace

from sparecode_node.statemachine.feature_level import NEWEST
from tests.simulation.fault_effects import Effect
from tests.simulation.nodes.mixed import BOUNDS, Mix, MixedCluster


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
    assert all(bound > 1 for bound in BOUNDS.values())


def test_an_engine_is_held_up_while_its_loop_goes_on() -> None:
    """Its callers get answers in time, and the others go on without it."""
    drawn = Mix.drawn(random.Random(1))
    mix = replace(drawn, seconds=4.0, members=0.0, upgrades=False, crowd=0)
    with contextlib.closing(MixedCluster(0, mix=mix)) as sim:
        sim.new_cluster = None
        sim.faults.node_kinds = ["stall"]
        sim.faults._nodes = 0.1
        sim.run()
    assert sim.invariants.violations == {}
    assert sim.effects[Effect.STALL] > 3
