# SPDX-License-Identifier: Apache-2.0
"""Keys are rotated in some runs, and nothing that was sealed is lost."""

import contextlib
import random

from tests.simulation.codes import CodesCluster, scenario
from tests.simulation.comparisons import Comparison
from tests.simulation.files.cluster import FilesCluster
from tests.simulation.outbox import OutboxCluster
from tests.simulation.rotations import SHARE, Rotations
from tests.simulation.work import machine_store

SEED = 22
"""Two rotations in it are done while the faults go on."""


def test_a_run_rotates_keys_and_retires_the_old_ones() -> None:
    with contextlib.closing(CodesCluster(SEED, scenario(3))) as sim:
        sim.run()
        members = [sim.nodes[node_id] for node_id in sim.memberships.belonging()]
        keys = [machine_store(node).keys() for node in members]
    assert sim.invariants.violations == {}
    assert all(each.retired and each.active > 1 for each in keys)
    comparisons = sim.invariants.comparisons
    assert comparisons[Comparison.RETIRED]
    assert comparisons[Comparison.OPENED]
    assert comparisons[Comparison.WORKS]


def test_other_runs_rotate_none() -> None:
    world = CodesCluster(SEED, scenario(3))
    with contextlib.closing(world):
        drawn = [Rotations.drawn(world, random.Random(seed)) for seed in range(400)]
    assert 0.5 * SHARE < sum(map(bool, drawn)) / len(drawn) < 1.5 * SHARE
    assert not OutboxCluster.rotates
    assert not FilesCluster.rotates
