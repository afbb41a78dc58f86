# SPDX-License-Identifier: Apache-2.0
"""What was measured gets into the page, and leaves the rest of it alone."""

import dataclasses
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.load import Measured
from tests.bench.page import PAGE, NoMarksError, written
from tests.bench.plot import draw
from tests.bench.report import Report, Target

MEASURED = Measured(
    answered=1,
    seconds=1.0,
    per_s=1234.5,
    p50_ms=1.0,
    p95_ms=2.0,
    p99_ms=3.0,
    codes={"OK": 1},
    accepted=1,
)
CROWDED = dataclasses.replace(
    MEASURED, codes={"OK": 20, "RESOURCE_EXHAUSTED": 78, "UNAVAILABLE": 2}
)


def measured(tmp_path: Path) -> Report:
    command = "make bench USERS=2000 SECONDS=1"
    report = Report(path=tmp_path / "var" / "bench.json", command=command)
    report.add_load("echo with mutual TLS", MEASURED, clients=1)
    report.add_load("authenticate, codes", MEASURED, {"n1": 0.5, "n2": 1}, clients=8)
    report.add_load("authenticate, codes", CROWDED, clients=256)
    report.add("start to ready, in s", median=1.25, each=[1.2, 1.25, 1.3])
    report.add("A part", failed="ValueError: why")
    report.targets += [
        Target(name="(d)", words="syncs", value=1.0, target=1.05, at_least=False),
        Target(name="(e)", words="shed", value=None, target=50, at_least=False),
    ]
    return report


def test_tables_take_the_place_between_the_marks(tmp_path: Path) -> None:
    report = measured(tmp_path)
    content = report.content()
    page = "# Before\n<!-- measured -->\nyesterday\n<!-- /measured -->\nAfter\n"
    once = written(page, content)
    assert " by `make bench USERS=2000 SECONDS=1`,\ncommit " in once
    assert "| (d) syncs | at most 1.05 | 1.00 | yes |" in once
    assert "| (e) shed | at most 50 | - | nothing to measure |" in once
    assert "| authenticate, codes | 8 | 1234 | 1.0 | 3.0 | 1.50 |  |" in once
    assert (
        "| authenticate, codes | 256 | 1234 | 1.0 | 3.0 |  | 78% shed, 2 UNAVAILABLE |"
        in once
    )
    assert "* start to ready, in s: median 1.25, each 1.2; 1.25; 1.3" in once
    assert "* A part: failed ValueError: why" in once
    assert once.startswith("# Before\n")
    assert once.endswith("\nAfter\n")
    assert "yesterday" not in once
    assert written(once, content) == once
    assert "(x.png)" in written(once, content, picture="x.png")


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoMarksError):
        written("# Before\n", measured(tmp_path).content())


def test_the_page_has_its_marks(tmp_path: Path) -> None:
    written(PAGE.read_text(), measured(tmp_path).content())


def test_a_report_is_written_as_it_grows_and_drawn(tmp_path: Path) -> None:
    report = measured(tmp_path)
    report.write()
    assert report.path.read_text().count("start to ready") == 1
    report.add("long steps", longest=["[/sparecode.v1.X/Y] [red]"])  # No markup.
    report.show(console := Console(record=True))
    assert "[/sparecode.v1.X/Y] [red]" in console.export_text()
    draw(report.results, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 1000
