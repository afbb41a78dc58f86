# SPDX-License-Identifier: Apache-2.0
"""`make bench-compare` runs the same loads on two commits, and compares what both have."""

import io
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from rich.console import Console

from tests.bench import compare
from tests.bench.compare import CompareError, ratios, tree_of
from tests.bench.report import ALL_OF_IT


def load(name: str, per_s: float, p50_ms: float, cpu_ms: float = 0) -> dict[str, Any]:
    cpu = {"cpu_ms": {"n1": cpu_ms / 2, "n2": cpu_ms / 2}} if cpu_ms else {}
    return {"name": name, "clients": 1, "per_s": per_s, "p50_ms": p50_ms, **cpu}


def test_ratios_are_medians_of_what_both_commits_measured() -> None:
    facts = {"name": "start to ready", "seconds": 1}
    rounds = [
        (
            [
                facts,
                load("codes", 100, 10, 4),
                load("echo", 1000, 1),
                load("old", 1, 1),
            ],
            [
                facts,
                load("codes", here, 5, 2),
                load("echo", 1000, 1),
                load("new", 1, 1),
            ],
        )
        for here in (100, 200, 900)
    ]
    assert list(ratios(rounds)) == [
        ("codes", 1, 100, 200, 2, 0.5, 0.5),
        ("echo", 1, 1000, 1000, 1, 1, 0),
    ]


def test_every_second_round_begins_with_this_tree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[Path] = []

    def results(tree: Path, _: Console) -> list[dict[str, Any]]:
        order.append(tree)
        return [{"name": str(tree)}]

    monkeypatch.setattr(compare, "results", results)
    other, console = Path("other"), Console()
    for number in range(2):
        there, here = compare.in_turn(other, console, number)
        assert (there[0]["name"], here[0]["name"]) == ("other", str(compare.ROOT))
    assert order == [other, compare.ROOT, compare.ROOT, other]


@pytest.mark.parametrize(
    ("results", "good"),
    [
        ([{"name": ALL_OF_IT, "seconds": 200}], True),
        ([{"name": ALL_OF_IT, "seconds": 9}, {"name": "A part", "failed": "x"}], False),
        ([], False),
    ],
)
def test_a_slow_run_is_compared_and_one_that_failed_is_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    results: list[dict[str, Any]],
    *,
    good: bool,
) -> None:
    def run(command: tuple[object, ...], **_: object) -> Mock:
        Path(str(command[-1])).write_text(json.dumps({"results": results}))
        return Mock(returncode=1, stdout="", stderr="")

    monkeypatch.setattr(compare, "FOLDER", tmp_path)
    monkeypatch.setattr(subprocess, "run", run)
    if good:
        assert compare.results(tmp_path, Console(file=io.StringIO())) == results
    else:
        with pytest.raises(CompareError):
            compare.results(tmp_path, Console(file=io.StringIO()))


def test_the_table_fits_into_a_terminal() -> None:
    """With the longest name of a load, and numbers as long as they can be."""
    load = {
        "name": "authenticate, codes, production hashing",
        "clients": 64,
        "per_s": 1234.5,
        "p50_ms": 1.0,
        "cpu_ms": {"n1": 1.0},
    }
    slower = load | {"p50_ms": 123.4, "cpu_ms": {"n1": 1.036}}
    written = io.StringIO()
    Console(file=written, width=80).print(
        compare.table_of([([load], [slower])] * 2, "ff38dae5")
    )
    lines = written.getvalue().splitlines()
    row = next(line for line in lines if line.strip().startswith("authenticate"))
    assert row.split()[-6:] == ["64", "1234", "1234", "1", "123", "1.04"]
    assert "ff38dae5" in lines[0]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return git of a repository that stands for this one, with one commit."""
    if shutil.which("git") is None:
        pytest.skip("git is missing: make system-packages")
    root = tmp_path / "root"
    fetched = (compare.HTMX, compare.ICONS / "one", compare.FONTS / "one")
    for path in (compare.SMOKE, *fetched):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text("earlier")
    (root / "node/software").write_text("earlier")
    (root / ".gitignore").write_text("\n".join([*map(str, fetched), "var/"]))
    monkeypatch.setattr(compare, "ROOT", root)
    monkeypatch.setattr(compare, "FOLDER", root / "var/compare")

    def git(*arguments: str) -> str:
        name = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        done = subprocess.run(
            ("git", *name, *arguments), cwd=root, check=True, capture_output=True
        )
        return done.stdout.decode()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "earlier")
    return git


def test_the_other_tree_has_its_software_and_the_loads_of_this_one(
    git: Callable[..., str],
) -> None:
    for path in (compare.SMOKE, Path("node/software")):
        (compare.ROOT / path).write_text("later")
    with tree_of("HEAD") as tree:
        assert (tree / "node/software").read_text() == "earlier"
        assert (tree / compare.SMOKE).read_text() == "later"
        for path in (compare.HTMX, compare.ICONS / "one", compare.FONTS / "one"):
            assert (tree / path).read_text() == "earlier"
    assert not tree.exists()
    assert len(git("worktree", "list").splitlines()) == 1
    assert (compare.ROOT / "node/software").read_text() == "later"


@pytest.mark.usefixtures("git")
def test_a_commit_that_is_not_here_is_named() -> None:
    with (
        pytest.raises(CompareError, match="rev-parse: no such commit"),
        tree_of("gone"),
    ):
        pass
