# SPDX-License-Identifier: Apache-2.0
"""Members that ask the leader for their own callers, and give their word (read_index)."""

import random
from typing import Protocol

from sparecode_node.replication.raft.read_index import Word
from tests.simulation.invariants import Invariants, Read
from tests.simulation.machines import Node
from tests.simulation.network import Network

RATE = 0.2


class World(Protocol):
    """The surroundings of these members."""

    network: Network
    invariants: Invariants

    def live(self) -> list[Node]: ...
    def read(
        self, node: Node, word: Word | None = None, floor: int | None = None
    ) -> Read: ...


class Words:
    """Acts like a replica's loop that is asked for a linearizable read."""

    def __init__(self, world: World, dice: random.Random) -> None:
        """*dice* of their own: that members ask alters nothing else."""
        self._world = world
        self._dice = dice

    def act(self) -> None:
        """
        Sometimes let a member ask a node that believes to lead, after a while.

        Its question does not use the links, so no cut holds it up.
        """
        up = [node for node in self._world.live() if not node.is_paused()]
        if self._dice.random() > RATE or not up:
            return
        asking = self._dice.choice(up)
        word = word_of(asking)
        floor = max(self._world.invariants.applied, default=0)

        def ask() -> None:
            for node in self._world.live():
                if node.leads and not node.is_paused() and node is not asking:
                    self._world.read(node, word, floor)

        late = self._dice.choice([0.01, self._dice.uniform(0, 1)])
        self._world.network.at(late, ask)


def word_of(node: Node) -> Word:
    """Return what a member says of its term at this moment."""
    return Word(member=node.node_id, hello=node.hello(), term=node.term)
