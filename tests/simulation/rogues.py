# SPDX-License-Identifier: Apache-2.0
"""
Learners that ask for votes: their process is not ours, or an insider runs it.

A learner has a certificate of the cluster, and no vote. What it says must not end the
work of a primary that is well (Raft thesis, 4.2.3).
"""

import random
from dataclasses import dataclass, field
from typing import Protocol

from sparecode_node.replication.members import MemberRole
from sparecode_node.replication.raft import frames
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.faults import Profile, rate_in
from tests.simulation.machines import Node
from tests.simulation.memberships import Memberships
from tests.simulation.network import Network

WITH_ROGUES = 0.3
"""How many of the runs about members have them."""
RATE = 0.05
"""How often one asks, in each step."""
LONGEST_LOG = 1_000_000
"""The last index that it claims."""


class World(Protocol):
    """The cluster."""

    network: Network
    effects: Effects
    memberships: Memberships

    def live(self) -> list[Node]: ...


@dataclass
class Rogues:
    """Asks for votes in the name of learners."""

    world: World
    seed: str
    profile: Profile
    rng: random.Random = field(init=False)
    rate: float = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        runs = Profile.MEMBERS
        self.rate = rate_in(runs, self.profile, self.rng, share=WITH_ROGUES, rate=RATE)

    def act(self) -> None:
        """Do what the dice say."""
        if self.rng.random() >= self.rate:
            return
        members = self.world.memberships.configuration.members
        learners = {m.node_id for m in members if m.role is MemberRole.LEARNER}
        live = self.world.live()
        senders = [each for each in live if each.node_id in learners]
        targets = [each for each in live if each.node_id not in learners]
        if not (senders and targets):
            return
        sender, target = self.rng.choice(senders), self.rng.choice(targets)
        term = max(each.term for each in live) + 1
        self.world.effects[Effect.ROGUE] += 1
        message = {
            "type": frames.REQUEST_VOTE,
            "term": term,
            "last_log_index": LONGEST_LOG,
            "last_log_term": term - 1,
        }
        self.world.network.send(sender.node_id, target.node_id, message)
