# SPDX-License-Identifier: Apache-2.0
"""
Bugs that a developer might write, planted one by one: `make sim-planted`.

Each is a patch in `planted/`, applied to a copy of the tree. The invariants must find
it in some seed. Two patches take away what no seed shows to be needed: their header says
why, and the directed test that it names must fail. The same seeds and tests must pass in
the tree as it is. Code that crashes does not count as found (see `hunt`). Nor does a node that stops for a reason of its own, unless the header says
`stops=yes`: then that it stops is the harm.

    python -m tests.simulation.planted [WORD ...]

With words, only the bugs are planted whose file has one of them in its name. The results
page gets what was found of these, and keeps the rest.
"""

import argparse
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.simulation import report
from tests.simulation.campaign import Campaign
from tests.simulation.faults import Profile
from tests.simulation.groups.campaign import GroupsCampaign
from tests.simulation.kinds import Kind
from tests.simulation.patches import patched

ROOT = Path(__file__).resolve().parents[2]
PATCHES = Path(__file__).with_name("planted")
COPIED = ("node", "protos", "client", "deploy", "tests", "pyproject.toml")
HUNT_MAX_S = 900


@dataclass(frozen=True)
class Bug:
    """A patch, and how it is to be found."""

    path: Path
    title: str
    why: str
    test: str = ""
    """A directed test; if there is none, the simulation finds it."""
    no_seed: str = ""
    """Why only the test finds it."""
    seeds: int = 0
    options: dict[str, str] = field(default_factory=dict)

    @property
    def campaign(self) -> Campaign | GroupsCampaign:
        """The campaign whose seeds find it."""
        kind = Kind.of(self.options)
        if kind is Kind.GROUPS:
            return GroupsCampaign()
        profile = self.options.get("profile")
        return Campaign(
            nodes=int(self.options.get("nodes", "3")),
            profile=Profile[profile] if profile else None,
            kind=kind,
        )


@dataclass(frozen=True)
class Finding:
    """The result of the hunt for a bug."""

    bug: Bug
    found_by: str = ""
    seed: int | None = None
    seen: str = ""


def read(path: Path) -> Bug:
    """Return the bug that a patch plants, from the header above the diff."""
    header = path.read_text().split("\n--- ")[0]
    fields: dict[str, str] = {}
    name = ""
    for line in header.splitlines():
        if line.startswith(" "):
            fields[name] += " " + line.strip()
        elif ": " in line:
            name, _, value = line.partition(": ")
            fields[name] = value.strip()
    kind, *rest = fields["Found by"].split()
    if kind == "test":
        return Bug(
            path, fields["Bug"], fields["Why"], test=rest[0], no_seed=fields["No seed"]
        )
    options = dict(word.split("=") for word in rest)
    seeds = int(options.pop("seeds"))
    return Bug(path, fields["Bug"], fields["Why"], seeds=seeds, options=options)


def bugs() -> list[Bug]:
    """Return all bugs."""
    return [read(path) for path in sorted(PATCHES.glob("*.patch"))]


def plant(bug: Bug, tree: Path) -> None:
    """Write a bug into a tree. Raises `PatchError` if its patch does not fit."""
    for path, text in patched(bug.path.read_text(), tree).items():
        path.write_text(text)


@contextmanager
def copy_with(bug: Bug) -> Iterator[Path]:
    """Give a copy of the tree that has the bug."""
    with tempfile.TemporaryDirectory(prefix="sparecode-planted-") as name:
        tree = Path(name) / bug.path.stem
        tree.mkdir()
        for each in COPIED:
            source = ROOT / each
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, tree / each, ignore=ignored)
            else:
                shutil.copy(source, tree / each)
        plant(bug, tree)
        yield tree


