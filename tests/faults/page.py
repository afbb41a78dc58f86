# SPDX-License-Identifier: Apache-2.0
"""The results page of `make faults`."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.faults.plans import CAMPAIGN, SERIES, Plan
from tests.faults.report import rolling_restarts
from tests.results import FOLDER, ROOT, keep, now_and_here, row

PAGE = FOLDER / "faults.md"
DESIGN = "../../node/sparecode_node/replication/DESIGN.md"
KEPT = (
    *("seed", "seconds", "operations", "kinds", "results", "answered", "not_done"),
    *("unknown", "definite_part", "successes_per_s_with_quorum", "codes", "users"),
    *("longest_without_success_s", "longest_without_success_during", "restarts"),
    *("longest_without_success_with_quorum_s", "compactions", "snapshots_installed"),
    *("load", "strikes", "ghosts", "success_after_kill_s", "final_reads"),
    *("final_digest", "double_spends", "not_linearizable", "acknowledged_and_lost"),
)
"""Of the figures of a run."""


def record(plan: Plan, figures: Mapping[str, Any], why: Sequence[str]) -> Path:
    """Put a run on the page, in the place of the last one of its kind."""
    numbers = {
        **now_and_here(),
        "title": plan.title,
        "command": plan.command,
        "failures": list(why),
        **{key: figures[key] for key in KEPT},
    }
    PAGE.write_text(page(keep(PAGE, plan.name, numbers)))
    return PAGE.relative_to(ROOT)


HEAD = f"""\
# What faults on real processes have shown

Written by `make faults` (from 10 minutes on) and `make faults-series`; do not edit.
What is struck, and what is checked: [replication/DESIGN.md]({DESIGN}).
The load is the machine's over five minutes, before and after: whatever else ran there.
"""


def page(results: Mapping[str, Any]) -> str:
    """Return the page."""
    found = [results[name] for name in (CAMPAIGN, *SERIES) if name in results]
    lines = [
        HEAD,
        row("", "again with", "commit", "faults", "operations", "anomalies", "verdict"),
        row("---", "---", "---", "---:", "---:", "---:", "---"),
        *(_summary(each) for each in found),
    ]
    for each in found:
        lines += ["", f"## {each['title']}", "", *_whole(each)]
    return "\n".join(lines) + "\n"


def _summary(found: Mapping[str, Any]) -> str:
    faults = len(found["strikes"]) or len(found["ghosts"])
    return row(
        found["title"],
        f"`{found['command']}`",
        found["commit"],
        faults,
        f"{found['operations']:,}",
        _anomalies(found),
        "; ".join(found["failures"]) or "passed",
    )


def _anomalies(found: Mapping[str, Any]) -> int:
    return (
        len({*found["double_spends"], *found["not_linearizable"]})
        + len(found["acknowledged_and_lost"])
        + sum(each["false_acknowledgements"] for each in found["ghosts"])
    )


def _whole(found: Mapping[str, Any]) -> list[str]:
    before, after = found["load"]
    where = f"{found['machine']}, load {before} and {after}"
    lines = [
        f"{found['date']}, commit {found['commit']}, seed {found['seed']}, on {where}.",
        "",
        row("", ""),
        row("---", "---:"),
        *(row(name, value) for name, value in _numbers(found)),
    ]
    if found["strikes"]:
        lines += ["", *_strikes(found["strikes"])]
    return lines


def _numbers(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    numbers = [
        ("**codes accepted more than once**", f"**{len(found['double_spends'])}**"),
        (
            "**codes with answers that no order explains**",
            f"**{len(found['not_linearizable'])}**",
        ),
        (
            "**acknowledged and lost, on any node**",
            f"**{len(found['acknowledged_and_lost'])}**",
        ),
    ]
    if found["ghosts"]:
        numbers += _ghosts(found["ghosts"])
    if after := found["success_after_kill_s"]:
        numbers += [
            ("the primary killed", f"{len(after)} times"),
            (
                "next success at the survivors: median, maximum",
                f"{statistics.median(after):.2f} s, {max(after):.2f} s",
            ),
        ]
    if restarts := rolling_restarts(found):
        numbers.append(("rolling restarts", restarts))
    if not found["strikes"]:
        return numbers
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found["kinds"].items())
    longest = found["longest_without_success_s"]
    during = found["longest_without_success_during"]
    return [
        *numbers,
        ("seconds", f"{found['seconds']:,.0f}"),
        ("operations", f"{found['operations']:,} ({kinds})"),
        ("codes, users", f"{found['codes']:,}, {found['users']:,}"),
        ("answered", f"{found['answered']:,} ({found['definite_part']:.1%})"),
        ("told that nothing was done", f"{found['not_done']:,}"),
        ("unknown", f"{found['unknown']:,}"),
        (
            "successes a second while a quorum existed",
            f"{found['successes_per_s_with_quorum']:,}",
        ),
        ("longest time without a success", f"{longest} s ({during})"),
        (
            "the same while a quorum existed",
            f"{found['longest_without_success_with_quorum_s']} s",
        ),
        ("nodes started again", f"{found['restarts']:,}"),
        ("logs compacted", f"{found['compactions']:,}"),
        ("snapshots installed", f"{found['snapshots_installed']:,}"),
        ("reads of the final state, of every code on every node", _final(found)),
    ]


def _ghosts(ghosts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    def total(name: str) -> int:
        return sum(each[name] for each in ghosts)

    return [
        ("a primary cut off and asked for 10 changes", f"{len(ghosts)} times"),
        (
            "of these acknowledged, unknown, not done",
            f"{total('acknowledged')}, {total('unknown')}, {total('not_done')}",
        ),
        (
            "**acknowledged and not on every node**",
            f"**{total('false_acknowledgements')}**",
        ),
    ]


def _final(found: Mapping[str, Any]) -> str:
    digest = found["final_digest"][:16]
    return f"{found['final_reads']:,}; digest {digest or 'UNEQUAL'}"


def _strikes(strikes: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        row("fault", "times", "bit", "slowest return", "one proof of them"),
        row("---", "---:", "---:", "---:", "---"),
    ]
    for fault in sorted({each["fault"] for each in strikes}):
        found = [each for each in strikes if each["fault"] == fault]
        lines.append(
            row(
                fault.replace("_", " "),
                len(found),
                sum(each["bit"] for each in found),
                f"{max(each['return_s'] for each in found):.1f} s",
                found[-1]["proof"],
            )
        )
    return lines
