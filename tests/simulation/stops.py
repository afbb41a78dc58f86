# SPDX-License-Identifier: Apache-2.0
"""The places where `replication/` stops its node, because it must not go on."""

import ast
import collections
from collections.abc import Iterator

BEGIN = "raise Fatal"


def is_stop(target: str) -> bool:
    """Return whether a line stops the node: then it has a reason of its own, or none."""
    return target.startswith(BEGIN)


def stops_in(source: str) -> dict[int, tuple[str, str]]:
    """
    Return the lines of a module that stop the node: each with its function and its text.

    Of equal lines in a function, each after the first one gets its number.
    """
    lines = [line.strip() for line in source.splitlines()]
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    result = {}
    for name, number in sorted(_raised(ast.parse(source), ""), key=lambda at: at[1]):
        text = lines[number - 1]
        counts[name, text] += 1
        again = counts[name, text]
        result[number] = name, text if again == 1 else f"{text} ({again})"
    return result


def _raised(node: ast.AST, name: str) -> Iterator[tuple[str, int]]:
    """Yield function and line of each `raise Fatal`, wherever it is in the tree."""
    for each in ast.iter_child_nodes(node):
        inner = name
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{name}.{each.name}".lstrip(".")
        if isinstance(each, ast.Raise) and ast.unparse(each).startswith(BEGIN):
            yield inner, each.lineno
        yield from _raised(each, inner)
