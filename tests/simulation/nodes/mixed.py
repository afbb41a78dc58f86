# SPDX-License-Identifier: Apache-2.0
"""
Long runs of whole nodes, each with a mix of its own: faults, timings, bounds, releases.

Each seed draws which faults there are and how often, how long the log may become, how
many callers come at once, and which nodes begin with a release that knows an older
feature level. So rare pairs of faults meet, and a log has thousands of entries.
"""

import collections
import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sparecode_node.replication.settings import RaftSettings
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.cluster.feature_level import raise_feature_level
from sparecode_node.statemachine.feature_level import NEWEST
from tests.simulation.invariants import Submission
from tests.simulation.machines import Node
from tests.simulation.nodes.cluster import MEMBERS_RATE, NodesCluster
from tests.simulation.nodes.machines import Machine
from tests.simulation.nodes.new_clusters import NewCluster
from tests.simulation.people import FOUNDING, beginning

OLDEST = 1
"""The feature level of the oldest release that may take part."""

BOUNDS = {
    "PROPOSALS_QUEUED_MAX": 64,
    "READS_WAITING_MAX": 48,
    "WAITING_MAX": 48,
    "CALLS_PER_ENTRY_MAX": 16,
    "WINDOW_ENTRIES": 8,
    "ENTRIES_BEHIND_MAX": 8,
    "APPEND_BYTES_MAX": 4096,
    "FORWARD_BYTES_MAX": 8192,
}
"""Of queues and windows: so small that a crowd of callers fills them."""


@dataclass(frozen=True)
class Mix:
    """What a seed is about."""

    seconds: float
    log_entries: int
    crowd: int
    """Callers that come at once, sometimes."""
    crowd_rate: float
    members: float
    upgrades: bool
    """Some nodes begin with the older release."""
    bounds: bool
    """Queues and windows are small."""
    link_kinds: frozenset[str]
    node_kinds: frozenset[str]

    @classmethod
    def drawn(cls, dice: random.Random) -> "Mix":
        def some(*kinds: str) -> frozenset[str]:
            return frozenset(kind for kind in kinds if dice.random() < 0.6)

        return cls(
            seconds=dice.choice([10.0, 20.0, 40.0]),
            log_entries=dice.choice([24, 200, 2000]),
            crowd=dice.choice([0, 100, 200]),
            crowd_rate=dice.choice([0.02, 0.05]),
            members=dice.choice([0.0, MEMBERS_RATE / 3]),
            upgrades=dice.random() < 0.5,
            bounds=dice.random() < 0.6,
            link_kinds=some(
                "swallow", "one way", "late close", "damage", "storm", "cut", "reset"
            ),
            node_kinds=some("kill", "power", "arm", "pause", "clock"),
        )


class MixedCluster(NodesCluster):
    """A long run with the mix of its seed."""

    def __init__(self, seed: int, nodes: int = 3, mix: Mix | None = None) -> None:
        """*mix*: instead of a drawn one."""
        mix = mix or Mix.drawn(random.Random(f"{seed} {nodes} mix"))
        self.mix = mix
        super().__init__(seed, nodes)
        self.faulty_s = mix.seconds
        self.raft = RaftSettings(
            log_entries_max=mix.log_entries,
            log_entries_kept=mix.log_entries // 4,
            member_stalled_s=5.0,
        )
        self.memberships.rate = mix.members
        self.faults.link_kinds = sorted(mix.link_kinds)
        stalls = random.Random(f"{seed} {nodes} stalls").choice([[], ["stall"]])
        self.faults.node_kinds = [*sorted(mix.node_kinds), *stalls]
        self.refusals: collections.Counter[str] = collections.Counter()
        """What callers were told whose calls were not applied."""
        dice = random.Random(f"{seed} {nodes} new cluster")
        self.new_cluster = NewCluster.drawn(self, dice)
        self.begun_at = 0
        """The entry from which on a state has the users of the run."""
        self._older = (
            set(self.ids[: self.rng.randint(1, nodes)]) if mix.upgrades else set()
        )

    @contextlib.contextmanager
    def world(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            if self.mix.bounds:
                for name, bound in BOUNDS.items():
                    _patch_everywhere(patch, name, bound)
            with super().world():
                yield

    def beginnings(self) -> list[Callable[[Node], list[Submission]]]:
        """Found the cluster as its older release does; each call waits for its turn."""
        steps = super().beginnings()
        if not self.mix.upgrades:
            return steps
        founding = replace(FOUNDING, feature_level=OLDEST)
        singly = [
            lambda node, k=k, command=command: [
                self._admin(node, command, f"beginning{k}", "open.first")
            ]
            for k, command in enumerate(beginning())
        ]
        return [
            lambda node: [self._admin(node, founding, "founding")],
            lambda node: [self._sign_in(node, "open.first")],
            *singly,
            *steps[2:],
        ]

    def _set_up(self) -> None:
        """Upgrade one node after the other meanwhile."""
        for node_id in sorted(self._older):
            late = self.rng.uniform(0.5, 6.0)
            self.timeline.after(late, lambda node_id=node_id: self._upgrade(node_id))
        super()._set_up()
        self.begun_at = max(n.store.state.applied_index for n in self.live())

    def _upgrade(self, node_id: str) -> None:
        self._older.discard(node_id)
        self.stop(self.nodes[node_id], power=False, cause="upgraded")

    def boot(self, node: Machine) -> None:
        """Start a node with the release that it has."""
        node.software_level = OLDEST if node.node_id in self._older else NEWEST
        super().boot(node)

    def step(self) -> None:
        super().step()
        if self.new_cluster:
            self.new_cluster.look()
        for node in self.live():
            if node.raising_in != node.life and node.replicator is not None:
                node.raising_in = node.life
                node.spawn(raise_feature_level(node.replicator, SystemEntropy()))

    def callers(self) -> None:
        super().callers()
        if self.new_cluster:
            self.new_cluster.act()
        up = [n for n in self.live() if not n.is_paused()]
        if up and self.mix.crowd and self.rng.random() < self.mix.crowd_rate:
            node = self.rng.choice(up)
            for _ in range(self.mix.crowd):
                self.ask_something(node)
                if self.rng.random() < 0.3:
                    self.read(node)

    def _before_healing(self) -> None:
        """Lose the cluster, in some runs, and begin another one."""
        if self.new_cluster:
            self.new_cluster.begin()

    def told(self, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            self.refusals[f"{type(outcome).__name__}: {outcome}"] += 1

    def _check(self) -> None:
        super()._check()
        if self.mix.upgrades:
            for node in self.live():
                level = node.running.status().feature_level
                if level != NEWEST and node.node_id in self.memberships.belonging():
                    self.invariants.violated(
                        "progress", f"{node.node_id} is at level {level}"
                    )


def lost_cluster(seed: int, nodes: int = 3) -> MixedCluster:
    """Return a short run whose cluster is lost in any case, and begins again."""
    dice = random.Random(f"{seed} {nodes} lost")
    mix = replace(Mix.drawn(dice), seconds=4.0, crowd=0, upgrades=False)
    sim = MixedCluster(seed, nodes, mix)
    sim.new_cluster = NewCluster(sim, dice, dice.choice(["recover", "restore"]))
    return sim


def _patch_everywhere(patch: pytest.MonkeyPatch, name: str, bound: int) -> None:
    """Set a bound in each module that has imported it."""
    for module in tuple(sys.modules.values()):
        known = getattr(module, "__name__", "").startswith("sparecode_node.replication")
        if known and name in vars(module):
            patch.setattr(module, name, bound)
