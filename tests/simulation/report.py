# SPDX-License-Identifier: Apache-2.0
"""The results page of the simulation."""

from collections.abc import Sequence
from typing import Any

from tests.results import FOLDER, keep, now_and_here, row
from tests.simulation.campaign import Verdict
from tests.simulation.comparisons import Comparison, comparisons_of
from tests.simulation.fault_effects import Effect, effects_of
from tests.simulation.scope import SCOPE

PAGE = FOLDER / "simulation.md"
DESIGN = "../../node/sparecode_node/replication/DESIGN.md"
RECORD_FROM_SEEDS = 1000
"""Campaigns with fewer seeds are quick checks and do not go to the page."""

WRITTEN_BY = (
    "Written by `make sim` (from 1,000 seeds on), `make sim-nodes` and `make sim-disks`"
    " (from 200 on), and `make sim-planted`; do not edit."
)

NODES_FROM_SEEDS = 200
"""And of whole nodes or with simulated files, which take more time."""


_TIMES = (
    ("longest time without an answer of a core left alone", "longest_s"),
    ("longest time without one of each of its nodes", "longest_each_s"),
)


def record_campaign(nodes: int, first: int, verdict: Verdict) -> None:
    """Put a campaign on the page."""
    outcome = verdict.outcome
    _record(
        _title(nodes, whole=verdict.whole, files=verdict.files),
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
            "whole": verdict.whole,
            "files": verdict.files,
            "longest_s": round(outcome.longest_s, 2),
            "longest_each_s": round(outcome.longest_each_s, 2),
            "effects": {
                effect.name: outcome.effects[effect]
                for effect in effects_of(whole=verdict.whole, files=verdict.files)
            },
            "comparisons": {
                comparison.name: outcome.comparisons[comparison]
                for comparison in comparisons_of(
                    whole=verdict.whole, recording=verdict.recording
                )
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
        WRITTEN_BY,
        f"[replication/DESIGN.md]({DESIGN}) describes the simulation and its checks.",
        "",
        *SCOPE.splitlines(),
        "",
        "## Random faults",
        "",
        row("", *(_name(c) for c in campaigns)),
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
        row(effect.value, *(_number(c["effects"], effect.name) for c in campaigns))
        for effect in Effect
    ]
    lines += [
        row(
            title,
            *(f"{c[key]} s" if c.get("whole") else "" for c in campaigns),
        )
        for title, key in _TIMES
        if any(c.get("whole") for c in campaigns)
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
        row("", *(_name(c) for c in campaigns)),
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


def _name(campaign: dict[str, Any]) -> str:
    whole, files = campaign.get("whole", False), campaign.get("files", False)
    return _title(campaign["nodes"], whole=whole, files=files)


def _title(nodes: int, *, whole: bool, files: bool) -> str:
    return f"{nodes} {'whole ' * whole}nodes{', simulated files' * files}"


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
    target = "sim-nodes" if campaign.get("whole") else "sim"
    target = "sim-disks" if campaign.get("files") else target
    return f"make {target} SEEDS={campaign['seeds']}{first}{nodes}"
