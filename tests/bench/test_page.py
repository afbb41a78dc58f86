# SPDX-License-Identifier: Apache-2.0
"""Results replace the tables of the page and nothing else."""

import dataclasses
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench import page
from tests.bench.load import Measurement
from tests.bench.page import PAGE, IncompleteRunError, NoMarksError, render
from tests.bench.plot import draw
from tests.bench.report import ALL_OF_IT, Report, Target

MEASURED = Measurement(
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
    report.add("A part", failed="ValueError: `why`\nand | where")
    report.add(ALL_OF_IT, seconds=2460)
    report.targets += [
        Target(name="(d)", words="syncs", value=1.0, target=1.05, at_least=False),
        Target(name="(e)", words="shed", value=None, target=50, at_least=False),
        Target(
            name="(A6)",
            words="differ",
            value=0.9,
            target=1,
            at_least=False,
            interval=(0.5, 1.5),
        ),
    ]
    return report


def test_tables_replace_the_text_between_the_marks(tmp_path: Path) -> None:
    report = measured(tmp_path)
    content = report.content()
    text = "# Before\n<!-- measured -->\nyesterday\n<!-- /measured -->\nAfter\n"
    once = render(text, content)
    assert " by `make bench USERS=2000 SECONDS=1`,\ncommit " in once
    assert "The whole run took 41 minutes." in once
    assert "| (d) syncs | at most 1.05 | 1.00 | yes |" in once
    assert "| (e) shed | at most 50 | - | nothing to measure |" in once
    assert "| (A6) differ | at most 1 | 0.90 (0.50 to 1.50) | too noisy |" in once
    assert "| authenticate, codes | 8 | 1234 | 1.0 | 3.0 | 1.50 |  |" in once
    assert (
        "| authenticate, codes | 256 | 1234 | 1.0 | 3.0 |  | 78% shed, 2 UNAVAILABLE |"
        in once
    )
    assert "* start to ready, in s: median 1.25, each 1.2; 1.25; 1.3" in once
    assert "* A part" not in once  # Shown above the targets.
    assert once.startswith("# Before\n")
    assert once.endswith("\nAfter\n")
    assert "yesterday" not in once
    assert render(once, content) == once
    assert "(x.png)" in render(once, content, picture="x.png")


def test_failed_parts_are_shown_above_the_targets(tmp_path: Path) -> None:
    """Their targets are missing, and the table alone does not show it."""
    report = measured(tmp_path)
    once = render("<!-- measured --><!-- /measured -->", report.content())
    expected = (
        "**A part** has failed, so its targets are missing:"
        " `ValueError: 'why' and | where`\n\n| target |"
    )
    assert expected in once
    report.show(console := Console(record=True, width=200))
    printed = console.export_text()
    expected = "FAILED: A part: ValueError: `why` and | where"
    assert 0 < printed.index(expected) < printed.index("(d) syncs")


def test_an_interrupted_run_is_refused_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its targets would be missing, and all others would be met."""
    report, shown = measured(tmp_path), tmp_path / "performance.md"
    whole = report.results.pop()
    with pytest.raises(IncompleteRunError, match=r"interrupted"):
        render(PAGE.read_text(), report.content())
    report.write()
    draw(report.results, report.path.with_suffix(".png"))
    shown.write_text(before := "<!-- measured -->yesterday<!-- /measured -->")
    monkeypatch.setattr(page, "PAGE", shown)
    monkeypatch.setattr(sys, "argv", ["page", "--of", str(report.path)])
    with pytest.raises(SystemExit):
        page.main()
    assert "was interrupted or is still going" in capsys.readouterr().err
    assert shown.read_text() == before
    assert not shown.with_suffix(".png").exists()
    report.results.append(whole)
    report.write()
    assert page.main() == 0
    assert "(performance.png)" in shown.read_text()
    assert shown.with_suffix(".png").exists()


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NoMarksError):
        render("# Before\n", measured(tmp_path).content())


def test_the_page_has_its_marks(tmp_path: Path) -> None:
    measurements = measured(tmp_path).content()
    page_text = render(PAGE.read_text(), measurements)
    assert f"Measured {measurements['machine']['date']}" in page_text


def test_a_report_is_written_as_it_grows_and_drawn(tmp_path: Path) -> None:
    report = measured(tmp_path)
    report.write()
    assert report.path.read_text().count("start to ready") == 1
    report.add("long steps", longest=["[/sparecode.v1.X/Y] [red]"])  # No markup.
    report.show(console := Console(record=True))
    assert "[/sparecode.v1.X/Y] [red]" in console.export_text()
    draw(report.results, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 1000
