# SPDX-License-Identifier: Apache-2.0
"""
Leaders that are cut off while their entries are on the way.

A log with entries that no majority has, and an acknowledgement that arrives terms later,
need some elections right after each other, each with few members in touch. Dice alone
hardly ever draw that. So in some runs, a leader that has just been asked for something
is left with one friend or with no one, and so is the leader after it. What the friend
says may be held back until all is over.
"""

import random
from dataclasses import dataclass, field
from typing import Protocol

from tests.simulation.absences import Absences
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.faults import Profile, rate_in
from tests.simulation.machines import Node
from tests.simulation.memberships import Memberships
from tests.simulation.network import Network

HUNTED = 0.7
"""How many of the runs about leaders that are cut off have hunts."""
RATE = 0.03
"""How often a hunt begins, in each step with a leader."""
HUNT_S = 0.8, 4.0
HELD_BACK_S = 0.5, 4.0
AGAIN = 0.6
"""How often the next leader is hunted, too."""
LEADERS_MAX = 4
"""In one hunt."""
LONGER = 2
"""The steps of a run with hunts, by those of another run."""
OTHERS = 0.1
"""How often, in each step, there are other faults: they would end most hunts."""
GOES_ON = 0.15
"""How often, in each step, a leader that is cut off is asked for something."""


class World(Protocol):
    """The cluster."""

    ids: list[str]
    now: float
    network: Network
    effects: Effects
    memberships: Memberships
    absences: Absences

    def live(self) -> list[Node]: ...
    def ask(self, node: Node) -> object: ...


@dataclass
class LeaderHunts:
    """Hunts leaders, one after another."""

    world: World
    seed: str
    profile: Profile
    rng: random.Random = field(init=False)
    rate: float = field(init=False)
    others_may_act: bool = True
    _until: float = 0.0
    _friend: str = ""
    _hunted: dict[str, int] = field(default_factory=dict)
    """Leader -> its term, of this hunt."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        runs = Profile.LEADER_HUNT
        self.rate = rate_in(runs, self.profile, self.rng, share=HUNTED, rate=RATE)

    def allow_others(self) -> None:
        """Decide whether other faults may act in this step."""
        self.others_may_act = not self.rate or self.rng.random() < OTHERS

    def steps(self, usual: int) -> int:
        """Return the length of the run."""
        return LONGER * usual if self.rate else usual

    def act(self) -> None:
        """Do what the dice say."""
        if not self.rate or self.world.absences.is_one_away:
            return
        leaders = [node for node in self.world.live() if node.leads]
        if self.world.now < self._until:
            self._go_on(leaders)
        elif leaders and self.rng.random() < self.rate:
            self._begin(leaders)

    def _begin(self, leaders: list[Node]) -> None:
        leader = self.rng.choice(leaders)
        others = [each for each in self.world.ids if each != leader.node_id]
        self._friend = self.rng.choice([*others, ""])
        self._until = self.world.now + self.rng.uniform(*HUNT_S)
        self._hunted = {}
        if self._friend and self.rng.random() < 0.5:
            answers = {(self._friend, leader.node_id)}
            held_s = self.rng.uniform(*HELD_BACK_S)
            self.world.network.stall(answers, seconds=held_s)
        self._hunt(leader)

    def _go_on(self, leaders: list[Node]) -> None:
        for leader in leaders:
            if self._hunted.get(leader.node_id) == leader.term:
                if self.rng.random() < GOES_ON:
                    self.world.ask(leader)
            elif len(self._hunted) < LEADERS_MAX and self.rng.random() < AGAIN:
                self._hunt(leader)
            else:
                self._hunted[leader.node_id] = leader.term

    def _hunt(self, leader: Node) -> None:
        """Ask a leader for something, and cut it off while that is on its way."""
        rng, world = self.rng, self.world
        node_id = leader.node_id
        self._hunted[node_id] = leader.term
        others = [each for each in world.ids if each not in (node_id, self._friend)]
        if not others:
            return
        for _ in range(rng.randint(0, 4)):
            world.ask(leader)
        if rng.random() < 0.2:
            world.memberships.remove(leader, rng.choice(others))
        pairs = {(a, b) for o in others for a, b in ((o, node_id), (node_id, o))}
        seconds, notice = rng.uniform(0.3, 1.5), rng.uniform(0.0, 0.6)
        world.network.at(
            rng.choice([0.0, rng.uniform(0.0, 0.05)]),
            lambda: self._cut(pairs, seconds, notice),
        )

    def _cut(self, pairs: set[tuple[str, str]], seconds: float, notice: float) -> None:
        self.world.effects[Effect.LEADER_CUT_OFF] += 1
        self.world.network.cut(pairs, seconds=seconds, notice=notice)
