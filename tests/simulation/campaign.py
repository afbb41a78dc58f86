# SPDX-License-Identifier: Apache-2.0
"""Many seeds on all cores: fault effects, work done, and broken promises."""

import concurrent.futures
import contextlib
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from tests.fault_points.strikes import Strikes
from tests.simulation.cluster import SimCluster
from tests.simulation.codes import CodesCluster, scenario
from tests.simulation.comparisons import Comparison, Comparisons, comparisons_of
from tests.simulation.fault_effects import RARE, Effect, Effects, effects_of
from tests.simulation.faults import Profile
from tests.simulation.files.cluster import FilesCluster
from tests.simulation.kinds import Kind
from tests.simulation.nodes.cluster import NodesCluster
from tests.simulation.nodes.mixed import MixedCluster, lost_cluster
from tests.simulation.outbox import OutboxCluster
from tests.simulation.scenarios import Scenario
from tests.simulation.work import PeopleAtWork

EVERY_FAULT_FROM_SEEDS = 200
"""In this many schedules every fault takes effect; in fewer, a rare one may not."""

MIXED_FROM_SEEDS = 48
LOST_FROM_SEEDS = 40
"""
And in this many all that is of mixed runs alone: crowds, bounds, older releases, long
logs, lost clusters. They take longer, so there are never 200 of them.
"""


def whole_from_seeds(kind: Kind) -> int:
    """Return in how many schedules nothing may be absent that is of a kind alone."""
    few = {Kind.MIXED: MIXED_FROM_SEEDS, Kind.LOST: LOST_FROM_SEEDS}
    return few.get(kind, EVERY_FAULT_FROM_SEEDS)


OF_WHOLE_NODES: dict[Kind, Callable[[int, int], NodesCluster]] = {
    Kind.WHOLE: NodesCluster,
    Kind.MIXED: MixedCluster,
    Kind.LOST: lost_cluster,
}
OF_ENGINES: dict[Kind, Callable[[int, Scenario], SimCluster]] = {
    Kind.ENGINES: CodesCluster,
    Kind.OUTBOX: OutboxCluster,
    Kind.FILES: FilesCluster,
}

CHUNK = 5
"""Seeds that a process takes at a time."""


@dataclass
class Outcome:
    """The result of some seeds."""

    seeds: int = 0
    proposals: int = 0
    acknowledged: int = 0
    codes_accepted: int = 0
    effects: Effects = field(default_factory=Effects)
    comparisons: Comparisons = field(default_factory=Comparisons)
    violations: dict[int, dict[str, str]] = field(default_factory=dict)
    """Seed -> invariant -> what was seen."""
    strikes: Strikes = field(default_factory=Strikes)
    """Of fault points."""
    longest_s: float = 0.0
    """The longest time for which a core left alone gave no answer."""
    longest_each_s: float = 0.0
    """And the longest time of one node of a core."""
    highest_index: int = 0
    """The newest entry that a node of a long run has applied."""
    longest_log: int = 0
    """The most entries that one had in its log at one moment."""

    def add(self, other: "Outcome") -> None:
        """Take in what other seeds have shown."""
        self.seeds += other.seeds
        self.proposals += other.proposals
        self.acknowledged += other.acknowledged
        self.codes_accepted += other.codes_accepted
        self.effects.update(other.effects)
        self.comparisons.update(other.comparisons)
        self.violations.update(other.violations)
        self.strikes.update(other.strikes)
        self.longest_s = max(self.longest_s, other.longest_s)
        self.longest_each_s = max(self.longest_each_s, other.longest_each_s)
        self.highest_index = max(self.highest_index, other.highest_index)
        self.longest_log = max(self.longest_log, other.longest_log)