def run_in(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on a tree and not on the one that is installed."""
    paths = os.pathsep.join(str(tree / each) for each in ("node", "protos", "client"))
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
        "PYTHONPATH": paths,
        "PYTHONHASHSEED": "0",
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=HUNT_MAX_S,
    )


def find(bug: Bug) -> Finding:
    """Plant a bug and look for it, for some minutes."""
    with copy_with(bug) as tree:
        try:
            return _find_by_test(bug, tree) if bug.test else _find_by_seed(bug, tree)
        except subprocess.TimeoutExpired:
            # The other bugs are looked for all the same.
            return Finding(bug, seen=f"nothing was seen in {HUNT_MAX_S} s")


def _find_by_seed(bug: Bug, tree: Path) -> Finding:
    options = [f"--{name}={value}" for name, value in bug.options.items()]
    hunt = ("-m", "tests.simulation.hunt", f"--seeds={bug.seeds}", *options)
    done = run_in(tree, *hunt)
    if done.returncode not in (0, 1) or not done.stdout:
        return Finding(bug, seen=f"the hunt failed: {done.stderr.strip()[-500:]}")
    seen = json.loads(done.stdout)
    if seen["seed"] is None:
        what = f"{bug.seeds} seeds saw nothing; {seen['fell_over']} fell over"
        return Finding(bug, seen=what)
    _, words = next(iter(seen["seen"].items()))
    return Finding(bug, f"invariant: {', '.join(seen['seen'])}", seen["seed"], words)


def _find_by_test(bug: Bug, tree: Path) -> Finding:
    results = tree / "results.xml"
    pytest = ("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={results}")
    done = run_in(tree, *pytest, bug.test)
    if not results.exists():
        return Finding(bug, seen=f"pytest did not run: {done.stderr.strip()[-500:]}")
    for failure in ET.parse(results).iter("failure"):  # noqa: S314 - pytest wrote it.
        message = failure.get("message", "")
        if message.startswith(("AssertionError", "assert ", "Failed: DID NOT RAISE")):
            name = bug.test.partition("::")[2]
            return Finding(bug, f"test: {name}", seen=message.splitlines()[0])
        return Finding(bug, seen=f"the test fell over: {message[:300]}")
    return Finding(bug, seen="the test has not failed")


def green_without(findings: list[Finding]) -> set[str]:
    """Return the bugs whose own test, or own seeds, pass in the tree as it is."""
    tests = sorted({finding.bug.test for finding in findings if finding.bug.test})
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        results = zip(tests, pool.map(passes, tests), strict=True)
        passed = {test for test, result in results if result}
    last: dict[Campaign | GroupsCampaign, int] = {}
    for finding in findings:
        if finding.seed is not None:
            campaign = finding.bug.campaign
            last[campaign] = max(finding.seed, last.get(campaign, 0))
    first_red = {
        campaign: min(campaign.run(range(seed + 1)).violations, default=seed + 1)
        for campaign, seed in last.items()
    }
    return {
        finding.bug.title
        for finding in findings
        if finding.bug.test in passed
        or (finding.seed is not None and finding.seed < first_red[finding.bug.campaign])
    }


def passes(test: str) -> bool:
    """Return whether a directed test passes in the tree as it is."""
    done = run_in(ROOT, "-m", "pytest", "-q", "-p", "no:cacheprovider", test)
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planted")
    parser.add_argument("words", nargs="*", help="parts of names; default: every bug")
    words = parser.parse_args().words
    console = Console()
    begin = time.monotonic()
    wanted = [
        bug for bug in bugs() if not words or any(w in bug.path.stem for w in words)
    ]
    findings: list[Finding] = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        hunts = [pool.submit(find, bug) for bug in wanted]
        for hunt in concurrent.futures.as_completed(hunts):
            findings.append(finding := hunt.result())
            mark = "[green]found[/]" if finding.found_by else "[red]NOT FOUND[/]"
            seen = finding.found_by or finding.seen
            console.print(f"{mark} {finding.bug.path.stem}: {escape(seen)}")
    findings.sort(key=lambda finding: finding.bug.path)
    green = green_without(findings)
    rows = [_row(finding, green=finding.bug.title in green) for finding in findings]
    table = Table("planted bug", "found by", "seed", "without it", show_lines=True)
    for row in rows:
        style = "red" if row["found"] == "no" else None
        table.add_row(
            row["bug"], row["found_by"], row["seed"], row["without"], style=style
        )
    console.print(table)
    seconds = time.monotonic() - begin
    result = sum(row["found"] == "yes" for row in rows)
    console.print(f"{result} of {len(rows)} found; {seconds:.0f} s")
    report.record_planted(rows, {bug.title: bug.no_seed for bug in bugs()})
    return 0 if 0 < result == len(rows) else 1


def _row(finding: Finding, *, green: bool) -> dict[str, str]:
    without = "green" if green else "NOT GREEN"
    if not finding.bug.test and finding.seed is None:
        without = ""  # No seed has found it: none has run without it.
    return {
        "bug": finding.bug.title,
        "found": "yes" if finding.found_by and green else "no",
        "found_by": finding.found_by or "nothing",
        "seed": "" if finding.seed is None else str(finding.seed),
        "without": without,
    }


if __name__ == "__main__":
    sys.exit(main())
