# SPDX-License-Identifier: Apache-2.0
"""Membership changes of whole nodes: any node is asked, as operators ask."""

import random
from dataclasses import dataclass, field
from typing import Any

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.raft.membership_changes import (
    AddLearner,
    Change,
    Promote,
    Remove,
)
from tests.simulation.changes import Wish
from tests.simulation.fault_effects import Effect
from tests.simulation.memberships import CHANGE_S, Memberships
from tests.simulation.nodes.machines import Machine

HAND_OVER_RATE = 0.005
SOON_S = 0.15
"""For operators who give up before a new primary can be there."""


@dataclass
class NodeMemberships(Memberships):
    """Requests each change of one node, which finds the primary by itself."""

    world: Any
    forwards = True
    impatience: random.Random = field(default_factory=lambda: random.Random(0))
    """Dice of operators who give up soon, or ask twice."""

    def act(self) -> None:
        """Do what the dice say; operators move the primary, too, in every run."""
        up = [n for n in self.world.live() if not n.is_paused()]
        if up and self.rng.random() < HAND_OVER_RATE:
            node = self.rng.choice(up)
            targets = [None, *sorted(node.journal.configuration.voters)]
            target = self.rng.choice(targets)
            for _ in range(self.impatience.choice([1, 1, 2])):
                node.spawn(self._hand_over(node, self.wish(node), target))
        super().act()

    def _ask(self, change: Change) -> None:
        up = [n for n in self.world.live() if not n.is_paused()]
        if not up:
            return
        node = self.rng.choice(up)
        leader = self.world.leader()
        if isinstance(change, Remove) and leader and leader.node_id == change.node_id:
            node.spawn(self._hand_over(node, self.wish(node), to_remove=True))
        else:
            node.spawn(self._do(node, change, self.wish(node, change)))

    async def _hand_over(
        self,
        node: Machine,
        wish: Wish,
        target: NodeId | None = None,
        *,
        to_remove: bool = False,
    ) -> None:
        assert node.replicator is not None
        outcome: object
        try:
            outcome = await node.replicator.transfer_primary(
                target, timeout_s=self.impatience.choice([CHANGE_S, CHANGE_S, SOON_S])
            )
            self.world.effects[Effect.HANDED_OVER] += 1
            self.world.effects[Effect.PRIMARY_TO_REMOVE] += to_remove
        except Exception as error:  # noqa: BLE001 - the invariants judge it.
            outcome = error
        self.world.invariants.on_wish(wish, outcome)

    async def _do(self, node: Machine, change: Change, wish: Wish) -> None:
        assert node.replicator is not None
        outcome: int | Exception = 0
        try:
            match change:
                case AddLearner():
                    await node.replicator.add_learner(change.member, timeout_s=CHANGE_S)
                case Promote():
                    await node.replicator.promote(change.node_id, timeout_s=CHANGE_S)
                case Remove():
                    await node.replicator.remove_member(
                        NodeId(change.node_id), timeout_s=CHANGE_S
                    )
        except Exception as error:  # noqa: BLE001 - the invariants judge it.
            outcome = error
        self._answered(change, wish, outcome)
