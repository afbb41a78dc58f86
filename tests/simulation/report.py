# SPDX-License-Identifier: Apache-2.0
"""
The results page: what the last campaigns have shown, and how to repeat them.

The numbers are kept beside the page as JSON; each campaign replaces its own.
"""

import datetime as dt
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from tests.simulation.bites import Bite
from tests.simulation.campaign import Verdict

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "results" / "simulation.md"
DESIGN = "../../node/sparecode_node/replication/DESIGN.md"
RECORD_FROM_SEEDS = 1000
"""Fewer are for a quick look, and do not replace what more have shown."""


def now_and_here() -> dict[str, str]:
    """Return when and on what this runs."""
    commit = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    # The page itself changes by being written.
    changed = _git("status", "--porcelain", "--", "node", "protos", "tests")
    return {
        "date": f"{dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC",
        "commit": commit + (" with changes" if changed else ""),
        "machine": f"{os.cpu_count()} cores, {platform.system()},"
        f" Python {platform.python_version()}",
    }


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ("git", *arguments), cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


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
            "bites": {bite.name: outcome.bites[bite] for bite in Bite},
        },
    )


def record_planted(rows: list[dict[str, str]], seconds: float) -> None:
    """Put the planted bugs on the page."""
    _record("planted", {**now_and_here(), "seconds": round(seconds), "rows": rows})


def _record(name: str, numbers: dict[str, Any]) -> None:
    kept = PAGE.with_suffix(".json")
    kept.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(kept.read_text()) if kept.exists() else {}
    results[name] = numbers
    kept.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(results))


def page(results: dict[str, Any]) -> str:
    """Return the page."""
    campaigns = [r for name, r in sorted(results.items()) if "bites" in r]
    lines = [
        "# What the simulation has shown",
        "",
        "Written by `make sim` (from 1,000 seeds on) and `make sim-planted`; do not edit.",
        f"What is simulated, and what is checked: [replication/DESIGN.md]({DESIGN}).",
        "",
        "## Random faults",
        "",
        _row("", *(f"{c['nodes']} nodes" for c in campaigns)),
        _row("---", *("---:" for _ in campaigns)),
        _row("again with", *(f"`{_command(c)}`" for c in campaigns)),
        _row("date", *(c["date"] for c in campaigns)),
        _row("commit", *(c["commit"] for c in campaigns)),
        _row("on", *(c["machine"] for c in campaigns)),
        _row("seconds", *(f"{c['seconds']:,}" for c in campaigns)),
        _row("schedules", *(f"{c['seeds']:,}" for c in campaigns)),
        _row(
            "**schedules that broke a promise**",
            *(f"**{c['violations']}**" for c in campaigns),
        ),
        _row("proposals", *(f"{c['proposals']:,}" for c in campaigns)),
        _row("requests acknowledged", *(f"{c['acknowledged']:,}" for c in campaigns)),
        _row("codes and tokencodes spent", *(f"{c['codes']:,}" for c in campaigns)),
    ]
    lines += [
        _row(bite.value, *(f"{c['bites'].get(bite.name, 0):,}" for c in campaigns))
        for bite in Bite
    ]
    if planted := results.get("planted"):
        lines += ["", "## Planted bugs", ""]
        lines += [
            _of_planted(planted),
            "",
            _row("bug", "found by", "seed", "the same seeds without it"),
            _row("---", "---", "---:", "---"),
        ]
        lines += [
            _row(row["bug"], row["found_by"], row["seed"], row["without"])
            for row in planted["rows"]
        ]
    return "\n".join(lines) + "\n"


def _of_planted(planted: dict[str, Any]) -> str:
    rows = planted["rows"]
    found = sum(row["found"] == "yes" for row in rows)
    return (
        f"`make sim-planted`, {planted['date']}, commit {planted['commit']},"
        f" {planted['seconds']:,} s: {found} of {len(rows)} found."
    )


def _command(campaign: dict[str, Any]) -> str:
    first = f" FIRST={campaign['first']}" if campaign["first"] else ""
    nodes = f" NODES={campaign['nodes']}" if campaign["nodes"] != 3 else ""
    return f"make sim SEEDS={campaign['seeds']}{first}{nodes}"


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"
