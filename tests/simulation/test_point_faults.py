# SPDX-License-Identifier: Apache-2.0
"""Fault points in the simulation: seeds act at them, and every promise holds."""

import contextlib
import random
from dataclasses import replace

import pytest

from sparecode_node.fault_points import Point
from tests.fault_points.strikes import REACHED, Action, Strikes
from tests.simulation.campaign import Campaign
from tests.simulation.cluster import SimCluster
from tests.simulation.faults import Profile
from tests.simulation.kinds import Kind
from tests.simulation.nodes.cluster import NodesCluster
from tests.simulation.point_faults import PointFaults
from tests.simulation.scenarios import Scenario

ALL = 1.0


def let_all_act(sim: SimCluster | NodesCluster, seed: int) -> None:
    """Let every point act in a schedule."""
    sim.points = PointFaults(sim, random.Random(f"{seed} points"), ALL)


def test_engines_keep_every_promise() -> None:
    strikes = Strikes()
    for seed in range(6):
        sim = SimCluster(seed, Scenario())
        let_all_act(sim, seed)
        sim.run()
        assert sim.invariants.violations == {}
        strikes.update(sim.points.strikes)
    actions = {what for _, what in strikes} - {REACHED}
    assert actions == {action.name for action in Action}
    assert len({point for point, what in strikes if what != REACHED}) >= 10


@pytest.mark.parametrize("seed", range(2))
def test_whole_nodes_keep_every_promise(seed: int) -> None:
    sim = NodesCluster(seed)
    let_all_act(sim, seed)
    sim.run()
    sim.close()
    assert sim.invariants.violations == {}
    struck = {point for point, what in sim.points.strikes if what != REACHED}
    assert len(struck) > 3


class OneStrike(PointFaults):
    """Act once, when the point is reached first on a machine that may have faults."""

    def __init__(self, sim: SimCluster | NodesCluster, point: Point, action: Action):
        super().__init__(sim, random.Random(0), 0.0)
        self._point, self._action = point, action

    def _reach(self, point: Point) -> None:
        machine = self._target.machine_at_work()
        if machine is None or machine.node_id not in self._allowed:
            return
        if point is self._point and not self.strikes:
            self._strike(machine, point, self._action)


ENGINES = Campaign()
MEMBERS = Campaign(profile=Profile.MEMBERS)
WHOLE = Campaign(kind=Kind.WHOLE)
SEEDS_MAX = 30
"""A change of the code moves a strike to another seed, not far away."""


@pytest.mark.parametrize(
    ("point", "action", "campaign", "first"),
    [
        (Point.ENTRIES_CUT, Action.POWER, ENGINES, 2),
        (Point.SNAPSHOT_COMPLETE, Action.ERROR, ENGINES, 24),
        (Point.INSTALL, Action.POWER, ENGINES, 24),
        (Point.INSTALLED, Action.KILL, ENGINES, 24),
        (Point.CALLED_UP, Action.KILL, MEMBERS, 14),
        *(
            pytest.param(*each, marks=pytest.mark.long)
            for each in (
                (Point.INSTALL_COPY, Action.KILL, ENGINES, 24),
                (Point.INSTALLED, Action.POWER, ENGINES, 24),
                (Point.INSTALL_REBASED, Action.POWER, ENGINES, 24),
                (Point.SNAPSHOT_LENT, Action.KILL, WHOLE, 1),
            )
        ),
    ],
    ids=lambda each: each.name.lower() if isinstance(each, Point) else None,
)
def test_a_strike_at_a_rare_point_breaks_no_promise(
    point: Point, action: Action, campaign: Campaign, first: int
) -> None:
    """Few schedules reach these, and most of those while everything heals."""
    for seed in range(first, first + SEEDS_MAX):
        with contextlib.closing(campaign.cluster(seed)) as sim:
            sim.points = OneStrike(sim, point, action)
            sim.run()
        assert sim.invariants.violations == {}
        if sim.points.strikes[point.name, action.name]:
            return
    pytest.fail("no schedule has reached the point")


def test_a_schedule_without_strikes_is_as_it_was() -> None:
    """Old seeds keep their meaning: the dice of the points are their own."""
    runs = []
    for dice in ("some dice", "other dice"):
        sim = SimCluster(11, replace(Scenario(), seconds=3.0))
        sim.points = PointFaults(sim, random.Random(dice), 0.0)
        sim.run()
        runs.append((sim.effects, sim.invariants.applied, sim.now))
    assert runs[0] == runs[1]
