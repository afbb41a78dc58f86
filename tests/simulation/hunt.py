# SPDX-License-Identifier: Apache-2.0
"""
Look for the first seed that breaks a promise, in whatever code is imported.

Run by `planted` in a copy with a bug in it: `python -m tests.simulation.hunt`.
Prints JSON: the seed and what was broken, or how many seeds saw nothing.
"""

import argparse
import json
import sys
from pathlib import Path

import sparecode_node
from tests.simulation.campaign import Campaign
from tests.simulation.faults import Profile
from tests.simulation.groups.campaign import GroupsCampaign
from tests.simulation.kinds import Kind

STOPS = {"no exception", "no halt"}
"""
A node that stops, or falls over, has promised nothing false by that.

One that does not start on what a kill or a power cut has left is another thing:
that every node does is a promise ("starts unaided").
"""

BECAUSE_OF_STOPS = {"progress", "answered in time"}


def broken_promises(violations: dict[str, str], *, stops: bool = False) -> list[str]:
    """
    Return what counts as having found a bug: never that code fell over.

    A run in which something raised what it should not is no evidence at all,
    whatever else it shows: a patch that does not work would be found at once.
    *stops*: whether the harm of the bug is that a node stops. Then a stop counts, which
    the product itself decides for and gives a reason for.
    """
    if "no exception" in violations:
        return []
    if stops and "no halt" in violations:
        return ["no halt"]
    result = violations.keys() - STOPS
    if "no halt" in violations:
        result -= BECAUSE_OF_STOPS
    return sorted(result)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.hunt")
    parser.add_argument("--seeds", type=int, required=True)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--profile")
    parser.add_argument("--recording", action="store_true")
    parser.add_argument("--stops", choices=["yes"])
    for each in (kind for kind in Kind if kind is not Kind.ENGINES):
        parser.add_argument(f"--{each.value}", choices=["yes"])
    wanted = parser.parse_args()
    if not Path(sparecode_node.__file__).is_relative_to(Path.cwd()):
        raise SystemExit(f"this is not the copy: {sparecode_node.__file__}")
    kind = Kind.of([name for name, is_set in vars(wanted).items() if is_set])
    campaign: Campaign | GroupsCampaign = GroupsCampaign()
    if kind is not Kind.GROUPS:
        campaign = Campaign(
            nodes=wanted.nodes,
            recording=wanted.recording,
            kind=kind,
            profile=Profile[wanted.profile] if wanted.profile else None,
        )
    fell_over = 0
    for seed in range(wanted.seeds):
        violations = campaign.run_seeds([seed]).violations.get(seed, {})
        fell_over += "no exception" in violations
        if result := broken_promises(violations, stops=wanted.stops == "yes"):
            seen = {kind: violations[kind] for kind in result}
            print(json.dumps({"seed": seed, "seen": seen, "fell_over": fell_over}))  # noqa: T201
            return 0
    print(json.dumps({"seed": None, "seen": {}, "fell_over": fell_over}))  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
