# SPDX-License-Identifier: Apache-2.0
"""
What administrators ask for that makes no sense, or was done already.

A removed id comes back; a member gets another address; the primary is to be removed
before it has handed over; it is to hand over to a learner, or twice at the same time. All of
that is refused. A voter is promoted again: nothing changes.
"""

import random
from typing import TYPE_CHECKING

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.members import Member
from sparecode_node.replication.raft.membership_changes import (
    AddLearner,
    Change,
    ChangeOutcome,
    Promote,
    Remove,
)
from tests.simulation.changes import Wish
from tests.simulation.fault_effects import Effect
from tests.simulation.invariants import Invariants
from tests.simulation.machines import Node

if TYPE_CHECKING:
    from tests.simulation.memberships import Memberships

SHARE = 0.3
"""As often as members change otherwise."""
ELSEWHERE = "elsewhere:7301"
HAND_OVER_S = 1.0


class Slips:
    """Mistaken requests of an administrator."""

    def __init__(self, memberships: "Memberships", seed: str) -> None:
        self._memberships = memberships
        self._rng = random.Random(seed)

    def act(self) -> None:
        """Do what the dice say."""
        rate = SHARE * self._memberships.rate
        leaders = [n for n in self._memberships.world.live() if n.leads]
        if self._rng.random() >= rate or not leaders:
            return
        leader = self._rng.choice(leaders)
        slip = self._rng.choice(
            [self._add_removed, self._move, self._remove_primary, self._repeat]
        )
        if self._rng.random() < 0.3:
            self._hand_over(leader)
        elif change := slip(leader):
            self._ask(leader, change)

    def _add_removed(self, _leader: Node) -> Change | None:
        removed = self._memberships.configuration.removed
        if not removed:
            return None
        return AddLearner(Member(node_id=self._rng.choice(removed), address=ELSEWHERE))

    def _move(self, _leader: Node) -> Change | None:
        members = self._memberships.configuration.ids
        if not members:
            return None
        node_id = NodeId(self._rng.choice(sorted(members)))
        return AddLearner(Member(node_id=node_id, address=ELSEWHERE))

    def _remove_primary(self, leader: Node) -> Change:
        return Remove(NodeId(leader.node_id))

    def _repeat(self, _leader: Node) -> Change | None:
        voters = sorted(self._memberships.configuration.voters)
        return Promote(self._rng.choice(voters)) if voters else None

    def _ask(self, leader: Node, change: Change) -> None:
        """Ask a leader, and see that it refuses what would change something."""
        self._memberships.world.effects[Effect.SLIP] += 1
        wish = self._memberships.wish(leader, change)

        def answered(outcome: ChangeOutcome) -> None:
            invariants = self._memberships.world.invariants
            invariants.on_wish(wish, outcome)
            if not isinstance(change, Promote):
                check_refused(invariants, wish, change, outcome)

        self._memberships.change(leader, change, answered)

    def _hand_over(self, leader: Node) -> None:
        """Ask for two at once, one of them to a member that may not lead."""
        self._memberships.world.effects[Effect.SLIP] += 1
        members = [None, *sorted(self._memberships.configuration.ids)]
        for target in self._rng.sample(members, 2):
            wish = self._memberships.wish(leader)
            self._memberships.transfer(leader, wish, target, HAND_OVER_S)


def check_refused(
    invariants: Invariants, wish: Wish, change: Change, outcome: object
) -> None:
    """See that a change which makes no sense is not made."""
    if not isinstance(outcome, Exception):
        invariants.violated("what makes no sense is refused", f"{change}: {wish}")