@dataclass(frozen=True)
class Campaign:
    """Which seeds, on what."""

    nodes: int = 3
    recording: bool = False
    """With the state machine that only remembers, instead of the real one."""
    profile: Profile | None = None
    kind: Kind = Kind.ENGINES

    def cluster(self, seed: int) -> SimCluster | NodesCluster:
        """Return the cluster of a seed, before anything has happened."""
        if self.kind in OF_WHOLE_NODES:
            return OF_WHOLE_NODES[self.kind](seed, self.nodes)
        if self.recording:
            return SimCluster(seed, Scenario(nodes=self.nodes, profile=self.profile))
        make = OF_ENGINES[self.kind]
        return make(seed, replace(scenario(self.nodes), profile=self.profile))

    def run_seeds(self, seeds: Sequence[int]) -> Outcome:
        """Run seeds one after the other, in this process."""
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            outcome = Outcome()
            for seed in seeds:
                with contextlib.closing(self.cluster(seed)) as sim:
                    outcome.add(self._run(sim, seed))
            return outcome
        finally:
            logging.disable(before)

    def _run(self, sim: SimCluster | NodesCluster, seed: int) -> Outcome:
        sim.run()
        rules = sim.invariants
        outcome = Outcome(
            seeds=1,
            proposals=len(rules.submissions),
            acknowledged=len(rules.acked),
            effects=sim.effects,
            comparisons=rules.comparisons,
            strikes=sim.points.strikes,
        )
        if isinstance(sim, PeopleAtWork):
            outcome.codes_accepted = len(sim.rules.accepted)
        if isinstance(sim, NodesCluster):
            outcome.longest_s = sim.bounds.longest_s
            outcome.longest_each_s = sim.bounds.longest_each_s
        if isinstance(sim, MixedCluster):
            outcome.highest_index = sim.highest_index
            outcome.longest_log = sim.longest_log
        if rules.violations:
            outcome.violations[seed] = rules.violations
        return outcome

    def run(
        self,
        seeds: Sequence[int],
        *,
        jobs: int | None = None,
        progress: Callable[[Sequence[int], Outcome], object] = lambda *_: None,
    ) -> Outcome:
        """Run seeds on all cores; call *progress* with every few, and what they showed."""
        outcome = Outcome()
        for few, one in self._outcomes(seeds, jobs or os.cpu_count() or 1):
            outcome.add(one)
            progress(few, one)
        return outcome

    def _outcomes(
        self, seeds: Sequence[int], jobs: int
    ) -> Iterator[tuple[Sequence[int], Outcome]]:
        chunks = [seeds[k : k + CHUNK] for k in range(0, len(seeds), CHUNK)]
        if jobs == 1 or len(chunks) == 1:
            yield from ((chunk, self.run_seeds(chunk)) for chunk in chunks)
            return
        with concurrent.futures.ProcessPoolExecutor(
            jobs, mp_context=multiprocessing.get_context("spawn")
        ) as pool:
            running = {pool.submit(self.run_seeds, chunk): chunk for chunk in chunks}
            for future in concurrent.futures.as_completed(running):
                yield running[future], future.result()


@dataclass(frozen=True)
class Verdict:
    """Whether a campaign has shown what it should."""

    outcome: Outcome
    seconds: float
    recording: bool = False
    """Of the state machine that only remembers, and has no codes."""
    kind: Kind = Kind.ENGINES

    def is_due(self, *, of_mixes: bool) -> bool:
        """Return whether there are enough seeds that nothing of a kind may be absent."""
        whole = whole_from_seeds(self.kind) if of_mixes else EVERY_FAULT_FROM_SEEDS
        return self.outcome.seeds >= whole

    @property
    def absent_effects(self) -> list[Effect]:
        """Faults that should have taken effect, and never did."""
        return [
            effect
            for effect in effects_of(self.kind)
            if self.is_due(of_mixes=effect.of_mixes)
            and effect not in RARE
            and not self.outcome.effects[effect]
        ]

    @property
    def absent_comparisons(self) -> list[Comparison]:
        """Checks that never had anything to compare: they have shown nothing."""
        return [
            c
            for c in comparisons_of(self.kind, recording=self.recording)
            if self.is_due(of_mixes=c.of_new_clusters or c.of_levels)
            and not self.outcome.comparisons[c]
        ]

    @property
    def holds(self) -> bool:
        """No promise was broken, every fault has bitten, and every check has looked."""
        result = (
            self.outcome.violations or self.absent_effects or self.absent_comparisons
        )
        return self.outcome.seeds > 0 and not result


def timed(
    run: Callable[[], Outcome], *, recording: bool = False, kind: Kind = Kind.ENGINES
) -> Verdict:
    """Run, and see how long it takes."""
    begin = time.monotonic()
    outcome = run()
    return Verdict(outcome, time.monotonic() - begin, recording, kind)
