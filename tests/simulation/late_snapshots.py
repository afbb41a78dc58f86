# SPDX-License-Identifier: Apache-2.0
"""
Snapshots that stop on their way, and arrive when their member needs them no longer.

A member that lacks what one leader has dropped may get it from the next leader, if that
one has kept more of its log. The fetch goes on meanwhile. So in some runs one machine
keeps its whole log, and snapshots stop on their way for a while.
"""

import asyncio
import random
from typing import Protocol

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.settings import RaftSettings
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.machines import Node
from tests.simulation.memberships import Memberships

RATE = 0.2
"""Of the runs."""

RATE_OF_ABSENCES = 0.6
"""Of the runs in which members are away for long."""

LONG_LOG = RaftSettings(log_entries_max=64, log_entries_kept=32, member_stalled_s=1.0)
"""Of the machine that keeps its log: a run has some thirty entries."""

STOPPED = 0.5
"""How often a snapshot stops on its way, while there are faults."""

STOPPED_S = 0.3, 3.0

HANDED_OVER = 0.5
"""How often an operator makes that machine lead then."""


class World(Protocol):
    """The cluster."""

    ids: list[str]
    nodes: dict[str, Node]
    effects: Effects
    memberships: Memberships

    def live(self) -> list[Node]: ...


class LateSnapshots:
    """Lets snapshots stop on their way, in some runs."""

    def __init__(self, world: World, dice: random.Random) -> None:
        """*dice*: of their own. Nothing happens before `begin`."""
        self._world = world
        self._dice = dice
        self.keeper = ""
        """The machine that keeps its log, if there is one in this run."""

    def begin(self, *, away: bool) -> None:
        """
        Choose, before any node starts, who keeps its log in this run, if any does.

        *away*: whether members are away for long.
        """
        if self._dice.random() < (RATE_OF_ABSENCES if away else RATE):
            self.keeper = self._dice.choice(self._world.ids)
            self._world.nodes[self.keeper].raft = LONG_LOG

    async def stop_some(self) -> None:
        """Let a part of a snapshot stop on its way, sometimes."""
        if not self.keeper or self._dice.random() >= STOPPED:
            return
        self._world.effects[Effect.SNAPSHOT_STOPPED] += 1
        if self._dice.random() < HANDED_OVER:
            self.hand_over(self.keeper)
        await asyncio.sleep(self._dice.uniform(*STOPPED_S))

    def hand_over(self, target: str) -> None:
        """Ask the leader to let another machine lead."""
        leaders = [node for node in self._world.live() if node.leads]
        for node in leaders:
            if node.node_id != target and not node.is_paused():
                members = self._world.memberships
                members.transfer(node, members.wish(node), NodeId(target))
