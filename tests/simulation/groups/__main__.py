# SPDX-License-Identifier: Apache-2.0
"""
Run many seeds of several clusters: `python -m tests.simulation.groups --seeds 100`.

Exits with 1 if a promise was broken; the output names the seed to run again. It also does
if 100 seeds or more never showed one of the things that are counted.
"""

import argparse
import concurrent.futures
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape

from tests.results import FOLDER, keep, now_and_here, row
from tests.simulation.groups.run import GroupsRun

PAGE = FOLDER / "groups.md"
RECORD_FROM_SEEDS = 100
"""Campaigns with fewer seeds are quick checks and do not go to the page."""
COUNTED = {
    "accepted": "codes accepted",
    "answers": "decisions that programs heard",
    "unknown": "outcomes that were unknown to a program",
    "tokencodes accepted": "passcodes of tokens accepted",
    "tokencodes again": "accepted ones that were tried again, and refused",
    "tokencodes elsewhere": "of these, in another cluster than the first time",
    "next asked for": "passcodes of tokens after which a cluster asked for the next one",
    "next accepted": "next ones that were accepted",
    "answers again": "accepted answers to challenges that a thief has sent again",
    "resynchronized": "tokens resynchronized",
    "clocks set": "clocks of tokens set ahead or back",
    "moves": "moves that took their slots to another cluster",
    "several moved": "of these, of several slots with users",
    "empty moved": "of these, with slots that have no users",
    "parts": "moves begun of a part of the slots that an earlier one had brought",
    "overlaps": "moves begun of slots that another move had in part",
    "users moved": "users moved",
    "tokens moved": "of these, with a token whose passcodes are in use",
    "canceled": "moves canceled",
    "several canceled": "of these, of several slots",
    "approved": "steps of moves that another administrator approved",
    "late approvals": "approvals that came after the operator had given up",
    "moved": "attempts that a cluster sent on, because the slot had moved",
    "held back": "copies of attempts held back for minutes",
    "late and refused": "steps and attempts that arrived late and were refused",
    "thefts refused": "exports, orders and receipts sent again by a thief and refused",
    "outages": "clusters without a quorum for a while",
    "restores": "clusters restored from an earlier state",
    "recoveries": "clusters recovered from a survivor that had their newest state",
    "losses": "clusters lost for good during a move",
    "interrupted": "moves that their operators left because of that",
    "ended by receipt": "such moves that ended with the receipt, perhaps once more",
    "reclaims": "moves whose slots a cluster took back",
    "several reclaimed": "of these, of several slots",
    "parts reclaimed": "of these, of a part of the move's slots",
    "frozen in part": "freezes again by a restored source, of what it served of the slots",
    "copies deleted": "copies of users that were deleted then",
}


def run(seed: int) -> tuple[int, dict[str, str], dict[str, int]]:
    """Return a seed, the promises that it broke, and what happened in it."""
    with contextlib.closing(GroupsRun(seed)) as one:
        one.run()
        return seed, one.rules.violations, dict(one.rules.counts)


def absent(counts: Mapping[str, int], seeds: int) -> list[str]:
    """Return what never happened in a campaign that is large enough to need all of it."""
    if seeds < RECORD_FROM_SEEDS:
        return []
    return [words for name, words in COUNTED.items() if not counts.get(name)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.groups")
    parser.add_argument("--seeds", type=int, default=RECORD_FROM_SEEDS, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    wanted = parser.parse_args()
    if wanted.seeds < 1:
        parser.error("--seeds: at least 1; none would show nothing")
    console = Console()
    began = time.monotonic()
    counts: Counter[str] = Counter()
    broken = 0
    seeds = range(wanted.first, wanted.first + wanted.seeds)
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count()) as pool:
        for seed, violations, counted in pool.map(run, seeds):
            counts.update(counted)
            broken += bool(violations)
            for promise, seen in violations.items():
                console.print(f"[red]seed {seed}[/] {promise}: {escape(seen)}")
    seconds = time.monotonic() - began
    for name, words in COUNTED.items():
        console.print(f"{counts[name]:>8,} {words}")
    console.print(
        f"{wanted.seeds} seeds, {broken} with a broken promise, {seconds:.0f} s"
    )
    never = absent(counts, wanted.seeds)
    for words in never:
        console.print(f"[red]never happened:[/] {words}")
    if wanted.seeds >= RECORD_FROM_SEEDS:
        record(wanted.first, wanted.seeds, broken, counts, seconds)
    return 1 if broken or never else 0


def record(
    first: int, seeds: int, broken: int, counts: Counter[str], seconds: float
) -> None:
    """Write the page of results."""
    numbers = {
        **now_and_here(),
        "first": first,
        "seeds": seeds,
        "violations": broken,
        "seconds": round(seconds),
        "counts": {name: counts[name] for name in COUNTED},
    }
    kept = keep(PAGE, "clusters", numbers)["clusters"]
    lines = [
        "# Results of simulated clusters that share the users",
        "",
        "Written by `make sim-groups`; do not edit.",
        "Four clusters with the real state machine, programs with the library's",
        "`AsyncRoutedAgent`, and operators who move slots from one cluster to another, and",
        "soon back: one slot, or a range of them, which another move may have in part.",
        "Copies of attempts arrive as late as ten minutes after the first try. Passcodes of",
        "tokens (TOTP and HOTP) are tried again in all clusters, and their clocks are set.",
        "Clusters are restored from earlier states, or lost for good during a move; operators",
        "then follow the table of [several clusters](../clusters.md).",
        "A cluster counts as one machine: [the simulation of nodes](simulation.md) looks",
        "into it. The steps of a move are the product's commands, each with the approval of",
        "another administrator, which may come late; exports are read, packed, encrypted and",
        "opened by its code ([several clusters](../clusters.md)). Hashing alone is left out.",
        "Known bugs of moves and routing are among the planted bugs of `make sim-planted`.",
        "",
        row("", ""),
        row("---", "---"),
        row("command", f"`make sim-groups SEEDS={kept['seeds']}`"),
        row("date", kept["date"]),
        row("commit", kept["commit"]),
        row("machine", kept["machine"]),
        row("seeds", f"{kept['first']} to {kept['first'] + kept['seeds'] - 1}"),
        row("seconds", f"{kept['seconds']:,}"),
        *(row(words, f"{kept['counts'][name]:,}") for name, words in COUNTED.items()),
        row("seeds with a broken promise", kept["violations"]),
    ]
    PAGE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
