# SPDX-License-Identifier: Apache-2.0
"""
Count what runs of PySyncObj and what is ours: `python -m tests.simulation.inherited`.

Runs some seeds, records which lines of PySyncObj they reach, and counts statements: an
`if` counts once, and so does each statement in it.
"""

import ast
import contextlib
import logging
import sys
from collections import defaultdict
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pysyncobj

import sparecode_node.replication
from tests.simulation.campaign import Campaign

SEEDS = 12
PACKAGE = Path(pysyncobj.__file__).parent
OURS = Path(sparecode_node.replication.__file__).parent
ROOMS = ("raft", "log", "snapshots", "replica")


def statements(tree: ast.AST, *, constructors: bool = True) -> list[int]:
    """Return the line of each statement, without docstrings and definitions."""
    left_out = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    imports = (ast.Import, ast.ImportFrom)
    lines: list[int] = []
    for node in ast.iter_child_nodes(tree):
        is_doc = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        counts = isinstance(node, ast.stmt) and not is_doc
        if counts and not isinstance(node, (*left_out, *imports)):
            lines.append(node.lineno)
        if constructors or getattr(node, "name", "") != "__init__":
            lines += statements(node, constructors=constructors)
    return lines


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


def main() -> None:
    """Print both counts."""
    logging.disable(logging.CRITICAL)
    reached, ran, methods, everything = reached_lines(), 0, 0, 0
    for path in sorted(PACKAGE.glob("*.py")):
        tree, lines = ast.parse(path.read_text()), reached.get(path, set())
        every = statements(tree)
        everything += len(every)
        ran += sum(line in lines for line in every)
        methods += sum(line in lines for line in statements(tree, constructors=False))
    print(f"PySyncObj: {ran} of {everything} statements run")  # noqa: T201
    print(f"PySyncObj: {methods} of them outside of constructors")  # noqa: T201
    for room in ROOMS:
        count = sum(
            len(statements(ast.parse(path.read_text())))
            for path in (OURS / room).glob("*.py")
        )
        print(f"ours, replication/{room}: {count}")  # noqa: T201


if __name__ == "__main__":
    main()
