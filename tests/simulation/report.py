# SPDX-License-Identifier: Apache-2.0
"""The results page of the simulation."""

from collections.abc import Sequence
from typing import Any

from tests.results import FOLDER, keep, now_and_here, row
from tests.simulation.campaign import Verdict
from tests.simulation.comparisons import Comparison
from tests.simulation.fault_effects import Effect

PAGE = FOLDER / "simulation.md"
DESIGN = "../../node/sparecode_node/replication/DESIGN.md"
RECORD_FROM_SEEDS = 1000
"""Campaigns with fewer seeds are quick checks and do not go to the page."""


def record_campaign(nodes: int, first: int, verdict: Verdict) -> None:
    """Put a campaign on the page."""
    outcome = verdict.outcome
    _record(
        f"{nodes} nodes",
        {
            **now_and_here(),
            "nodes": nodes,
            "first": first,
            "seeds": outcome.seeds,
            "seconds": round(verdict.seconds),
            "proposals": outcome.proposals,
            "acknowledged": outcome.acknowledged,
            "codes": outcome.codes_accepted,
            "violations": len(outcome.violations),
            "effects": {effect.name: outcome.effects[effect] for effect in Effect},
            "comparisons": {
                comparison.name: outcome.comparisons[comparison]
                for comparison in Comparison
            },
        },
    )


def record_planted(rows: list[dict[str, str]], seconds: float) -> None:
    """Put the planted bugs on the page."""
    _record("planted", {**now_and_here(), "seconds": round(seconds), "rows": rows})


def _record(name: str, numbers: dict[str, Any]) -> None:
    PAGE.write_text(page(keep(PAGE, name, numbers)))


def page(results: dict[str, Any]) -> str:
    """Return the page."""
    campaigns = [r for name, r in sorted(results.items()) if "effects" in r]
    lines = [
        "# Results of the simulation",
        "",
        "Written by `make sim` (from 1,000 seeds on) and `make sim-planted`; do not edit.",
        f"[replication/DESIGN.md]({DESIGN}) describes the simulation and its checks.",
        "",
        "## Random faults",
        "",
        row("", *(f"{c['nodes']} nodes" for c in campaigns)),
        row("---", *("---:" for _ in campaigns)),
        row("command", *(f"`{_command(c)}`" for c in campaigns)),
        row("date", *(c["date"] for c in campaigns)),
        row("commit", *(c["commit"] for c in campaigns)),
        row("machine", *(c["machine"] for c in campaigns)),
        row("seconds", *(f"{c['seconds']:,}" for c in campaigns)),
        row("schedules", *(f"{c['seeds']:,}" for c in campaigns)),
        row(
            "**schedules that broke a promise**",
            *(f"**{c['violations']}**" for c in campaigns),
        ),
        row("proposals", *(f"{c['proposals']:,}" for c in campaigns)),
        row("requests acknowledged", *(f"{c['acknowledged']:,}" for c in campaigns)),
        row("codes and tokencodes spent", *(f"{c['codes']:,}" for c in campaigns)),
    ]
    lines += [
        row(effect.value, *(f"{c['effects'].get(effect.name, 0):,}" for c in campaigns))
        for effect in Effect
    ]
    if any("comparisons" in campaign for campaign in campaigns):
        lines += ["", *_compared(campaigns)]
    if planted := results.get("planted"):
        lines += ["", "## Planted bugs", ""]
        lines += [
            _of_planted(planted),
            "",
            row("bug", "found by", "seed", "same seeds without the bug"),
            row("---", "---", "---:", "---"),
        ]
        lines += [
            row(each["bug"], each["found_by"], each["seed"], each["without"])
            for each in planted["rows"]
        ]
    return "\n".join(lines) + "\n"


def _compared(campaigns: Sequence[dict[str, Any]]) -> list[str]:
    return [
        "What the checks compared:",
        "",
        row("", *(f"{c['nodes']} nodes" for c in campaigns)),
        row("---", *("---:" for _ in campaigns)),
        *(
            row(
                comparison.value,
                *(
                    _number(c.get("comparisons", {}), comparison.name)
                    for c in campaigns
                ),
            )
            for comparison in Comparison
        ),
    ]


def _number(numbers: dict[str, int], name: str) -> str:
    """Return a number, or nothing if an earlier campaign did not count it."""
    return f"{numbers[name]:,}" if name in numbers else ""


def _of_planted(planted: dict[str, Any]) -> str:
    rows = planted["rows"]
    result = sum(each["found"] == "yes" for each in rows)
    return (
        f"`make sim-planted`, {planted['date']}, commit {planted['commit']},"
        f" {planted['seconds']:,} s: {result} of {len(rows)} found."
    )


def _command(campaign: dict[str, Any]) -> str:
    first = f" FIRST={campaign['first']}" if campaign["first"] else ""
    nodes = f" NODES={campaign['nodes']}" if campaign["nodes"] != 3 else ""
    return f"make sim SEEDS={campaign['seeds']}{first}{nodes}"
