# SPDX-License-Identifier: Apache-2.0
"""Reasons why no seed enters a function are about code and tests that are there."""

import ast
import re

import pytest

from tests.simulation import reached
from tests.simulation.branches import FOLDER, ROOT
from tests.simulation.reached import (
    BRANCHES,
    REASONS,
    needless,
    reason_for,
    reason_for_branch,
)
from tests.simulation.scope import SCOPE


def functions(module: str) -> set[str]:
    """Return the qualified names of the functions and methods in a module."""
    tree = ast.parse((ROOT / FOLDER / module).read_text())
    names = {
        n.name
        for n in tree.body
        if not isinstance(n, ast.ClassDef)
        if hasattr(n, "name")
    }
    for each in tree.body:
        if isinstance(each, ast.ClassDef):
            names |= {f"{each.name}.{n.name}" for n in each.body if hasattr(n, "name")}
    return names


@pytest.mark.parametrize("key", [*REASONS, *BRANCHES])
def test_a_reason_is_about_code_that_is_there(key: str) -> None:
    module, _, name = key.partition(": ")
    name, _, target = name.partition(" -> ")
    lines = (ROOT / FOLDER / module).read_text() if target else ""
    assert target in lines
    assert (ROOT / FOLDER / module).exists()
    known = {*functions(module), "the module itself"} if name else {""}
    inside = any(name.startswith(f"{each}.") for each in known)
    assert inside or name.partition("@")[0] in known


@pytest.mark.parametrize(
    "reason", [*sorted({*REASONS.values(), *BRANCHES.values()}), SCOPE]
)
def test_a_reason_names_tests_that_are_there(reason: str) -> None:
    for path in re.findall(r"`(tests/[^`]+)`", reason):
        assert (ROOT / path).exists()


def test_a_reason_covers_what_is_inside_of_a_function() -> None:
    stop = "links/transport.py: PeerTransport.stop"
    assert reason_for("links/transport.py", "PeerTransport.stop.end") == REASONS[stop]
    assert reason_for("raft/sender.py", "Sender.send") is None


def test_a_branch_has_its_own_reason_or_that_of_its_function() -> None:
    known = reason_for_branch("codec.py", "_parse", "return None")
    assert known == BRANCHES["codec.py: _parse"]
    assert reason_for_branch("raft/sender.py", "Sender.send_all", "return") is None
    assert reason_for_branch("links/limits.py", "Limits.take", "return") is None


def test_a_stop_has_no_reason_but_its_own() -> None:
    """A new one must be looked at, even in a function that has a reason."""
    assert reason_for_branch("codec.py", "_parse", "raise Fatal(") is None
    judge = "FollowerLog.judge", "raise Fatal("
    own = BRANCHES["raft/follower.py: FollowerLog.judge -> raise Fatal("]
    assert reason_for_branch("raft/follower.py", *judge) == own


REACHED = {"log/skips.py: Skips.apply -> raise Fatal(decision.words())"}
"""Stops that seeds reach."""

NOT_ENTERED = {
    'log/skips.py: Skips._skip -> raise Fatal(f"entry {entry.index} can never be skipped: {kinds_of(calls)}")',
    "log/skips.py: Skips._stop_if_skipped_elsewhere -> raise Fatal(",
}
"""Stops in functions that have a reason themselves: no seed enters them."""


def is_fatal(statement: ast.stmt) -> bool:
    """Return whether a statement stops the node."""
    return isinstance(statement, ast.Raise) and "Fatal(" in ast.unparse(statement)


def conditional_stops(module: str) -> set[str]:
    """Return the branches of a module that stop the node: function, and first line."""
    text = (ROOT / FOLDER / module).read_text()
    lines = [line.strip() for line in text.splitlines()]
    tree = ast.parse(text)
    named = [(f.name, f) for f in tree.body if isinstance(f, ast.FunctionDef)]
    named += [
        (f"{outer.name}.{f.name}", f)
        for outer in tree.body
        if isinstance(outer, ast.ClassDef)
        for f in outer.body
        if isinstance(f, ast.FunctionDef)
    ]
    return {
        f"{module}: {name} -> {lines[branch[0].lineno - 1]}"
        for name, function in named
        for each in ast.walk(function)
        if isinstance(each, ast.If)
        for branch in (each.body, each.orelse)
        if any(map(is_fatal, branch))
    }


def test_each_stop_has_a_reason_or_is_known_to_be_reached() -> None:
    folder = ROOT / FOLDER
    modules = [str(path.relative_to(folder)) for path in folder.rglob("*.py")]
    stops = {stop for each in modules for stop in conditional_stops(each)}
    assert stops >= REACHED | NOT_ENTERED
    assert stops - REACHED - NOT_ENTERED <= BRANCHES.keys()
    assert not (REACHED | NOT_ENTERED) & BRANCHES.keys()


def test_a_reason_for_what_is_reached_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    missed = {"module": "codec.py", "never": ["decode_call"], "partly": []}
    monkeypatch.setattr(reached, "REASONS", {"codec.py: decode_call": "", "a.py": ""})
    monkeypatch.setattr(reached, "BRANCHES", {"codec.py: _parse": ""})
    assert needless({"modules": [missed]}) == ["a.py", "codec.py: _parse"]
    partly = {**missed, "partly": [["_parse", "if wrong:", "return None"]]}
    assert needless({"modules": [partly]}) == ["a.py"]
