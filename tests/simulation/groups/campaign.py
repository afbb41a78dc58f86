# SPDX-License-Identifier: Apache-2.0
"""Seeds of several clusters, for the hunt for planted bugs."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.simulation.groups.run import GroupsRun


@dataclass
class GroupsOutcome:
    """What some seeds have shown."""

    violations: dict[int, dict[str, str]] = field(default_factory=dict)
    """Seed -> promise -> what was seen first."""


@dataclass(frozen=True)
class GroupsCampaign:
    """Runs seeds one after the other."""

    def run_seeds(self, seeds: Iterable[int]) -> GroupsOutcome:
        """Run these seeds."""
        outcome = GroupsOutcome()
        for seed in seeds:
            with contextlib.closing(GroupsRun(seed)) as run:
                run.run()
                if run.rules.violations:
                    outcome.violations[seed] = run.rules.violations
        return outcome

    run = run_seeds
