# SPDX-License-Identifier: Apache-2.0
"""
The product's fault points in the simulation: a seed draws points and actions.

The dice are the subject's own: a schedule in which no point acts runs as without them.
"""

import contextlib
import errno
import os
import random
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from sparecode_node import fault_points
from sparecode_node.fault_points import Point
from tests.fault_points.strikes import (
    REACHED,
    Action,
    Strikes,
    actions_at,
    reached,
    struck,
)
from tests.simulation.disk import Disk, Killed
from tests.simulation.fault_effects import Effect, Effects

SHARES = (0.0, 0.1, 0.4)
"""Parts of the points that act in a schedule."""
FIRES = 0.25
"""How often such a point acts when it is reached first; later, ever less often."""
FREQUENT = 20
"""A point that was reached so often acts half as often."""
DELAYS_S = (0.02, 0.1, 0.4)
DELAYED_EACH_S = 1.0
"""A machine is not delayed more often: otherwise its delays add up to one of minutes."""

EFFECTS = {
    Action.KILL: Effect.POINT_KILL,
    Action.POWER: Effect.POINT_POWER,
    Action.ERROR: Effect.POINT_ERROR,
    Action.DELAY: Effect.POINT_DELAY,
}


class Machine(Protocol):
    """A simulated machine."""

    node_id: str
    disk: Disk
    store: Any


class Target(Protocol):
    """The cluster."""

    now: float
    trace: Any
    effects: Effects

    def machine_at_work(self) -> Machine | None:
        """Return the machine whose code runs now; None: the simulation's own does."""

    def kill_at_work(self, machine: Any, *, power: bool) -> None:
        """Note how the process dies that `Killed`, raised after this, ends."""

    def delay_at_work(self, machine: Any, seconds: float) -> None:
        """Let the machine do nothing for a while."""


class PointFaults:
    """Acts where points are reached, on the machines that may have faults now."""

    def __init__(
        self, target: Target, dice: random.Random, share: float | None = None
    ) -> None:
        """*share*: instead of a drawn one."""
        self._target = target
        self._dice = dice
        share = dice.choice(SHARES) if share is None else share
        self._active = {point for point in Point if dice.random() < share}
        self._fires = FIRES
        self._allowed: frozenset[str] = frozenset()
        self._delayed_at: dict[str, float] = {}
        self.strikes = Strikes()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Let the product's points call this one."""
        before = fault_points.install(self._reach)
        try:
            yield
        finally:
            fault_points.install(before)

    def choose(self, points: Iterable[Point], fires: float) -> None:
        """Let these points act in this schedule, and so often, instead of those drawn."""
        self._active = set(points)
        self._fires = fires

    def allow(self, machines: Iterable[str]) -> None:
        """From now on, act on these machines alone."""
        self._allowed = frozenset(machines)

    def _reach(self, point: Point) -> None:
        machine = self._target.machine_at_work()
        if machine is None:
            return
        reached(self.strikes, point)
        if point not in self._active or machine.node_id not in self._allowed:
            return
        often = self.strikes[point.name, REACHED] / FREQUENT
        if self._dice.random() < self._fires / (1 + often):
            action = self._dice.choice(actions_at(point))
            if action is not Action.DELAY or self._may_be_delayed(machine):
                self._strike(machine, point, action)

    def _may_be_delayed(self, machine: Machine) -> bool:
        before = self._delayed_at.get(machine.node_id, float("-inf"))
        if self._target.now - before < DELAYED_EACH_S:
            return False
        self._delayed_at[machine.node_id] = self._target.now
        return True

    def _strike(self, machine: Machine, point: Point, action: Action) -> None:
        target = self._target
        struck(self.strikes, point, action)
        target.effects[EFFECTS[action]] += 1
        target.trace(target.now, f"{machine.node_id} {action.value} at {point.name}")
        if action is Action.ERROR:
            machine.disk.hurt = True
            raise OSError(errno.EIO, os.strerror(errno.EIO), point.name)
        if action is Action.DELAY:
            target.delay_at_work(machine, self._dice.choice(DELAYS_S))
            return
        machine.store.die()
        target.kill_at_work(machine, power=action is Action.POWER)
        raise Killed(machine.node_id)
