# SPDX-License-Identifier: Apache-2.0
"""
Run seeds that nobody has run, of all kinds in turns: `python -m tests.simulation.hours`.

For a night. Exits with 1 if a promise was broken, and says which command shows it again.
"""

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console
from rich.markup import escape

from tests.simulation.campaign import Campaign, Outcome
from tests.simulation.groups.campaign import GroupsCampaign, GroupsOutcome
from tests.simulation.kinds import Kind

KINDS: Mapping[str, Campaign | GroupsCampaign] = {
    "sim": Campaign(),
    "sim-nodes": Campaign(kind=Kind.WHOLE),
    "sim-disks": Campaign(kind=Kind.FILES),
    "sim NODES=5": Campaign(nodes=5),
    "sim-outbox": Campaign(kind=Kind.OUTBOX),
    "sim-nodes NODES=5": Campaign(nodes=5, kind=Kind.WHOLE),
    "sim-mixed": Campaign(kind=Kind.MIXED),
    "sim-lost": Campaign(kind=Kind.LOST),
    "sim-groups": GroupsCampaign(),
}
"""Target of `make` -> its campaign."""

SEEDS_EACH = 20
"""Of a kind, for each core, before the next kind has its turn."""


def rounds(
    kinds: Mapping[str, Campaign | GroupsCampaign],
    first: int,
    seeds: int,
    go_on: Callable[[], bool],
) -> Iterator[tuple[str, range, Outcome | GroupsOutcome]]:
    """Run that many seeds of each kind in turns, as long as *go_on* says so."""
    for begin in itertools.count(first, seeds):
        for name, campaign in kinds.items():
            if not go_on():
                return
            batch = range(begin, begin + seeds)
            yield name, batch, campaign.run(batch)


def again(name: str, seed: int) -> str:
    """Return the command that runs a seed again."""
    groups = isinstance(KINDS[name], GroupsCampaign)
    return f"make {name} " + (f"SEEDS=1 FIRST={seed}" if groups else f"SEED={seed}")


def main() -> int:
    """Run, and tell what was broken as soon as it is known."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.hours")
    parser.add_argument("--hours", type=float, default=8.0)
    parser.add_argument("--first", type=int, help="default: the second it begins in")
    wanted = parser.parse_args()
    console = Console()
    first = int(time.time()) if wanted.first is None else wanted.first
    until = time.monotonic() + 3600 * wanted.hours
    seeds, broken = dict.fromkeys(KINDS, 0), 0
    each = SEEDS_EACH * (os.cpu_count() or 1)
    for name, batch, outcome in rounds(
        KINDS, first, each, lambda: time.monotonic() < until
    ):
        seeds[name] += len(batch)
        for seed, violations in outcome.violations.items():
            broken += 1
            console.print(f"[red]{again(name, seed)}[/]: {escape(str(violations))}")
    for name, count in seeds.items():
        console.print(f"make {name}: {count:,} seeds from {first} on")
    console.print(f"{broken} of {sum(seeds.values()):,} schedules broke a promise")
    return 1 if broken or not sum(seeds.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
