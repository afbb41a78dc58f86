# SPDX-License-Identifier: Apache-2.0
"""
The results page of the simulation.

`python -m tests.simulation.report` writes it again from its numbers: what it says about
the simulation, and the reasons on it, may have changed since the last run.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.results import FOLDER, keep, now_and_here, row
from tests.simulation.campaign import (
    EVERY_FAULT_FROM_SEEDS,
    LOST_FROM_SEEDS,
    MIXED_FROM_SEEDS,
    Campaign,
    Verdict,
    whole_from_seeds,
)
from tests.simulation.comparisons import Comparison, comparisons_of
from tests.simulation.fault_effects import Effect, effects_of
from tests.simulation.kinds import Kind
from tests.simulation.reached import reason_for, reason_for_branch
from tests.simulation.scope import SCOPE

PAGE = FOLDER / "simulation.md"
DESIGN = "../../node/sparecode_node/replication/DESIGN.md"
RECORD_FROM_SEEDS = 1000
"""
Campaigns with fewer seeds are quick checks and do not go to the page.

Of the other kinds, which take more time, those go there in which nothing may be absent.
"""

WRITTEN_BY = (
    f"Written by `make sim` (from {RECORD_FROM_SEEDS:,} seeds on), `make sim-nodes`,"
    f" `make sim-disks` and `make sim-outbox` (from {EVERY_FAULT_FROM_SEEDS} on),"
    f" `make sim-mixed` (from {MIXED_FROM_SEEDS} on), `make sim-lost` (from"
    f" {LOST_FROM_SEEDS} on), `make sim-coverage`, `make sim-inherited` and"
    " `make sim-planted`; do not edit."
)

FUNCTION_FROM = 3
"""Statements of a function of PySyncObj that the page names."""

_TIMES = (
    ("longest time without an answer of a core left alone", "longest_s"),
    ("longest time without one of each of its nodes", "longest_each_s"),
)

_LENGTHS = (
    ("highest index of an applied entry", "highest_index"),
    ("entries in the longest log", "longest_log"),
)


def enough(campaign: Campaign, seeds: int) -> bool:
    """Return whether a campaign has enough seeds for the page."""
    engines = campaign.kind is Kind.ENGINES
    return seeds >= (RECORD_FROM_SEEDS if engines else whole_from_seeds(campaign.kind))


def record_campaign(campaign: Campaign, first: int, verdict: Verdict) -> None:
    """Put a campaign on the page."""
    outcome = verdict.outcome
    kind = campaign.kind
    kinds = {
        "nodes": campaign.nodes,
        "whole": kind.is_whole,
        "mixed": kind.is_mixed,
        "lost": kind is Kind.LOST,
        "outbox": kind is Kind.OUTBOX,
        "files": kind is Kind.FILES,
    }
    _record(
        _name(kinds),
        {
            **now_and_here(),
            **kinds,
            "first": first,
            "seeds": outcome.seeds,
            "seconds": round(verdict.seconds),
            "proposals": outcome.proposals,
            "acknowledged": outcome.acknowledged,
            "codes": outcome.codes_accepted,
            "violations": len(outcome.violations),
            "longest_s": round(outcome.longest_s, 2),
            "longest_each_s": round(outcome.longest_each_s, 2),
            "highest_index": outcome.highest_index,
            "longest_log": outcome.longest_log,
            "effects": {
                effect.name: outcome.effects[effect]
                for effect in effects_of(verdict.kind)
            },
            "comparisons": {
                comparison.name: outcome.comparisons[comparison]
                for comparison in comparisons_of(
                    verdict.kind, recording=verdict.recording
                )
            },
        },
    )


def record_planted(rows: list[dict[str, str]], known: Mapping[str, str]) -> None:
    """
    Put planted bugs on the page, instead of what it says about them.

    *known*: the titles of all planted bugs, and why no seed finds each, if none does;
    others leave the page.
    """
    kept = PAGE.with_suffix(".json")
    results = json.loads(kept.read_text()) if kept.exists() else {}
    here = now_and_here()
    before = results.get("planted", {}).get("rows", [])
    by_title = {row["bug"]: row for row in before if "commit" in row}
    for each in rows:
        by_title[each["bug"]] = {**here, **each}
    latest = [
        {**by_title[title], "no_seed": why}
        for title, why in known.items()
        if title in by_title
    ]
    _record("planted", {"rows": latest, "known": len(known)})


def record_branches(numbers: dict[str, Any]) -> None:
    """Put on the page which branches the seeds reach."""
    _record("branches", {**now_and_here(), **numbers})


def record_inherited(numbers: dict[str, Any]) -> None:
    """Put on the page what runs of PySyncObj, and what is ours."""
    _record("inherited", {**now_and_here(), **numbers})


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
    lines += [
        row(title, *(f"{c[key]:,}" if c.get(key) else "" for c in campaigns))
        for title, key in _LENGTHS
        if any(c.get(key) for c in campaigns)
    ]
    if any("comparisons" in campaign for campaign in campaigns):
        lines += ["", *_compared(campaigns)]
    if branches := results.get("branches"):
        lines += ["", *_of_branches(branches)]
    if inherited := results.get("inherited"):
        lines += ["", *_of_inherited(inherited)]
    if planted := results.get("planted"):
        lines += ["", *_of_planted(planted)]
    return "\n".join(lines) + "\n"


def _of_branches(branches: dict[str, Any]) -> list[str]:
    modules = branches["modules"]
    reached = sum(each["branches_reached"] for each in modules)
    everything = sum(each["branches"] for each in modules)
    kinds = ", ".join(f"{n} of `{kind}`" for kind, n in branches["kinds"].items())
    return [
        "## Branches of `replication/` that seeds reach",
        "",
        (
            f"`make sim-coverage`, {branches['date']}, commit {branches['commit']}:"
            f" seeds, {kinds}, reach {reached:,} of"
            f" {everything:,} branches ({100 * reached // everything} %)."
        ),
        "",
        row("module", "statements", "branches", "never entered", "entered in part"),
        row("---", "---:", "---:", "---", "---"),
        *(_of_module(each) for each in modules),
        "",
        "Why no seed enters these functions:",
        "",
        *_reasons(modules),
        "",
        "Branches that no seed takes, in the functions that seeds enter:",
        "",
        *_reasons_of_branches(modules),
        "",
        "Lines that stop the node, in the functions that seeds enter, and that none reaches:",
        "",
        *_reasons_of_stops(modules),
    ]


def _of_module(module: dict[str, Any]) -> str:
    return row(
        f"`{module['module']}`",
        f"{module['reached']} of {module['statements']}",
        f"{module['branches_reached']} of {module['branches']}",
        ", ".join(f"`{name}`" for name in module["never"]),
        ", ".join(f"`{name}`" for name in sorted({p[0] for p in module["partly"]})),
    )


def _reasons(modules: Sequence[dict[str, Any]]) -> list[str]:
    by_reason: dict[str, dict[str, int]] = {}
    for each in modules:
        for name in each["never"]:
            reason = reason_for(each["module"], name) or "Not known."
            counts = by_reason.setdefault(reason, {})
            counts[each["module"]] = counts.get(each["module"], 0) + 1
    return [
        f"* {', '.join(f'`{m}` ({n})' for m, n in counts.items())}: {reason}"
        for reason, counts in by_reason.items()
    ]


def _reasons_of_branches(modules: Sequence[dict[str, Any]]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for each in modules:
        for name, begin, end in each["partly"]:
            if [name, end] in each.get("stops", []):
                continue  # The page has its reason there.
            reason = reason_for_branch(each["module"], name, end) or "Not known."
            branch = f"  * `{each['module']}`, `{name}`: `{begin}` to `{end}`"
            by_reason.setdefault(reason, []).append(branch)
    return [
        line
        for reason, branches in by_reason.items()
        for line in (f"* {reason}", *branches)
    ]


def _reasons_of_stops(modules: Sequence[dict[str, Any]]) -> list[str]:
    return [
        f"* `{each['module']}`, `{name}`: `{stop}`:"
        f" {reason_for_branch(each['module'], name, stop) or 'Not known.'}"
        for each in modules
        for name, stop in each.get("stops", [])
    ]


def _of_inherited(inherited: dict[str, Any]) -> list[str]:
    modules, ours = inherited["modules"], inherited["ours"]
    functions = inherited["functions"]
    made = functions.get("__init__", 0)
    return [
        "## What runs of PySyncObj, and what is ours",
        "",
        (
            f"`make sim-inherited`, {inherited['date']}, commit {inherited['commit']}:"
            f" {inherited['seeds']} seeds reach {sum(modules.values()):,} of the"
            f" {inherited['everything']:,} statements of the package. In `syncobj.py`,"
            " which has terms, elections, the commit rule and the apply loop, they reach"
            f" {sum(functions.values()) - made:,} in functions and {made:,} in"
            f" constructors. Ours are {sum(ours.values()):,} statements."
        ),
        "",
        row(f"PySyncObj; functions from {FUNCTION_FROM} on", "statements that run"),
        row("---", "---:"),
        *(row(f"`{n}`", count) for n, count in modules.items() if n != "syncobj.py"),
        *(
            row(f"`syncobj.py`, `{name}`", count)
            for name, count in functions.items()
            if name != "__init__" and count >= FUNCTION_FROM
        ),
        "",
        row("ours", "statements"),
        row("---", "---:"),
        *(row(f"`replication/{room}`", f"{n:,}") for room, n in ours.items()),
    ]


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
    # Runs that lose their cluster are mixed, too.
    mixed = "lost" if campaign.get("lost") else "mixed"
    kinds = {mixed: ", long runs", "files": ", simulated files"}
    kinds |= {"lost": ", lost clusters", "outbox": ", channels of notices"}
    whole = "whole " if campaign.get("whole") else ""
    more = "".join(words for kind, words in kinds.items() if campaign.get(kind))
    return f"{campaign['nodes']} {whole}nodes{more}"


def _number(numbers: dict[str, int], name: str) -> str:
    """Return a number, or nothing if an earlier campaign did not count it."""
    return f"{numbers[name]:,}" if name in numbers else ""


def _of_planted(planted: dict[str, Any]) -> list[str]:
    rows = planted["rows"]
    dates = sorted(each["date"] for each in rows)
    by_seed = [each for each in rows if not each["no_seed"]]
    others = [each for each in rows if each["no_seed"]]
    found = sum(each["found"] == "yes" for each in by_seed)
    return [
        "## Planted bugs",
        "",
        (
            f"`make sim-planted`, {dates[0]} to {dates[-1]}:"
            f" {found} of {planted['known'] - len(others)} found by seed."
            " A hunt ends at the first seed in which an invariant, named here, is broken."
        ),
        "",
        row("bug", "broken invariants", "seed", "same seeds without the bug", "commit"),
        row("---", "---", "---:", "---", "---"),
        *(_of_bug(each) for each in by_seed),
        "",
        "## Protections that no seed shows to be needed",
        "",
        (
            "Nothing in these runs goes wrong without them. A directed test fails instead;"
            " it runs with the bug and without it."
        ),
        "",
        row("without the protection", "why no seed", "test", "with it", "commit"),
        row("---", "---", "---", "---", "---"),
        *(
            row(*(e[n] for n in ("bug", "no_seed", "found_by", "without", "commit")))
            for e in others
        ),
    ]


def _of_bug(bug: dict[str, str]) -> str:
    found_by = bug["found_by"].removeprefix("invariant: ")
    return row(bug["bug"], found_by, bug["seed"], bug["without"], bug["commit"])


def _command(campaign: dict[str, Any]) -> str:
    first = f" FIRST={campaign['first']}" if campaign["first"] else ""
    nodes = f" NODES={campaign['nodes']}" if campaign["nodes"] != 3 else ""
    target = Kind.of([name for name, is_so in campaign.items() if is_so]).target
    return f"make {target} SEEDS={campaign['seeds']}{first}{nodes}"


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(PAGE.with_suffix(".json").read_text())))
