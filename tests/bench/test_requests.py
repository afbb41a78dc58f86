# SPDX-License-Identifier: Apache-2.0
"""The table of request ids is filled as described, and both sizes cost the same."""

from pathlib import Path

from tests.bench import requests
from tests.bench.report import Report, Target
from tests.bench.requests import Costs, fill, measure, table
from tests.statemachine.test_snapshots import FileWorld

ROWS = 10_000


def filled(path: Path, rows: int) -> FileWorld:
    world = FileWorld(path)
    fill(world, rows)
    return world


def test_entries_cost_the_same_with_twice_as_many_rows(tmp_path: Path) -> None:
    seen: dict[int, Costs] = {}
    for rows in (ROWS, 2 * ROWS):
        world = filled(tmp_path / f"{rows}.db", rows)
        try:
            (count, callers) = world.db.execute(
                "SELECT count(*), count(DISTINCT caller) FROM requests "
                "WHERE caller LIKE 'agent:%'"
            ).fetchone()
            assert (count, callers) == (rows, requests.CALLERS)
            seen[rows] = measure(world, entries=4, due=2)
        finally:
            world.db.close()
    few, many = seen.values()
    steps = [{kind: each[0] for kind, each in e.entries.items()} for e in (few, many)]
    assert steps[0] == steps[1]
    assert steps[0]["known"] < steps[0]["new"] < steps[0]["due"] / 10
    report = Report(path=tmp_path / "requests.json")
    report.targets.append(
        Target(name="(Q3)", words="start", value=1, target=5, at_least=False)
    )
    lines = list(table(report, seen))
    assert (
        f"| a call with a new id: steps of SQLite | {steps[0]['new']} |"
        in "\n".join(lines)
    )
    assert "| (Q3) start | at most 5 | 1.00 | yes |" in lines
