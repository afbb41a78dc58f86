# SPDX-License-Identifier: Apache-2.0
"""Reasons why no seed enters a function are about code and tests that are there."""

import ast
import re
from typing import Any

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
from tests.simulation.stops import stops_in


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
    assert target in lines or key in all_stops()
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


REACHED = {
    'log/boots.py: BootFile.save -> raise Fatal(f"{where}: writing the file failed: {error}") from error',
    "log/file.py: JournalFile.append -> raise Fatal(self._poisoned) from error",
    "log/file.py: JournalFile.take -> raise Fatal(self._poisoned) from error",
    "log/file.py: JournalFile.write_beside -> raise Fatal(self._poisoned) from error",
    "log/skips.py: Skips.apply -> raise Fatal(decision.words())",
    'raft/engine.py: Engine._SyncObj__doApplyCommand -> raise Fatal(f"applying entry {index} failed: {error!r}") from error',
    'snapshots/installation.py: SnapshotInstallation.install.work -> raise Fatal(f"installing a snapshot failed: {error!r}") from error',
}
"""Stops that seeds reach."""

NOT_ENTERED = {
    'log/journal.py: Journal.clear -> raise Fatal("nothing may clear the journal")',
    'log/journal.py: Journal.deleteEntriesTo -> raise Fatal(f"PySyncObj must not compact the log: {entryTo} entries")',
    'log/skips.py: Skips._skip -> raise Fatal(f"entry {entry.index} can never be skipped: {kinds_of(calls)}")',
    "log/skips.py: Skips._stop_if_skipped_elsewhere -> raise Fatal(",
    'raft/engine.py: _refuse -> raise Fatal("this part of PySyncObj is off")',
}
"""Stops in functions that have a reason themselves: no seed enters them."""


def all_stops() -> list[str]:
    """Return each line of `replication/` that stops the node."""
    folder = ROOT / FOLDER
    return [
        f"{path.relative_to(folder)}: {name} -> {line}"
        for path in folder.rglob("*.py")
        for name, line in stops_in(path.read_text()).values()
    ]


def test_each_stop_has_a_reason_or_is_known_to_be_reached() -> None:
    """`make sim-coverage` fails if one of `REACHED` is not."""
    stops = all_stops()
    text = "".join(path.read_text() for path in (ROOT / FOLDER).rglob("*.py"))
    assert len(stops) == len(set(stops)) == text.count("raise Fatal")
    assert set(stops) >= REACHED | NOT_ENTERED
    assert set(stops) - REACHED - NOT_ENTERED <= BRANCHES.keys()
    assert not (REACHED | NOT_ENTERED) & BRANCHES.keys()
    functions = [stop.partition(" -> ")[0].partition(": ") for stop in NOT_ENTERED]
    assert all(reason_for(module, name) for module, _, name in functions)


def test_a_stop_is_found_wherever_it_is() -> None:
    source = """
class A:
    async def f(self):
        def work():
            try:
                g()
            except OSError as error:
                raise Fatal("full") from error
        if work():
            raise Fatal("full")
        match self:
            case 1:
                raise Fatal("full")
            case 2:
                raise Unheard("Fatal")
"""
    assert stops_in(source) == {
        8: ("A.f.work", 'raise Fatal("full") from error'),
        10: ("A.f", 'raise Fatal("full")'),
        13: ("A.f", 'raise Fatal("full") (2)'),
    }


def test_a_reason_for_what_is_reached_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    missed: dict[str, Any] = {
        "module": "codec.py",
        "never": ["decode_call"],
        "partly": [],
        "stops": [],
    }
    monkeypatch.setattr(reached, "REASONS", {"codec.py: decode_call": "", "a.py": ""})
    monkeypatch.setattr(reached, "BRANCHES", {"codec.py: _parse": ""})
    assert needless({"modules": [missed]}) == ["a.py", "codec.py: _parse"]
    partly = {**missed, "partly": [["_parse", "if wrong:", "return None"]]}
    assert needless({"modules": [partly]}) == ["a.py"]


def test_a_reason_for_a_stop_that_is_reached_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = 'raise Fatal("full") from error'
    monkeypatch.setattr(reached, "REASONS", {})
    monkeypatch.setattr(reached, "BRANCHES", {f"codec.py: _parse -> {stop}": ""})
    numbers = {"module": "codec.py", "never": [], "partly": [], "stops": []}
    assert needless({"modules": [numbers]}) == [f"codec.py: _parse -> {stop}"]
    assert needless({"modules": [{**numbers, "stops": [["_parse", stop]]}]}) == []
