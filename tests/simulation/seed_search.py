# SPDX-License-Identifier: Apache-2.0
"""Looks for a seed that breaks a promise, in this process."""

from collections.abc import Sequence

from tests.simulation.cluster import SimCluster
from tests.simulation.scenarios import Scenario


def violations(seed: int, scenario: Scenario) -> dict[str, str]:
    """Run one seed, and return what went wrong."""
    sim = SimCluster(seed, scenario)
    sim.run()
    return sim.invariants.violations


def first_violation(
    seeds: Sequence[int], scenario: Scenario
) -> tuple[int, dict[str, str]] | None:
    """Return the first seed that finds something, and what."""
    for seed in seeds:
        if result := violations(seed, scenario):
            return seed, result
    return None
