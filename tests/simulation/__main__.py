# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201 - it talks to a human.
"""
Run many seeds, and say what was found: `python -m tests.simulation --seeds 1000`.

Exits with 1 if a promise was broken; the line names the seed that shows it.
"""

import argparse
import collections
import logging
import sys
import time

from tests.simulation.cluster import Scenario, SimCluster
from tests.simulation.codes import CodesCluster, SqliteStore


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=1000, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="SEED")
    parser.add_argument("--seed", type=int, help="only this one, and its outcome")
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--codes", action="store_true", help="the real state machine")
    wanted = parser.parse_args()
    logging.disable(logging.CRITICAL)
    seeds = range(wanted.first, wanted.first + wanted.seeds)
    if wanted.seed is not None:
        seeds = range(wanted.seed, wanted.seed + 1)
    bites: collections.Counter[str] = collections.Counter()
    broken = proposed = applied = 0
    begin = time.monotonic()
    for seed in seeds:
        sim = (
            CodesCluster(seed, Scenario(nodes=wanted.nodes, store=SqliteStore))
            if wanted.codes
            else SimCluster(seed, Scenario(nodes=wanted.nodes))
        )
        sim.run()
        bites.update(sim.bites)
        proposed += len(sim.invariants.submissions)
        applied += len(sim.invariants.acked)
        broken += bool(sim.invariants.violations)
        for kind, seen in sim.invariants.violations.items():
            print(f"seed {seed}: {kind}: {seen}")
        if wanted.seed is not None:
            print(f"{sim.faults.profile}; {sim.network.manners}; {sim.describe()}")
    struck = ", ".join(f"{n} x {kind}" for kind, n in sorted(bites.items()))
    print(f"{len(seeds)} schedules of {wanted.nodes} nodes: {struck}")
    print(f"{proposed} proposals, {applied} requests acknowledged")
    print(f"{broken} schedules broke a promise ({time.monotonic() - begin:.0f} s)")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
