# SPDX-License-Identifier: Apache-2.0
"""Let the code end at a fault point, as a process that is killed there."""

import contextlib
from collections.abc import Iterator

from sparecode_node import fault_points
from sparecode_node.fault_points import Point
from tests.fault_points.strikes import Action, Arm


class Crash(BaseException):
    """The process has ended; no code that handles errors may handle it."""


@contextlib.contextmanager
def crash_at(point: Point, passes: int = 0) -> Iterator[None]:
    """
    Expect that what is done inside comes to the point, and ends there.

    *passes*: how often it comes there before, and goes on.
    """
    arm = Arm(point, Action.KILL, passes)

    def hook(reached: Point) -> None:
        if arm.is_due(reached):
            raise Crash(point.name)

    before = fault_points.install(hook)
    try:
        yield
    except Crash:
        return
    finally:
        fault_points.install(before)
    raise AssertionError(f"{point.name} was not reached")
