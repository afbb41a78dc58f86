# SPDX-License-Identifier: Apache-2.0
"""
Check the specification of replication with TLC, and that it sees what is taken out.

    make model
    make model RUN="crashes and power cuts"
    make model-traces SEEDS=30

The second looks for a run of the specification that explains what simulated nodes have
done. Some runs take long. The page docs/results/model.md has the latest of each.
"""

import argparse
import json
import sys
import time
from collections import Counter
from typing import Any

from tests.model.checker import INVARIANTS, check
from tests.model.runs import BROKEN, SOUND
from tests.model.traces import PROFILES, explain, record
from tests.results import FOLDER, keep, now_and_here, row
from tests.simulation.faults import Profile

PAGE = FOLDER / "model.md"
TRACE_S = 4.0
"""How long a recorded run lasts at most, in its own time."""
MEMBERS_S = 6.0
"""How long a run lasts at most in which members come and go."""

BOUNDS = {
    "3 members, 2 terms, 2 entries": (
        "the number of members in the beginning, and the most terms, and entries in a"
        " log; likewise crashes, changes of members, and reads."
    ),
    "newcomers": "machines that are not members in the beginning, and may become members.",
    "wiped": "nodes that lose their disk and come back without it.",
    "journals without names": (
        "a new cluster, whose members do not know the ids of each other's journals yet."
        " With these ids they notice that a member was wiped."
    ),
    "no message of a leader arrives": (
        "nodes hear of votes alone. This makes the search for a violation shorter."
    ),
}
"""The words of `Setup` for bounds, each with its meaning."""


