# SPDX-License-Identifier: Apache-2.0
"""The results page of `make faults`."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.faults.bounds import OTHERS, recovery_s
from tests.faults.plans import CAMPAIGN, SERIES, Plan
from tests.faults.probes import GAP_MAX_S
from tests.faults.report import log_lines, rolling_restarts
from tests.results import FOLDER, ROOT, keep, now_and_here, row

PAGE = FOLDER / "faults.md"
DESIGN = "../../node/sparecode_node/replication/DESIGN.md"
KEPT = (
    *("seed", "seconds", "operations", "kinds", "results", "answered", "not_done"),
    *("unknown", "definite_part", "successes_per_s_with_quorum", "codes", "users"),
    *("longest_without_success_s", "longest_without_success_during", "restarts"),
    *("longest_without_success_with_quorum_s", "compactions", "snapshots_installed"),
    *("probes", "load", "strikes", "ghosts", "success_after_kill_s", "final_reads"),
    "log",
    *(
        "final_digest",
        "consumes",
        "double_spends",
        "not_linearizable",
        "acknowledged_and_lost",
    ),
)
"""The figures of a run that the page keeps."""


def record(plan: Plan, figures: Mapping[str, Any], why: Sequence[str]) -> Path:
    """Put a run on the page, in place of the previous run of its kind."""
    numbers = {
        **now_and_here(),
        "title": plan.title,
        "command": plan.command,
        "failures": list(why),
        **{key: figures[key] for key in KEPT},
    }
    PAGE.write_text(page(keep(PAGE, plan.name, numbers)))
    return PAGE.relative_to(ROOT)


BOUNDS = "\n".join(row(what, f"{seconds:.0f} s") for what, seconds in OTHERS.items())

HEAD = f"""\
# Results of faults on real processes

Written by `make faults` (from 10 minutes on) and `make faults-series`; do not edit.
[replication/DESIGN.md]({DESIGN}) describes the faults and the checks.
Load is the load average of the machine over five minutes, before and after the run.

A run fails if the cluster recovers later than within these bounds. The bounds for the
time from the end of a fault until every node serves are in the tables of the faults. The
other bounds:

