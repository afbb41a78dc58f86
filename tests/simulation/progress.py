# SPDX-License-Identifier: Apache-2.0
"""
A campaign that was cut off goes on where it ended: on the same commit, with its seeds.

Thousands of seeds take long. What the seeds that are done have shown is kept in
`var/simulation/` until all are; then it goes to the page as that of one campaign.
"""

import hashlib
import pickle
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.results import ROOT, UNKNOWN, WITH_CHANGES, now_and_here
from tests.simulation.campaign import Campaign, Outcome

FOLDER = ROOT / "var" / "simulation"


@dataclass
class Done:
    """The seeds that are done, and what they have shown."""

    seeds: set[int] = field(default_factory=set)
    outcome: Outcome = field(default_factory=Outcome)
    seconds: float = 0.0


@dataclass
class Progress:
    """Keeps what is done, in a file if there is a path."""

    path: Path | None = None
    done: Done = field(default_factory=Done)
    began: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, campaign: Campaign, seeds: range, folder: Path = FOLDER) -> "Progress":
        """
        Return the progress of a campaign over these seeds, on this commit.

        Code that is not committed has no name, so nothing is kept of what it shows.
        """
        commit = now_and_here()["commit"]
        if commit == UNKNOWN or commit.endswith(WITH_CHANGES):
            return cls()
        name = hashlib.sha256(f"{campaign} {seeds} {commit}".encode()).hexdigest()[:16]
        path = folder / name
        if path.exists():
            return cls(path, pickle.loads(path.read_bytes()))
        return cls(path)

    @property
    def seconds(self) -> float:
        """The time that all parts of the campaign took."""
        return self.done.seconds + time.monotonic() - self.began

    def left(self, seeds: range) -> list[int]:
        """Return the seeds that are not done."""
        return [seed for seed in seeds if seed not in self.done.seeds]

    def add(self, seeds: Sequence[int], outcome: Outcome) -> None:
        """Keep what some more seeds have shown."""
        self.done.seeds.update(seeds)
        self.done.outcome.add(outcome)
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_suffix(".new")
        new.write_bytes(pickle.dumps(replace(self.done, seconds=self.seconds)))
        new.replace(self.path)

    def forget(self) -> None:
        """Remove the file: all seeds are done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
