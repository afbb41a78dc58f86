# SPDX-License-Identifier: Apache-2.0
"""A seed means one schedule: nothing of it depends on what the process ran before."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.long import long
from tests.simulation.campaign import Campaign
from tests.simulation.kinds import Kind

KINDS = [Kind.ENGINES.value, Kind.FILES.value, *long([Kind.WHOLE.value])]
SEEDS = 3, 7
"""In the second one, the key of the engines' cluster is rotated."""

FOLDERS = re.compile("sparecode-simulated-[a-z0-9_]+")
"""Temporary ones, which have other names in each process."""

TELL = "import sys, tests.simulation.test_seeds_alone as t; t.tell(*sys.argv[1:])"


def tell(kind: str, *seeds: str) -> None:
    """Run seeds in this process, and print what happened in each, one a line."""
    campaign = Campaign(kind=Kind(kind))
    for seed in map(int, seeds):
        with contextlib.closing(campaign.cluster(seed)) as sim:
            sim.trace.wanted = True
            sim.run()
        effects = sorted((effect.name, count) for effect, count in sim.effects.items())
        print(json.dumps([sim.trace.lines, effects, sim.invariants.acked]))  # noqa: T201


def told(kind: str, *seeds: int) -> dict[int, str]:
    """Return what a new process tells of each of these seeds, run in this order."""
    done = subprocess.run(
        [sys.executable, "-c", TELL, kind, *map(str, seeds)],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    lines = FOLDERS.sub("folder", done.stdout).splitlines()[-len(seeds) :]
    return dict(zip(seeds, lines, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_the_same_alone_and_after_another_one(kind: str) -> None:
    """In both orders: each seed comes first once, and so runs in a new process."""
    one, other = SEEDS
    assert told(kind, one, other) == told(kind, other, one)
