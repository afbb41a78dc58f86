# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, how often: drawn anew in every step from the run's seed."""

import enum
import random
from dataclasses import dataclass
from typing import Protocol

from tests.simulation.network import Network


class Profile(enum.Enum):
    """What a run is mostly about."""

    MILD = "a little of everything"
    RESETS = "connections break all the time"
    PARTITIONS = "the network splits"
    LEADER_HUNT = "whoever leads is cut off"
    LAG = "messages take long"
    POWER = "machines lose power, all at once too"


class Target(Protocol):
    """What the faults act on: the cluster."""

    ids: list[str]
    network: Network
    rng: random.Random

    def running(self) -> list[str]: ...
    def leader(self) -> str | None: ...
    def crash(self, node: str, *, power: bool) -> None: ...
    def pause(self, node: str, seconds: float) -> None: ...
    def arm(self, node: str, operations: int) -> None: ...
    def fail_disk(self, node: str) -> None: ...


@dataclass
class Faults:
    """Acts once in each step."""

    target: Target
    profile: Profile

    def act(self) -> None:
        """Do what the dice say."""
        self._disturb_network()
        self._disturb_nodes()

    def _chance(self, probability: float, more: Profile, much: float) -> bool:
        if self.profile is more:
            probability = much
        return self.target.rng.random() < probability

    def _disturb_network(self) -> None:
        rng, network, ids = self.target.rng, self.target.network, self.target.ids
        network.slowness = 0.3 if self.profile is Profile.LAG else 0.0
        if self._chance(0.03, Profile.RESETS, 0.25):
            network.reset(*rng.sample(ids, 2))
        if self._chance(0.004, Profile.PARTITIONS, 0.02):
            side = set(rng.sample(ids, rng.randint(1, len(ids) - 1)))
            one_way = rng.random() < 0.25
            cut = {
                (a, b)
                for a in ids
                for b in ids
                if (a in side) != (b in side) and (not one_way or a in side)
            }
            network.cut(cut, seconds=rng.uniform(0.3, 2.5), notice=rng.uniform(0.05, 1))
        leader = self.target.leader()
        if leader and self._chance(0.003, Profile.LEADER_HUNT, 0.02):
            cut = {(a, b) for a in ids for b in ids if a != b and leader in (a, b)}
            network.cut(cut, seconds=rng.uniform(0.5, 2), notice=rng.uniform(0, 0.5))

    def _disturb_nodes(self) -> None:
        rng, target = self.target.rng, self.target
        running = target.running()
        if not running:
            return
        if rng.random() < 0.004:
            target.pause(rng.choice(running), rng.uniform(0.2, 2))
        if self._chance(0.012, Profile.POWER, 0.02):
            node = target.leader() if rng.random() < 0.5 else None
            target.crash(node or rng.choice(running), power=rng.random() < 0.5)
        if self._chance(0.012, Profile.POWER, 0.03):
            target.arm(rng.choice(running), rng.randint(0, 12))
        if self._chance(0.001, Profile.POWER, 0.006):
            target.fail_disk(rng.choice(running))
        if self._chance(0.002, Profile.POWER, 0.012):
            for node in target.running():
                target.crash(node, power=rng.random() < 0.8)
