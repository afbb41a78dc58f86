# SPDX-License-Identifier: Apache-2.0
"""
Write the results of `make bench` into `docs/performance.md`: `make bench-page`.

Replaces only the text between the marks. The rest is written by hand.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.bench.report import ALL_OF_IT, Report, failed, not_answered
from tests.results import ROOT, row

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
UNIT_OF_PROGRESS = "took: "


class NoMarksError(Exception):
    """The page has no marks for the tables."""


class IncompleteRunError(Exception):
    """The run did not finish."""


def render(page: str, measured: dict[str, Any], *, picture: str = "") -> str:
    """
    Return the page with these measurements.

    Raises `NoMarksError`, and `IncompleteRunError`: an interrupted run lacks targets,
    and the page would not show it.
    """
    if not any(each["name"] == ALL_OF_IT for each in measured["results"]):
        raise IncompleteRunError(
            f"the run of {measured['machine']['date']} was interrupted or is still going"
        )
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise NoMarksError(f"{PAGE.name} has no {BEGIN} ... {END}")
    curves = f"![Throughput and latency over the number of clients]({picture})"
    shown = (curves, "") if picture else ()
    return "\n".join((before + BEGIN, "", *shown, *_tables(measured), "", END + after))


def write_part(name: str, lines: Iterable[str]) -> None:
    """Write the results of another benchmark between its marks. Raises `NoMarksError`."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = PAGE.read_text().partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise NoMarksError(f"{PAGE.name} has no {begin} ... {end}")
    PAGE.write_text("\n".join((before + begin, "", *lines, "", end + after)))


def write_report(name: str, report: Report) -> None:
    """Write a report between the marks of this name. Raises `NoMarksError`."""
    write_part(name, table(report))


def table(report: Report) -> Iterator[str]:
    """Yield the lines of the page for a complete report."""
    here = report.machine
    yield f"Measured {here['date']} by `{report.command}`, commit {here['commit']},"
    yield f"{here['machine']}; {here['hardware']}."
    yield f"The whole run took {minutes_of(report.results)}."
    yield ""
    yield from _results_of(report.content())


def _tables(measured: dict[str, Any]) -> Iterator[str]:
    here = measured["machine"]
    yield f"Measured {here['date']} by `{measured['command']}`,"
    yield f"commit {here['commit']}, {here['machine']};"
    yield f"{here['hardware']}; {here['libraries']}."
    yield f"The whole run took {minutes_of(measured['results'])}."
    yield ""
    yield from _results_of(measured)


def _results_of(measured: dict[str, Any]) -> Iterator[str]:
    yield from targets_of(measured)
    yield ""
    if any("per_s" in each for each in measured["results"]):
        yield from _loads(measured["results"])
        yield ""
    yield from facts_of(measured["results"])


def minutes_of(results: list[dict[str, Any]]) -> str:
    """Return how many minutes a complete run took, in words."""
    took = next(each["seconds"] for each in results if each["name"] == ALL_OF_IT)
    minutes = round(took / 60)
    return f"{minutes} minute{'' if minutes == 1 else 's'}"


def targets_of(measured: dict[str, Any]) -> Iterator[str]:
    """Yield the parts that failed, and a table of all targets."""
    for name, why in failed(measured["results"]):
        reason = why.replace("`", "'")
        yield f"**{name}** has failed, so its targets are missing: `{reason}`"
        yield ""
    yield row("target", "bound", "measured", "met")
    yield row("---", "---", "---", "---")
    for each in measured["targets"]:
        sign = "at least" if each["at_least"] else "at most"
        value, interval = each["value"], each.get("interval")
        shown = "-" if value is None else f"{value:.2f}{each['unit']}"
        yield row(
            f"{each['name']} {each['words']}",
            f"{sign} {each['target']:g}{each['unit']}",
            f"{shown} ({interval[0]:.2f} to {interval[1]:.2f})" if interval else shown,
            {
                True: "yes",
                False: "**no**",
                None: "too noisy" if interval else "nothing to measure",
            }[each["holds"]],
        )


def _loads(results: list[dict[str, Any]]) -> Iterator[str]:
    yield row(
        *("load", "clients", "a second", "p50 ms", "p99 ms", "CPU ms, all nodes"),
        "not answered",
    )
    yield row("---", "---:", "---:", "---:", "---:", "---:", "---")
    for each in results:
        if "per_s" in each:
            cpu = each.get("cpu_ms")
            yield row(
                each["name"],
                each.get("clients", ""),
                f"{each['per_s']:.0f}",
                f"{each['p50_ms']:.1f}",
                f"{each['p99_ms']:.1f}",
                f"{sum(cpu.values()):.2f}" if cpu else "",
                not_answered(each),
            )


def facts_of(results: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the results that are no loads, as a list."""
    for each in results:
        name = each["name"]
        elsewhere = "per_s" in each or "failed" in each
        if not elsewhere and not name.startswith(UNIT_OF_PROGRESS):
            yield f"* {name}: {_values(each)}"


def _values(result: dict[str, Any]) -> str:
    parts = []
    for key, value in result.items():
        if key == "name":
            continue
        text = f"{value:.3g}" if isinstance(value, float) else value
        if isinstance(value, list):
            text = "; ".join(map(str, value)) or "none"
        elif isinstance(value, dict):
            text = "; ".join(f"{name} {each}" for name, each in value.items())
        parts.append(f"{key.replace('_', ' ')} {text}")
    return ", ".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.page")
    parser.add_argument("--of", type=Path, default=ROOT / "var" / "bench.json")
    measured = parser.parse_args().of
    if not measured.exists():
        parser.error(f"there is no {measured}: run `make bench` first")
    drawn, picture = measured.with_suffix(".png"), PAGE.with_suffix(".png")
    results, has_picture = json.loads(measured.read_text()), drawn.exists()
    try:
        page = render(
            PAGE.read_text(), results, picture=picture.name if has_picture else ""
        )
    except (IncompleteRunError, NoMarksError) as error:
        parser.error(f"{measured}: {error}")
    if has_picture:
        shutil.copy(drawn, picture)
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
