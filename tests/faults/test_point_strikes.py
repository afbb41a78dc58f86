# SPDX-License-Identifier: Apache-2.0
"""A process of a campaign acts at the fault point that is armed for it, once."""

import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import cast

import pytest
from local_cluster.cluster import LocalNode

from sparecode_node.fault_points import Point
from tests.fault_points.strikes import REACHED, Action, actions_at
from tests.faults import clocks
from tests.faults.armed_points import ArmedPoints
from tests.faults.point_strikes import (
    DEATHS,
    ELSEWHERE,
    FIRST,
    POINTS,
    SEGMENTS,
    acts,
)

PROGRAM = """
from sparecode_node.fault_points import Point, reach
for point in (Point.APPLY, Point.ANSWER, Point.ANSWER):
    try:
        reach(point)
    except OSError as error:
        print(error.filename)
print("done")
"""
DEADLINE_S = 60


def started(armed: ArmedPoints, folder: Path, place: str) -> "subprocess.Popen[str]":
    """Start a program that reaches two points, as a node of a campaign."""
    node = SimpleNamespace(environment=dict(os.environ), node_id=place)
    clocks.NodeClock(cast("LocalNode", node), folder)
    armed.equip(cast("LocalNode", node), place)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=node.environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_kill_ends_the_process_at_the_point(tmp_path: Path) -> None:
    armed = ArmedPoints(tmp_path)
    armed.arm(Point.ANSWER, Action.KILL)
    process = started(armed, tmp_path, "n1")
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == -signal.SIGKILL
    assert "done" not in output
    (hit,) = armed.hits()
    assert (hit.place, hit.pid) == ("n1", process.pid)
    assert armed.strikes() == {("APPLY", REACHED): 1, ("ANSWER", REACHED): 1} | {
        ("ANSWER", "KILL"): 1
    }


def test_an_error_is_raised_once(tmp_path: Path) -> None:
    armed = ArmedPoints(tmp_path)
    armed.arm(Point.ANSWER, Action.ERROR)
    output, _ = started(armed, tmp_path, "n1").communicate(timeout=DEADLINE_S)
    assert output.split() == ["ANSWER", "done"]


def test_before_a_power_cut_the_process_stands_still(tmp_path: Path) -> None:
    armed = ArmedPoints(tmp_path)
    armed.arm(Point.ANSWER, Action.POWER)
    process = started(armed, tmp_path, "n1")
    try:
        assert armed.wait(0, DEADLINE_S) is not None
        stat, deadline = Path(f"/proc/{process.pid}/stat"), time.monotonic() + 60
        while stat.read_text().rpartition(") ")[2][0] != "T":
            assert time.monotonic() < deadline
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


@pytest.mark.parametrize("place", ["n2", ""])
def test_a_point_armed_for_another_node_or_disarmed_does_nothing(
    tmp_path: Path, place: str
) -> None:
    armed = ArmedPoints(tmp_path)
    armed.arm(Point.ANSWER, Action.KILL, place)
    if not place:
        armed.disarm()
    process = started(armed, tmp_path, "n1")
    output, _ = process.communicate(timeout=DEADLINE_S)
    assert output.split() == ["done"]
    assert armed.hits() == []


def test_every_beginning_of_a_name_names_a_point() -> None:
    for beginning in (*ELSEWHERE, *FIRST):
        assert any(point.name.startswith(beginning) for point in Point), beginning
    assert len(POINTS) > 50


def test_segments_are_killed_and_lose_power_before_any_point_returns() -> None:
    """One strike in a run, of one kind, shows little of a step."""
    segments = [each for each in POINTS if each.name.startswith(SEGMENTS)]
    assert len(segments) == 6
    one_round = list(islice(acts(Random(1)), len(POINTS) + 2 * len(segments)))
    assert {point for point, _ in one_round} == set(POINTS)
    for each in segments:
        kill, power, other = [action for point, action in one_round if point is each]
        assert (kill, power) == DEATHS
        assert other in actions_at(each)
        assert other not in DEATHS
    first = sum(each.name.startswith(FIRST) for each in POINTS) + 2 * len(segments)
    assert all(point.name.startswith(FIRST) for point, _ in one_round[:first])