{row("what", "bound")}
{row("---", "---:")}
{BOUNDS}
"""


def page(results: Mapping[str, Any]) -> str:
    """Return the page."""
    runs = [results[name] for name in (CAMPAIGN, *SERIES) if name in results]
    lines = [
        HEAD,
        row("run", "command", "commit", "faults", "operations", "anomalies", "verdict"),
        row("---", "---", "---", "---:", "---:", "---:", "---"),
        *(_summary(each) for each in runs),
    ]
    for each in runs:
        lines += ["", f"## {each['title']}", "", *_whole(each)]
    return "\n".join(lines) + "\n"


def _summary(run: Mapping[str, Any]) -> str:
    faults = len(run["strikes"]) or len(run["ghosts"])
    return row(
        run["title"],
        f"`{run['command']}`",
        run["commit"],
        faults,
        f"{run['operations']:,}",
        _anomalies(run),
        "; ".join(run["failures"]) or "passed",
    )


def _anomalies(run: Mapping[str, Any]) -> int:
    return (
        len({*run["double_spends"], *run["not_linearizable"]})
        + len(run["acknowledged_and_lost"])
        + sum(each["false_acknowledgements"] for each in run["ghosts"])
    )


def _whole(run: Mapping[str, Any]) -> list[str]:
    before, after = run["load"]
    where = f"{run['machine']}, load {before} and {after}"
    lines = [
        f"{run['date']}, commit {run['commit']}, seed {run['seed']}, on {where}.",
        "",
        row("", ""),
        row("---", "---:"),
        *(row(name, value) for name, value in _numbers(run)),
    ]
    if run["strikes"]:
        lines += ["", *_strikes(run["strikes"])]
    return lines


def _numbers(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    numbers = [
        ("**codes accepted more than once**", f"**{len(run['double_spends'])}**"),
        (
            "**codes with answers that no order explains**",
            f"**{len(run['not_linearizable'])}**",
        ),
        (
            "**acknowledged changes lost on any node**",
            f"**{len(run['acknowledged_and_lost'])}**",
        ),
    ]
    if run["ghosts"]:
        numbers += _ghosts(run["ghosts"])
    if after := run["success_after_kill_s"]:
        numbers += [
            ("kills of the primary", f"{len(after)}"),
            (
                "next success on the survivors: median, maximum",
                f"{statistics.median(after):.2f} s, {max(after):.2f} s",
            ),
        ]
    if restarts := rolling_restarts(run):
        numbers.append(("rolling restarts", restarts))
    if not run["strikes"]:
        return numbers
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in run["kinds"].items())
    longest = run["longest_without_success_s"]
    during = run["longest_without_success_during"]
    return [
        *numbers,
        ("seconds", f"{run['seconds']:,.0f}"),
        ("operations", f"{run['operations']:,} ({kinds})"),
        *(
            (f"answered attempts by {protocol}", f"{answered:,} of {count:,}")
            for protocol, (answered, count) in run.get("consumes", {}).items()
        ),
        ("codes, users", f"{run['codes']:,}, {run['users']:,}"),
        ("answered", f"{run['answered']:,} ({run['definite_part']:.1%})"),
        ("errors: nothing was done", f"{run['not_done']:,}"),
        ("unknown", f"{run['unknown']:,}"),
        (
            "successes per second while a quorum existed",
            f"{run['successes_per_s_with_quorum']:,}",
        ),
        ("longest time without a success", f"{longest} s ({during})"),
        (
            "the same while a quorum existed",
            f"{run['longest_without_success_with_quorum_s']} s",
        ),
        *_probes(run.get("probes")),
        *(log_lines(run["log"]) if "log" in run else ()),
        ("node restarts", f"{run['restarts']:,}"),
        ("logs compacted", f"{run['compactions']:,}"),
        ("snapshots installed", f"{run['snapshots_installed']:,}"),
        ("reads of the final state (every code on every node)", _final(run)),
    ]


def _probes(probes: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    if probes is None:
        return []
    return [
        (
            "calls of the prober: accepted, failed after all retries",
            f"{probes['calls']:,}: {probes['accepted']:,}, {probes['failed']:,}",
        ),
        (
            "**longest time without an answer to the prober while a quorum existed**",
            f"**{probes['gap_s']} s** of {GAP_MAX_S:.0f} s",
        ),
        ("slowest answer to the prober", f"{probes['slowest_s']} s"),
    ]


def _ghosts(ghosts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    def total(name: str) -> int:
        return sum(each[name] for each in ghosts)

    return [
        ("cut-off primaries, each with 10 changes", f"{len(ghosts)}"),
        (
            "these changes: acknowledged, unknown, not done",
            f"{total('acknowledged')}, {total('unknown')}, {total('not_done')}",
        ),
        (
            "**acknowledged, but not on every node**",
            f"**{total('false_acknowledgements')}**",
        ),
    ]


def _final(run: Mapping[str, Any]) -> str:
    digest = run["final_digest"][:16]
    return f"{run['final_reads']:,}; digest {digest or 'UNEQUAL'}"


def _strikes(strikes: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        row("fault", "times", "with effect", "slowest recovery", "bound", "example"),
        row("---", "---:", "---:", "---:", "---:", "---"),
    ]
    for fault in sorted({each["fault"] for each in strikes}):
        same = [each for each in strikes if each["fault"] == fault]
        lines.append(
            row(
                fault.replace("_", " "),
                len(same),
                sum(each["bit"] for each in same),
                f"{max(each['return_s'] for each in same):.1f} s",
                f"{recovery_s(fault):.0f} s",
                same[-1]["proof"],
            )
        )
    return lines
