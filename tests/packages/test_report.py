# SPDX-License-Identifier: Apache-2.0
"""The page has every step that passed; a part takes the place of its earlier run."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from tests.packages.report import Part, Report, Step, keep


def test_steps_are_printed_and_kept():
    output = io.StringIO()
    report = Report(Console(file=output, width=80))
    part = report.part("Machines")
    with report.step("`systemctl kill`") as step:
        step.seen = "started again"
    assert [(each.words, each.seen) for each in part.steps] == [
        ("`systemctl kill`", "started again")
    ]
    assert "ok   `systemctl kill`: started again" in output.getvalue()


def test_step_that_fails_is_named_and_not_kept():
    output = io.StringIO()
    report = Report(Console(file=output, width=80))
    part = report.part("Machines")
    with pytest.raises(ValueError, match="no"), report.step("a start"):
        raise ValueError("no")
    assert "NOT  a start" in output.getvalue()
    assert part.steps == []


def test_page_has_the_newest_run_of_each_part(tmp_path: Path):
    results = tmp_path / "packages.json"
    keep(Part("Machines", [Step("a boot", "slow", 9)]), {"commit": "abc"}, results)
    keep(Part("Containers", [Step("a pull")]), {"commit": "def"}, results)
    page = keep(
        Part("Machines", [Step("a boot", "fast", 1)]), {"commit": "ghi"}, results
    )
    text = page.read_text()
    assert text.index("## Containers\n\ncommit def.") < text.index("## Machines")
    assert "## Machines\n\ncommit ghi.\n" in text
    assert "| a boot | fast | 1 |" in text
    assert "slow" not in text
