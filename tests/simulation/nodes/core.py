# SPDX-License-Identifier: Apache-2.0
"""
The core: a majority of the nodes, which is left alone while faults go on for the others.

From then on its callers must get answers within a bound (as in TigerBeetle's VOPR).
"""

from typing import Any

from tests.simulation.comparisons import Comparison
from tests.simulation.fault_effects import Effect

CORE_S = 7.0
"""Simulated time in which the faults of the others go on, and the core is judged."""

LEADER_S = 2.0
"""Before the core is drawn, a cluster without a primary may elect one for so long."""

PROBE_EACH_S = 0.1
PROBE_S = 0.5
"""A probe that takes longer is no answer; another one has begun by then."""


class Core:
    """The core of one run."""

    def __init__(self, world: Any, step_s: float) -> None:
        """Choose it: in three of five runs it is without the primary."""
        self._world = world
        self._step_s = step_s
        leader = self._leader()
        size = len(world.ids) // 2 + 1
        others = [i for i in world.ids if leader is None or i != leader.node_id]
        without_leader = world.rng.random() < 0.6
        pool = others if without_leader and len(others) >= size else world.ids
        self._ids = sorted(world.rng.sample(pool, size))
        self._outside = [i for i in world.ids if i not in self._ids]
        self._primary_outside = (
            leader if leader and leader.node_id in self._outside else None
        )

    def _leader(self) -> Any:
        """Return the primary, and wait for one for a while: else it is in no core."""
        world, end = self._world, self._world.now + LEADER_S
        while (leader := world.leader()) is None and world.now < end:
            world.step()
        return leader

    def leave_alone(self) -> None:
        """Let faults go on for a minority, and see that the others go on working."""
        world, outside = self._world, self._outside
        world.trace(world.now, f"{self._ids} are left alone")
        world.points.allow(outside)
        primary = self._primary_outside
        was_up = primary is not None and primary.is_up()
        are_away = world.fetches.take_away(outside)
        self._mend()
        for node_id in outside:
            if world.rng.random() < 0.7 and not are_away:
                node, power = world.nodes[node_id], world.rng.random() < 0.5
                world.stop(node, power=power, cause="k")
        is_lost = primary is not None and was_up and not primary.is_up()
        world.effects[Effect.CORE_PRIMARY_KILLED] += is_lost
        while self._waits_for_disks():
            world.step()
        world.bounds.begin(world.now, self._ids)
        next_at = world.now
        for _ in range(round(CORE_S / self._step_s)):
            if not are_away:
                world.faults.act(outside, core=self._ids)
            if world.now >= next_at:
                next_at += PROBE_EACH_S
                self._probe()
            if world.rng.random() < 0.2:
                world.callers()
            world.step()
            self._see_answers()
        if are_away:
            world.points.allow(())
            world.fetches.come_back(outside)

    def _mend(self) -> None:
        """End the faults of the core; in half of the runs all its links die at once."""
        world = self._world
        for node_id in self._ids:
            world.faults.mend(world.nodes[node_id])
        world.faults.mend_between(self._ids)
        world.effects[Effect.CORE] += 1
        world.effects[Effect.CORE_WITHOUT_PRIMARY] += self._primary_outside is not None
        if world.rng.random() < 0.5:
            world.effects[Effect.CORE_SILENT] += 1
            world.faults.silence(self._ids)

    def _waits_for_disks(self) -> bool:
        """Return whether an engine of the core is in a sync that began with a bad disk."""
        engines = (self._world.nodes[node_id].engine_thread for node_id in self._ids)
        return any(engine is not None and engine.is_busy for engine in engines)

    def _probe(self) -> None:
        world = self._world
        for node_id in self._ids:
            node = world.nodes[node_id]
            if node.is_up() and node.replica is not None:
                asked, read = world.probe(node, PROBE_S), world.read(node, PROBE_S)
                world.bounds.asked(node_id, asked, read)

    def _see_answers(self) -> None:
        world = self._world
        replicators = (world.nodes[node_id].replicator for node_id in self._ids)
        # The core is a bare majority: none of it can write without the one that fetches.
        if any(each and each.replica_status.snapshot_source for each in replicators):
            for node_id in self._ids:
                world.bounds.excuse(node_id, world.now)
        comparisons = world.invariants.comparisons
        comparisons[Comparison.CORE] += world.bounds.take_answers(world.now)
        world.bounds.check(world.invariants, world.now, world.describe)
