# SPDX-License-Identifier: Apache-2.0
"""
Count what runs of PySyncObj and what is ours: `python -m tests.simulation.inherited`.

Runs some seeds, records which lines of PySyncObj they reach, and counts statements: an
`if` counts once, and so does each statement in it. Puts both counts on the results page.
"""

import ast
import contextlib
import logging
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pysyncobj

import sparecode_node.replication
from tests.simulation import report
from tests.simulation.campaign import Campaign

SEEDS = 12
PACKAGE = Path(pysyncobj.__file__).parent
OURS = Path(sparecode_node.replication.__file__).parent
ROOMS = ("raft", "log", "replica", "snapshots")
CONSENSUS = "syncobj.py"
"""The module of PySyncObj that has terms, elections, the commit rule and the apply loop."""


def statements(tree: ast.AST) -> list[int]:
    """Return the line of each statement, without imports, docstrings and definitions."""
    return [line for _, line in _statements(tree, "")]


def _statements(tree: ast.AST, function: str) -> Iterator[tuple[str, int]]:
    """Yield the innermost function and the line of each statement."""
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in ast.iter_child_nodes(tree):
        is_doc = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        left_out = (*definitions, ast.Import, ast.ImportFrom)
        if isinstance(node, ast.stmt) and not is_doc and not isinstance(node, left_out):
            yield function, node.lineno
        inner = isinstance(node, definitions) and not isinstance(node, ast.ClassDef)
        yield from _statements(node, node.name if inner else function)  # type: ignore[attr-defined]


def reached_lines() -> dict[Path, set[int]]:
    """Return the lines of PySyncObj that the seeds reach."""
    reached: defaultdict[Path, set[int]] = defaultdict(set)
    known: dict[CodeType, Path | None] = {}

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if code not in known:
            path = Path(code.co_filename)
            known[code] = path if path.is_relative_to(PACKAGE) else None
        path = known[code]
        if path is None:
            return None
        if event == "line":
            reached[path].add(frame.f_lineno)
        return trace

    campaign = Campaign(recording=True)
    for seed in range(SEEDS):
        with contextlib.closing(campaign.cluster(seed)) as sim:
            sys.settrace(trace)
            try:
                sim.run()
            finally:
                sys.settrace(None)
    return reached


def inherited(reached: dict[Path, set[int]]) -> dict[str, Any]:
    """Return how much of PySyncObj the lines are, by its modules and functions."""
    everything = 0
    modules: dict[str, int] = {}
    functions: dict[str, int] = {}
    for path in sorted(PACKAGE.glob("*.py")):
        lines = reached.get(path, set())
        found = list(_statements(ast.parse(path.read_text()), ""))
        everything += len(found)
        ran = [function for function, line in found if line in lines]
        if ran:
            modules[path.name] = len(ran)
        if path.name == CONSENSUS:
            for function in ran:
                functions[function] = functions.get(function, 0) + 1
    functions.pop("", None)  # What an import of the module runs.
    return {"everything": everything, "modules": modules, "functions": functions}


def ours() -> dict[str, int]:
    """Return the number of our statements in each room."""
    return {
        room: sum(
            len(statements(ast.parse(path.read_text())))
            for path in (OURS / room).glob("*.py")
        )
        for room in ROOMS
    }


def main() -> None:
    """Count, print, and write the page."""
    logging.disable(logging.CRITICAL)
    theirs = inherited(reached_lines())
    numbers = {"seeds": SEEDS, **theirs, "ours": ours()}
    report.record_inherited(numbers)
    ran = sum(theirs["modules"].values())
    print(f"PySyncObj: {ran} of {theirs['everything']} statements run")  # noqa: T201
    for name, count in theirs["modules"].items():
        print(f"PySyncObj, {name}: {count}")  # noqa: T201
    for name, count in theirs["functions"].items():
        print(f"PySyncObj, {CONSENSUS}, {name}: {count}")  # noqa: T201
    for room, count in numbers["ours"].items():
        print(f"ours, replication/{room}: {count}")  # noqa: T201


if __name__ == "__main__":
    main()
