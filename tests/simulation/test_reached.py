# SPDX-License-Identifier: Apache-2.0
"""Reasons why no seed enters a function are about code and tests that are there."""

import ast
import re

import pytest

from tests.simulation import reached
from tests.simulation.branches import FOLDER, ROOT
from tests.simulation.reached import (
    BRANCHES,
    LAST_CHECK,
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


def test_a_branch_has_the_reason_of_its_function_or_of_its_check() -> None:
    known = reason_for_branch("codec.py", "_parse", "return None")
    assert known == BRANCHES["codec.py: _parse"]
    last_check = reason_for_branch("raft/sender.py", "Sender.send_all", "raise Fatal(")
    assert last_check == LAST_CHECK
    assert reason_for_branch("raft/sender.py", "Sender.send_all", "return") is None
    assert reason_for_branch("links/limits.py", "Limits.take", "return") is None


def test_a_reason_for_what_is_reached_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    missed = {"module": "codec.py", "never": ["decode_call"], "partly": []}
    monkeypatch.setattr(reached, "REASONS", {"codec.py: decode_call": "", "a.py": ""})
    monkeypatch.setattr(reached, "BRANCHES", {"codec.py: _parse": ""})
    assert needless({"modules": [missed]}) == ["a.py", "codec.py: _parse"]
    partly = {**missed, "partly": [["_parse", "if wrong:", "return None"]]}
    assert needless({"modules": [partly]}) == ["a.py"]
