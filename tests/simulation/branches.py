# SPDX-License-Identifier: Apache-2.0
"""
Which branches of `replication/` simulated runs reach: `python -m tests.simulation.branches`.

Runs some seeds of each kind of runs, and puts on the page what they reach, and each
function, each branch and each stop that they do not, with the reason. Exits with 1 if
there is one for which no reason is known (`reached`), or a reason for what is reached.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage

from tests.simulation.kinds import Kind
from tests.simulation.reached import needless, reason_for, reason_for_branch
from tests.simulation.stops import stops_in

PACKAGE = "sparecode_node.replication"
ROOT = Path(__file__).resolve().parents[2]
FOLDER = "node/sparecode_node/replication/"
CHUNK = 3
"""Seeds that a process takes at a time."""

CHEAP = {"sim": 8, "sim-disks": 4, "sim-outbox": 4, "sim-lost": 2}
"""Kinds whose runs are short -> how many times more seeds of them run."""

KINDS = {kind.target: kind for kind in Kind if kind is not Kind.GROUPS}


@dataclass(frozen=True)
class Function:
    """What the runs reach of a function."""

    module: str
    name: str
    statements: int
    reached: int
    branches: int
    branches_reached: int
    missed: list[list[str]]
    """Branches that were not taken: the line that branches, and where it would go."""
    stops: list[str]
    """Lines that stop the node, and were not reached: in an exception handler or not."""


def cover(kind: str, seeds: Sequence[int], file: str) -> None:
    """Run seeds of a kind; imports are covered, too, so nothing is imported before."""
    watch = coverage.Coverage(
        data_file=file, branch=True, source=[PACKAGE], config_file=False
    )
    watch.start()
    # Imported here: what runs before the start is not seen.
    from tests.simulation.campaign import Campaign  # noqa: PLC0415

    outcome = Campaign(kind=KINDS[kind]).run_seeds(seeds)
    watch.stop()
    watch.save()
    if outcome.violations:
        raise SystemExit(f"{kind}: {outcome.violations}")


def reached_by(seeds: int, jobs: int) -> list[Function]:
    """Return what that many seeds of each kind reach together."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chunks = [
            (kind, range(first, min(first + CHUNK, last)))
            for kind in KINDS
            for last in [seeds * CHEAP.get(kind, 1)]
            for first in range(0, last, CHUNK)
        ]
        with concurrent.futures.ProcessPoolExecutor(
            jobs, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
        ) as pool:
            running = [
                pool.submit(cover, kind, chunk, str(folder / f"part.{k}"))
                for k, (kind, chunk) in enumerate(chunks)
            ]
            for future in concurrent.futures.as_completed(running):
                future.result()
        whole = coverage.Coverage(
            data_file=str(folder / "whole"), branch=True, config_file=False
        )
        whole.combine([str(path) for path in folder.glob("part.*")])
        whole.json_report(outfile=str(folder / "report"), include=[f"*/{FOLDER}*"])
        return list(_functions(json.loads((folder / "report").read_text())))


def _functions(report: dict[str, Any]) -> Iterator[Function]:
    for path, file in sorted(report["files"].items()):
        module = path.partition(FOLDER)[2]
        source = (ROOT / FOLDER / module).read_text()
        stops = stops_in(source)
        for name, function in file["functions"].items():
            summary = function["summary"]
            if not summary["num_statements"]:
                continue  # It does nothing, so that no one sees whether it is called.
            yield Function(
                module=module,
                name=name,
                statements=summary["num_statements"],
                reached=summary["covered_lines"],
                branches=summary["num_branches"],
                branches_reached=summary["covered_branches"],
                missed=missed_in(source, function["missing_branches"]),
                stops=[
                    stops[line][1]
                    for line in function["missing_lines"]
                    if line in stops
                ],
            )


def missed_in(source: str, branches: Sequence[Sequence[int]]) -> list[list[str]]:
    """Return the lines of branches; a target below 0 is the end of the function."""
    lines = [line.strip() for line in source.splitlines()]
    return [
        [lines[begin - 1], lines[end - 1] if end > 0 else "(its end)"]
        for begin, end in branches
    ]


def numbers_of(functions: Sequence[Function], seeds: int) -> dict[str, Any]:
    """Return what goes to the page."""
    modules = []
    for module in sorted({each.module for each in functions}):
        own = [each for each in functions if each.module == module]
        never = [each.name for each in own if each.name and not each.reached]
        parts = [
            [each.name or "the module itself", *branch]
            for each in own
            if each.reached
            for branch in each.missed
        ]
        modules.append(
            {
                "module": module,
                "statements": sum(each.statements for each in own),
                "reached": sum(each.reached for each in own),
                "branches": sum(each.branches for each in own),
                "branches_reached": sum(each.branches_reached for each in own),
                "never": never,
                "partly": parts,
                "stops": [
                    [each.name, stop]
                    for each in own
                    if each.reached
                    for stop in each.stops
                ],
            }
        )
    kinds = {kind: seeds * CHEAP.get(kind, 1) for kind in KINDS}
    return {"kinds": kinds, "modules": modules}


def unexplained(numbers: dict[str, Any]) -> list[str]:
    """Return what is not reached for no known reason: functions, branches and stops."""
    functions = [
        f"{each['module']}: {name}"
        for each in numbers["modules"]
        for name in each["never"]
        if reason_for(each["module"], name) is None
    ]
    branches = [
        f"{each['module']}: {name}: {begin} -> {end}"
        for each in numbers["modules"]
        for name, begin, end in each["partly"]
        if reason_for_branch(each["module"], name, end) is None
    ]
    stops = [
        f"{each['module']}: {name}: {stop}"
        for each in numbers["modules"]
        for name, stop in each["stops"]
        if reason_for_branch(each["module"], name, stop) is None
    ]
    return functions + branches + stops


def main() -> int:
    """Cover, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.branches")
    parser.add_argument("--seeds", type=int, default=24, help="of each kind")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    wanted = parser.parse_args()
    functions = reached_by(wanted.seeds, wanted.jobs)
    numbers = numbers_of(functions, wanted.seeds)
    # Imported late, so that a worker's imports are covered.
    from tests.simulation import report  # noqa: PLC0415

    report.record_branches(numbers)
    reached = sum(each.branches_reached for each in functions)
    print(f"{reached} of {sum(each.branches for each in functions)} branches")  # noqa: T201
    for each in (missing := unexplained(numbers)):
        print(f"not reached, and no reason is known: {each}")  # noqa: T201
    for each in (more := needless(numbers)):
        print(f"reached, so it needs no reason: {each}")  # noqa: T201
    return 1 if missing or more else 0


if __name__ == "__main__":
    sys.exit(main())