def main() -> int:
    """Make the runs, print a line for each, and return 1 if one is not as expected."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", choices=[*SOUND, *BROKEN])
    parser.add_argument("--traces", type=int, metavar="SEEDS")
    wanted = parser.parse_args()
    if wanted.traces:
        return _traces(wanted.traces)
    good = True
    # The short ones first: what is known is on the page even if the rest takes too long.
    for name, run in (*((b, _broken) for b in BROKEN), *((s, _sound) for s in SOUND)):
        if wanted.run in (None, name):
            outcome = run(name)
            good = good and outcome["good"]
            _keep_run(outcome)
    return 0 if good else 1


def _keep_run(outcome: dict[str, Any]) -> None:
    """Put one run on the page, instead of the last one of its name."""
    kept = PAGE.with_suffix(".json")
    results = json.loads(kept.read_text()) if kept.exists() else {}
    runs = {each["name"]: each for each in results.get("model", {}).get("runs", [])}
    runs[outcome["name"]] = {**now_and_here(), **outcome}
    _write("model", {"runs": [runs[n] for n in (*SOUND, *BROKEN) if n in runs]})


def _write(name: str, numbers: dict[str, Any]) -> None:
    PAGE.write_text(page(keep(PAGE, name, numbers)))


def _traces(seeds: int) -> int:
    """Explain this many runs with faults, and as many in which members come and go."""
    total: Counter[str] = Counter(runs=seeds)
    faults = [(seed, TRACE_S, PROFILES[seed % len(PROFILES)]) for seed in range(seeds)]
    members = [(seed, MEMBERS_S, Profile.MEMBERS) for seed in range(seeds)]
    for seed, seconds, profile in (*faults, *members):
        recording = record(seed, seconds=seconds, profile=profile)
        explanation = explain(recording)
        counts = recording.counts()
        print(
            f"seed {seed}, {profile.name}: {explanation.explained} of"
            f" {counts['steps']} steps explained, {explanation.states:,} states",
            flush=True,
        )
        if explanation.first_refused is not None:
            print(explanation.first_refused)
            return 1
        total += counts
    _write("traces", {**now_and_here(), **total})
    return 0


def _sound(name: str) -> dict[str, Any]:
    started = time.monotonic()
    outcome = check(SOUND[name])
    seconds = round(time.monotonic() - started)
    print(
        f"{name}: {outcome.states:,} states, {seconds} s,"
        f" {outcome.violated or 'no invariant'} violated",
        flush=True,
    )
    if outcome.violated:
        print(outcome.story)
    return {
        "name": name,
        "states": outcome.states,
        "seconds": seconds,
        "violated": outcome.violated,
        "good": outcome.violated is None,
    }


def _broken(name: str) -> dict[str, Any]:
    started = time.monotonic()
    outcome = check(BROKEN[name], broken=[name])
    seconds = round(time.monotonic() - started)
    print(
        f'without "{name}": {outcome.violated or "NOT FOUND"} after'
        f" {outcome.states:,} states, {seconds} s",
        flush=True,
    )
    return {
        "name": name,
        "states": outcome.states,
        "seconds": seconds,
        "violated": outcome.violated,
        "good": outcome.violated is not None,
    }


def page(results: dict[str, Any]) -> str:
    """Return the page of the results."""
    lines = [
        "# Results of the model checker",
        "",
        (
            "Written by `make model` and `make model-traces`; do not edit. The"
            " specification is [Replication.tla](../../tests/model/Replication.tla);"
            " it says what it leaves out."
        ),
        "",
    ]
    if "model" in results:
        lines += [*_checked(results["model"]), *_meanings()]
    if "traces" in results:
        lines += _explained(results["traces"])
    return "\n".join(lines)


def _explained(numbers: dict[str, Any]) -> list[str]:
    counted = {
        "restarts": "restarts",
        "terms": "terms",
        "learners": "learners added",
        "joined": "learners made voters",
        "left": "members removed",
        "wiped": "nodes that lost their disk",
    }
    *counts, last = [f"{numbers.get(each, 0)} {name}" for each, name in counted.items()]
    return [
        "## What simulated nodes do is what the specification allows",
        "",
        f"`make model-traces SEEDS={numbers['runs']}`: {_when(numbers)}",
        "",
        (
            f"{numbers['runs']} runs of three nodes with faults, {TRACE_S:.0f} seconds"
            f" each, and {numbers['runs']} in which members come and go, too,"
            f" {MEMBERS_S:.0f} seconds each at most: {numbers['steps']:,} steps,"
            f" {', '.join(counts)} and {last}. For each step there are actions of the"
            " specification that make it (`tests/model/Trace.tla`)."
        ),
        "",
    ]


def _when(numbers: dict[str, Any]) -> str:
    return f"{numbers['date']}, commit {numbers['commit']}, {numbers['machine']}."


def _checked(numbers: dict[str, Any]) -> list[str]:
    runs = {each["name"]: each for each in numbers["runs"]}
    machines = sorted({each["machine"] for each in numbers["runs"]})
    missing = [name for name in (*SOUND, *BROKEN) if name not in runs]
    sound = [runs[name] for name in SOUND if name in runs]
    if not sound:
        title = "## All protections in place: not run yet"
    elif any(each["violated"] for each in sound):
        title = "## All protections in place: an invariant is violated"
    else:
        title = "## All protections in place: no invariant is violated"
    return [
        title,
        "",
        (
            "`make model`: TLC visits every state within the bounds."
            f" {' and '.join(machines)}."
        ),
        "",
        row("run", "bounds", "violated", "states", "seconds", "date", "commit"),
        row("---", "---", "---", "---:", "---:", "---", "---"),
        *(
            row(
                name,
                SOUND[name],
                runs[name]["violated"] or "nothing",
                f"{runs[name]['states']:,}",
                f"{runs[name]['seconds']:,}",
                runs[name]["date"],
                runs[name]["commit"],
            )
            for name in SOUND
            if name in runs
        ),
        "",
        "## One protection taken out: a violated invariant is found",
        "",
        row("without", "bounds", "violated", "states until then", "date", "commit"),
        row("---", "---", "---", "---:", "---", "---"),
        *(
            row(
                name,
                BROKEN[name],
                runs[name]["violated"] or "NOTHING",
                f"{runs[name]['states']:,}",
                runs[name]["date"],
                runs[name]["commit"],
            )
            for name in BROKEN
            if name in runs
        ),
        "",
        *(
            [f"Not run yet: {', '.join(missing)} (`make model`).", ""]
            if missing
            else []
        ),
    ]


def _meanings() -> list[str]:
    return [
        "## What the words mean",
        "",
        *(f"* `{name}`: {meaning}" for name, meaning in INVARIANTS.items()),
        "",
        *(f"* *{bound}*: {meaning}" for bound, meaning in BOUNDS.items()),
        "",
    ]


if __name__ == "__main__":
    sys.exit(main())
