# SPDX-License-Identifier: Apache-2.0
"""The results page of the fault points: which run has struck which point, and how."""

import ast
from pathlib import Path
from typing import Any

from sparecode_node.fault_points import Point
from tests.fault_points.strikes import REACHED, Action, Strikes
from tests.results import FOLDER, keep, now_and_here, row

PAGE = FOLDER / "fault-points.md"

EXPLANATION = (
    "The product names the places at which a crash, a delay or an error has a meaning"
    " of its own (`sparecode_node/fault_points.py`). Runs kill the process there, cut"
    " the power, raise an error, or let time pass, and every check of the run must"
    " hold all the same. A node in production cannot be told to do so: only code in"
    " its process can. `tests/fault_points` fails if a point is in the code and neither a"
    " run below nor a directed test has acted at it."
)

WRITTEN_BY = (
    "Written by `make faults SERIES=points`, and by `make sim`, `make sim-nodes`,"
    " `make sim-disks` and `make sim-outbox` (from 20 schedules on); do not edit."
)
FROM_SEEDS = 20
"""Simulations of fewer schedules are not recorded."""
TESTS = (
    Path(__file__).with_name("test_crashes.py"),
    Path(__file__).with_name("test_segment_crashes.py"),
    Path(__file__).parents[1] / "statemachine" / "test_segment_removal.py",
    Path(__file__).parents[1] / "simulation" / "test_point_faults.py",
)


def record(kind: str, command: str, strikes: Strikes, verdict: str) -> None:
    """
    Put the strikes of a run on the page; the latest run of a kind counts.

    *verdict*: what its checks have found.
    """
    points: dict[str, dict[str, int]] = {}
    for (point, what), count in sorted(strikes.items()):
        points.setdefault(point, {})[what] = count
    numbers = {
        **now_and_here(),
        "command": command,
        "verdict": verdict,
        "points": points,
    }
    PAGE.write_text(page(keep(PAGE, kind, numbers)))


def unstruck(results: dict[str, Any]) -> set[Point]:
    """Return the points at which neither a run nor a directed test has acted."""
    return {
        point
        for point in Point
        if not any(_count(each, point) for each in results.values())
    } - directed()


def directed() -> set[Point]:
    """Return the points at which the directed tests act."""
    return {
        Point[node.attr]
        for path in TESTS
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "Point"
    }


def _count(run: dict[str, Any], point: Point) -> int:
    counts = run["points"].get(point.name, {})
    return sum(count for what, count in counts.items() if what != REACHED)


def page(results: dict[str, Any]) -> str:
    """Return the page."""
    runs, tested = sorted(results.items()), directed()
    lines = [
        "# Fault points",
        "",
        WRITTEN_BY,
        "",
        EXPLANATION,
        "",
        row("", *(kind for kind, _ in runs)),
        row("---", *("---:" for _ in runs)),
        row("command", *(f"`{run['command']}`" for _, run in runs)),
        row("date", *(run["date"] for _, run in runs)),
        row("commit", *(run["commit"] for _, run in runs)),
        row("verdict", *(run["verdict"] for _, run in runs)),
        row("points reached", *(len(run["points"]) for _, run in runs)),
        row(
            "points struck",
            *(sum(bool(_count(run, p)) for p in Point) for _, run in runs),
        ),
        *(
            row(action.value, *(f"{_total(run, action):,}" for _, run in runs))
            for action in Action
        ),
        "",
        "## Points",
        "",
        row("point", "when it is reached", *(kind for kind, _ in runs), "tests"),
        row("---", "---", *("---:" for _ in runs), "---"),
        *(
            row(
                point.name.lower().replace("_", " "),
                point.meaning,
                *(f"{_count(run, point):,}" for _, run in runs),
                "yes" if point in tested else "",
            )
            for point in Point
        ),
        "",
        "The numbers are actions at the point. The last column: a directed test acts there.",
    ]
    return "\n".join(lines) + "\n"


def _total(run: dict[str, Any], action: Action) -> int:
    return sum(counts.get(action.name, 0) for counts in run["points"].values())
