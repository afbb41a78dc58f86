# SPDX-License-Identifier: Apache-2.0
"""What a test does at a fault point: the same in simulated nodes and in real processes."""

import enum
from collections import Counter
from dataclasses import dataclass
from typing import TypeAlias

from sparecode_node.fault_points import Point


class Action(enum.Enum):
    """What happens when the point is reached. The value is what a person reads."""

    KILL = "killed"
    POWER = "power cut"
    ERROR = "error"
    DELAY = "delayed"


def actions_at(point: Point) -> tuple[Action, ...]:
    """Return what may happen at a point: an error only where the system may raise one."""
    if point.fails:
        return tuple(Action)
    return Action.KILL, Action.POWER, Action.DELAY


@dataclass
class Arm:
    """An action that one process takes at one point."""

    point: Point
    action: Action
    passes: int = 0
    """How often the point is reached before, and nothing happens."""

    def is_due(self, point: Point) -> bool:
        """Count a point that is reached; return whether the action is due."""
        if point is not self.point:
            return False
        self.passes -= 1
        return self.passes < 0


REACHED = "reached"
Strikes: TypeAlias = Counter[tuple[str, str]]
"""How often each point was reached, and each action taken at it: by their names."""


def reached(strikes: Strikes, point: Point) -> None:
    """Count that a point was reached."""
    strikes[point.name, REACHED] += 1


def struck(strikes: Strikes, point: Point, action: Action) -> None:
    """Count that an action was taken at a point."""
    strikes[point.name, action.name] += 1
