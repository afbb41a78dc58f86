# SPDX-License-Identifier: Apache-2.0
"""
Compare this tree with another commit: `make bench-compare REV=...`.

Runs the loads of `make bench-smoke` with the software of both in turn, because a shared
machine changes its speed by a third within a minute, and prints the ratios. Both use the
dependencies that are installed here.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Column, Table

from tests.bench.report import ALL_OF_IT, failed
from tests.results import ROOT

ROUNDS = 2
FOLDER = ROOT / "var" / "compare"
HTMX = Path("node/sparecode_node/console/static/htmx.min.js")
ICONS = Path("node/sparecode_node/console/icons")
FONTS = Path("node/sparecode_node/console/fonts")
SMOKE = Path("tests/bench/smoke.py")
PACKAGES = ("", "protos", "node", "client", "deploy")
"""The folders of a tree that hold packages."""


class CompareError(Exception):
    """The other commit cannot be measured; the message says why."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-compare REV=...")
    parser.add_argument("rev", help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    console = Console()
    try:
        with tree_of(arguments.rev) as other:
            rounds = [
                in_turn(other, console, number) for number in range(arguments.rounds)
            ]
    except CompareError as error:
        parser.error(str(error))
    console.print(table_of(rounds, arguments.rev))
    return 0


def table_of(
    rounds: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]], rev: str
) -> Table:
    """Return the medians of the rounds, as a table for a terminal of 80 columns."""
    table = Table(
        "load",
        *(
            Column(name, justify="right", no_wrap=True)
            for name in ("clients", "there", "here", "ratio", "p50", "CPU")
        ),
        title=f"Calls a second at {rev} (there) and here, and ratios of calls, p50 and "
        f"processor time: above 1, here is more. Medians of {len(rounds)} rounds.",
        box=box.SIMPLE,
        padding=0,
        pad_edge=False,
    )
    for name, clients, *figures in ratios(rounds):
        shown = (f"{each:.3g}" if each < 999.5 else f"{each:.0f}" for each in figures)
        table.add_row(name, str(clients), *shown)
    return table


def in_turn(
    other: Path, console: Console, number: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Measure the other tree and this one; every second round begins with this one."""
    trees = (other, ROOT)[:: -1 if number % 2 else 1]
    seen = {tree: results(tree, console) for tree in trees}
    return seen[other], seen[ROOT]


@contextlib.contextmanager
def tree_of(rev: str) -> Iterator[Path]:
    """Yield the tree of a commit, with the loads of this one. Raises `CompareError`."""
    commit = _git("rev-parse", "--verify", "--quiet", f"{rev}^{{commit}}")
    folder = FOLDER / commit
    shutil.rmtree(folder, ignore_errors=True)
    _git("worktree", "prune")
    _git("worktree", "add", "--quiet", "--detach", "--force", str(folder), commit)
    try:
        # htmx, icons and fonts are fetched at set-up, so no commit has them.
        for path in (ICONS, FONTS):
            shutil.copytree(ROOT / path, folder / path, dirs_exist_ok=True)
        for path in (HTMX, SMOKE):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, folder / path)
        yield folder
    finally:
        _git("worktree", "remove", "--force", str(folder))


def results(tree: Path, console: Console) -> list[dict[str, Any]]:
    """Run the loads with the software of a tree. Raises `CompareError`."""
    console.print(f"{tree} ...", markup=False, highlight=False)
    out = FOLDER / f"{tree.name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.unlink(missing_ok=True)
    packages = os.pathsep.join(str(tree / each) for each in PACKAGES)
    done = subprocess.run(
        (sys.executable, "-m", "tests.bench.smoke", "--out", out),
        cwd=tree,
        env={**os.environ, "PYTHONPATH": packages},
        capture_output=True,
        text=True,
        check=False,
    )
    found: list[dict[str, Any]] = (
        json.loads(out.read_text())["results"] if out.exists() else []
    )
    # A missed bound, as of the duration, is no failure here.
    if failed(found) or not any(each["name"] == ALL_OF_IT for each in found):
        raise CompareError(f"{tree}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found


def ratios(
    rounds: list[tuple[list[dict[str, Any]], list[dict[str, Any]]]],
) -> Iterator[tuple[str, int, float, float, float, float, float]]:
    """
    Yield each load that both have: calls a second there and here, and the ratios.

    The ratios, here to there, are of calls a second, of the p50, and of the processor
    time of a call; 0 where a load has none.
    """
    seen: dict[tuple[str, int], list[tuple[float, float, float, float, float]]] = {}
    for there, here in rounds:
        others = {_key(each): each for each in there if "per_s" in each}
        for each in here:
            if "per_s" not in each or (other := others.get(_key(each))) is None:
                continue
            seen.setdefault(_key(each), []).append(
                (
                    other["per_s"],
                    each["per_s"],
                    _ratio(each["per_s"], other["per_s"]),
                    _ratio(each["p50_ms"], other["p50_ms"]),
                    _ratio(_cpu_ms(each), _cpu_ms(other)),
                )
            )
    for (name, clients), figures in seen.items():
        there, here, rate, p50, cpu = map(statistics.median, zip(*figures, strict=True))
        yield name, clients, there, here, rate, p50, cpu


def _key(result: dict[str, Any]) -> tuple[str, int]:
    return result["name"], result["clients"]


def _cpu_ms(result: dict[str, Any]) -> float:
    return float(sum(result.get("cpu_ms", {}).values()))


def _ratio(one: float, other: float) -> float:
    return one / other if other else 0.0


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CompareError(done.stderr.strip() or f"git {arguments[0]}: no such commit")
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
