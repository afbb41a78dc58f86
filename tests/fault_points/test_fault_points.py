# SPDX-License-Identifier: Apache-2.0
"""The fault points: each is used, none can be turned on in production, all were struck."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparecode_node
from sparecode_node import fault_points
from sparecode_node.fault_points import Point
from tests.fault_points import record
from tests.fault_points.strikes import Action, Arm, actions_at

PRODUCT = Path(sparecode_node.__file__).parent
MODULE = PRODUCT / "fault_points.py"


def product_trees() -> Iterator[tuple[Path, ast.Module]]:
    """Yield the modules of the product, except the one with the points."""
    for path in sorted(PRODUCT.rglob("*.py")):
        if path != MODULE:
            yield path, ast.parse(path.read_text())


def test_each_point_is_in_the_code() -> None:
    """A point that no code reaches would be on the page, and show nothing."""
    used: set[str] = set()
    for _, tree in product_trees():
        for node in ast.walk(tree):
            match node:
                case ast.Call(
                    func=ast.Name(id="reach"),
                    args=[ast.Attribute(value=ast.Name(id="Point"), attr=name)],
                ):
                    used.add(name)
                case ast.Call(func=ast.Name(id="reach")):
                    raise AssertionError("a point is named by another expression")
    assert used == {point.name for point in Point}


def test_no_module_of_the_product_installs_a_hook() -> None:
    """It imports two names, and the module itself reads nothing from outside."""
    for path, tree in product_trees():
        for node in ast.walk(tree):
            match node:
                case ast.ImportFrom(module="sparecode_node.fault_points", names=names):
                    assert {n.name for n in names} == {"Point", "reach"}, path
                case ast.ImportFrom(module="sparecode_node", names=names):
                    assert "fault_points" not in {n.name for n in names}, path
                case ast.Import(names=names):
                    assert not any("fault_points" in n.name for n in names), path
                case ast.Attribute(attr="fault_points"):
                    raise AssertionError(path)
                case ast.Constant(value="sparecode_node.fault_points"):
                    raise AssertionError(path)
    imports = {
        node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(MODULE.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imports == {"enum", "collections.abc", "typing"}


def test_no_variable_of_a_campaign_installs_a_hook() -> None:
    """The variables that campaigns set mean nothing to a node without the campaign's code."""
    names = ("POINTS", "POINT", "CLOCK", "SEGMENT_EVENTS")
    variables = {f"SPARECODE_FAULTS_{name}": "/dev/zero" for name in names}
    look = (
        "import sparecode_node.__main__, sparecode_node.fault_points as points;"
        "print(points._hook)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", look],
        env={**environment, "SPARECODE_TESTING": "1", **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "None"


def test_a_hook_gets_the_point_and_may_raise() -> None:
    seen: list[Point] = []

    def hook(point: Point) -> None:
        seen.append(point)
        raise OSError(point.name)

    before = fault_points.install(hook)
    try:
        with pytest.raises(OSError, match="RING_WRITE"):
            fault_points.reach(Point.RING_WRITE)
    finally:
        fault_points.install(before)
    fault_points.reach(Point.RING_WRITE)
    assert seen == [Point.RING_WRITE]


def test_an_arm_acts_once_its_point_was_passed_often_enough() -> None:
    arm = Arm(Point.APPLY, Action.KILL, passes=1)
    due = [arm.is_due(p) for p in (Point.APPLY, Point.ANSWER, Point.APPLY)]
    assert due == [False, False, True]


def test_errors_occur_only_where_the_system_raises_them() -> None:
    assert Action.ERROR in actions_at(Point.JOURNAL_SYNC)
    assert Action.ERROR not in actions_at(Point.ANSWER)


def test_a_run_or_a_directed_test_has_struck_each_point() -> None:
    results = json.loads(record.PAGE.with_suffix(".json").read_text())
    assert not record.unstruck(results)


def test_the_page_in_the_tree_matches_its_numbers() -> None:
    results = json.loads(record.PAGE.with_suffix(".json").read_text())
    assert record.PAGE.read_text() == record.page(results)


def test_a_point_that_was_reached_alone_counts_as_not_struck() -> None:
    point = Point.APPLY.name
    one = {"points": {point: {"reached": 7}}}
    other = {"points": {point: {"reached": 7, "KILL": 1}}}
    assert Point.APPLY in record.unstruck({"one": one})
    assert Point.APPLY not in record.unstruck({"one": one, "other": other})
