# SPDX-License-Identifier: Apache-2.0
"""
Tests that take too long for every change: `make test-long` runs them, `make test` none.

A test may be marked as long if another test shows the same in small, if it types the
commands of a page, or if it signs in through another project's program. Every
invariant has a test that is not marked. As a plug-in of pytest, this module writes
docs/results/long.md after a run in which no test failed.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from tests import results

PAGE = results.FOLDER / "long.md"
COMMAND = "make test-long"
SHOWN = 15
"""The tests that took longest, on the page."""


def long(values: Iterable[Any]) -> list[Any]:
    """Return values of a parameter with which a test takes long."""
    return [pytest.param(each, marks=pytest.mark.long) for each in values]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Write the page if every test passed, or was skipped."""
    # The processes of pytest-xdist also end so, each with its own part of the tests.
    if hasattr(config, "workerinput") or exitstatus != pytest.ExitCode.OK:
        return
    found = terminalreporter.stats
    numbers = {
        **results.now_and_here(),
        "passed": len(found.get("passed", ())),
        "skipped": [_reason(each) for each in found.get("skipped", ())],
        "seconds": {each.nodeid: each.duration for each in found.get("passed", ())},
    }
    kept = results.keep(PAGE, COMMAND, numbers)[COMMAND]
    PAGE.write_text("\n".join(_page(kept)) + "\n")


def _reason(report: pytest.TestReport) -> str:
    where = report.longrepr
    why = where[2] if isinstance(where, tuple) else str(where)
    return f"{report.nodeid}: {why}"


def _page(numbers: dict[str, Any]) -> Sequence[str]:
    seconds: dict[str, float] = numbers["seconds"]
    longest = sorted(seconds, key=lambda each: -seconds[each])[:SHOWN]
    return [
        "# Results of the long tests",
        "",
        f"Written by `{COMMAND}` if no test failed; do not edit. `make test` leaves",
        "these tests out: they run before a release and after changes of what they show.",
        "",
        results.row("", ""),
        "|---|---|",
        *(results.row(each, numbers[each]) for each in ("date", "commit", "machine")),
        results.row("passed", numbers["passed"]),
        results.row("minutes", round(sum(seconds.values()) / 60)),
        *(results.row("skipped", each) for each in numbers["skipped"]),
        "",
        f"The {len(longest)} that took longest:",
        "",
        results.row("test", "seconds"),
        "|---|---:|",
        *(results.row(f"`{each}`", round(seconds[each])) for each in longest),
    ]
