# SPDX-License-Identifier: Apache-2.0
"""The faults of a run and their rates: drawn in every step from the run's seed."""

import enum
import random
from dataclasses import dataclass
from typing import Protocol

from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.network import Network

Pairs = set[tuple[str, str]]

JUMPS_S = (-86_400.0, -3_600.0, -30.0, -2.0, 1.0, 5.0, 60.0, 900.0, 3_600.0, 86_400.0)


class Profile(enum.Enum):
    """The main kind of fault of a run."""

    MILD = "a little of everything"
    RESETS = "connections break all the time"
    PARTITIONS = "the network splits"
    LEADER_HUNT = "the leader is cut off"
    LAG = "messages take long"
    POWER = "machines lose power, all at once too"
    STALLS = "everything waits, and then comes at once"
    CLOCKS = "clocks jump, by seconds or by hours"
    DISKS = "disks fail and fill up"
    MEMBERS = "members come and go"


def rate_in(
    runs: Profile, profile: Profile, rng: random.Random, *, share: float, rate: float
) -> float:
    """Return *rate* in a *share* of the *runs* of a kind, and 0 in all others."""
    return rate if profile is runs and rng.random() < share else 0.0


class Target(Protocol):
    """What the faults act on: the cluster."""

    ids: list[str]
    network: Network
    rng: random.Random
    effects: Effects

    def running(self) -> list[str]: ...
    def leader(self) -> str | None: ...
    def crash(self, node: str, *, power: bool) -> None: ...
    def pause(self, node: str, seconds: float) -> None: ...
    def arm(self, node: str, operations: int) -> None: ...
    def fail_disk(self, node: str) -> None: ...
    def spoil_apply(self, node: str) -> None: ...
    def fill_disk(self, node: str, seconds: float) -> None: ...
    def jump_clock(self, node: str, seconds: float) -> None: ...


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
            draw, effect = rng.choice(
                [
                    (self._sides, Effect.PARTITION),
                    (self._sides, Effect.PARTITION),
                    (self._one_way, Effect.PARTITION_ONE_WAY),
                    (self._bridge, Effect.PARTITION_BRIDGE),
                ]
            )
            cut, seconds = draw(), rng.uniform(0.3, 2.5)
            notice = rng.uniform(0.05, 1)
            network.cut(cut, seconds=seconds, notice=notice, effect=effect)
        if self._chance(0.004, Profile.STALLS, 0.03):
            node = rng.choice(ids)
            others = [other for other in ids if other != node]
            links = [(node, o) for o in others] + [(o, node) for o in others]
            network.stall(
                set(rng.sample(links, rng.randint(1, len(links)))),
                seconds=rng.uniform(0.2, 2),
            )
        leader = self.target.leader()
        if leader and self._chance(0.003, Profile.LEADER_HUNT, 0.02):
            cut = {(a, b) for a in ids for b in ids if a != b and leader in (a, b)}
            network.cut(cut, seconds=rng.uniform(0.5, 2), notice=rng.uniform(0, 0.5))

    def _two_sides(self) -> tuple[set[str], set[str]]:
        ids, rng = self.target.ids, self.target.rng
        one = set(rng.sample(ids, rng.randint(1, len(ids) - 1)))
        return one, set(ids) - one

    def _sides(self) -> Pairs:
        """Cut the cluster in two."""
        one, other = self._two_sides()
        return {(a, b) for a in one for b in other} | {
            (b, a) for a in one for b in other
        }

    def _one_way(self) -> Pairs:
        """Let one side hear the other, but not be heard."""
        one, other = self._two_sides()
        return {(a, b) for a in one for b in other}

    def _bridge(self) -> Pairs:
        """Cut the cluster in two, but for one node that has both sides."""
        _bridge, *rest = self.target.rng.sample(self.target.ids, len(self.target.ids))
        half = len(rest) // 2
        one, other = rest[:half], rest[half:]
        return {(a, b) for a in one for b in other} | {
            (b, a) for a in one for b in other
        }

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
        self._disturb_work(running)
        if self._chance(0.002, Profile.CLOCKS, 0.03):
            target.jump_clock(rng.choice(running), rng.choice(JUMPS_S))
        if self._chance(0.002, Profile.POWER, 0.012):
            target.effects[Effect.ALL_DOWN] += 1
            for node in target.running():
                target.crash(node, power=rng.random() < 0.8)

    def _disturb_work(self, running: list[str]) -> None:
        """Let the disk or the memory of a machine be bad."""
        rng, target = self.target.rng, self.target
        if self._chance(0.001, Profile.DISKS, 0.02):
            target.fail_disk(rng.choice(running))
        if rng.random() < 0.006:
            target.spoil_apply(rng.choice(running))
        if self._chance(0.001, Profile.DISKS, 0.01):
            target.fill_disk(rng.choice(running), rng.uniform(0.1, 2))
