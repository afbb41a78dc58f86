# SPDX-License-Identifier: Apache-2.0
"""
Members that were away for too long, and fetch a snapshot while faults go on.

Dice alone hardly let the log go on without a machine before everything heals. So in some
runs a voter stays away until the log begins after all it has. It comes back while there
are faults, and the fault points of fetching and installing act more often. In these runs
a snapshot is installed, and a log shortened, in a worker thread: the engine goes on.

In many of them another machine keeps more of its log than the leader, and is made to lead
before or while the snapshot is installed. It sends entries that follow on the old log.
"""

import random
from typing import Protocol

from sparecode_node.fault_points import Point
from tests.simulation import recovery
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.late_installations import LateInstallations
from tests.simulation.late_snapshots import LateSnapshots
from tests.simulation.machines import Node
from tests.simulation.memberships import Memberships
from tests.simulation.network import Network
from tests.simulation.point_faults import PointFaults

RATE = 0.15
"""Of the runs."""

LONGER = 1.25
"""The steps of such a run, by those of another run."""

BEGINS = 0.2
"""How often an absence begins, in a step in which all is well: few are like that."""

AWAY_MAX_S = 4.0
"""The others may have no quorum, or a log that is kept."""

WRITES = 0.4
"""How often, in a step, a leader is asked for something meanwhile: the log must grow."""

FETCHES_S = 4.0
"""How long a machine that is back has fewer other faults: they would end most fetches."""

OTHERS = 0.05
"""How often there are some then, in a step. Fault points act all the time."""

POINTS = (
    Point.SNAPSHOT_LENT,
    Point.SNAPSHOT_PART,
    Point.SNAPSHOT_COMPLETE,
    Point.INSTALL,
    Point.INSTALL_COPY,
    Point.INSTALLED,
    Point.INSTALL_REBASED,
)
ACTIVE = 0.5
"""How many of these points act in such a run."""
FREQUENT = {Point.SNAPSHOT_LENT: 4, Point.SNAPSHOT_PART: 4}
"""Reached with each part: they act in fewer runs, because few parts arrive after them."""

AT_ONCE = 0.3
"""How often a worker thread is done before the engine's thread does its next thing."""


SLOW_S = 0.2, 1.5
"""How long installing takes where another leader shall send entries meanwhile."""

SLOW = 0.8
"""How often it takes that long."""

SHORTENS = 0.1
"""How often, in a step, the machine that keeps its log is to lead no more."""

HANDED_OVER = {False: 0.03, True: 0.6}
"""How often, in a step, it is to lead; and while a snapshot is installed."""

FIRES = 0.5
"""How often such a point acts: few machines come back in a run."""


class World(Protocol):
    """The cluster."""

    ids: list[str]
    now: float
    nodes: dict[str, Node]
    network: Network
    effects: Effects
    memberships: Memberships
    points: PointFaults

    def live(self) -> list[Node]: ...
    def ask(self, node: Node) -> object: ...
    def crash(self, node: str, *, power: bool) -> None: ...
    def trace(self, now: float, seen: str) -> None: ...


class Absences:
    """Keeps one machine away, and lets it come back."""

    def __init__(
        self,
        world: World,
        dice: random.Random,
        late: LateSnapshots,
        installations: LateInstallations,
    ) -> None:
        """*dice*: of their own. Nothing happens before `begin`."""
        self._world = world
        self._dice = dice
        self._late = late
        self._installations = installations
        self._away: Node | None = None
        self._came_back: Node | None = None
        self._until = 0.0
        self.others_may_act = True
        self.happen = False
        """In this run."""

    def begin(self) -> None:
        """
        Choose, before any node starts, whether machines are away in this run.

        Then points act that are reached when one is back, and no others.
        """
        few = len(self._world.ids) < 3
        self.happen = not few and self._dice.random() < RATE
        if self.happen:
            points = [
                p for p in POINTS if self._dice.random() < ACTIVE / FREQUENT.get(p, 1)
            ]
            self._world.points.choose(points, FIRES)

    def steps(self, usual: int) -> int:
        """Return the length of the run."""
        return round(LONGER * usual) if self.happen else usual

    @property
    def is_one_away(self) -> bool:
        """Whether other faults must wait: the others would have no quorum."""
        return self._away is not None or self._installations.is_on

    def allow_others(self) -> None:
        """Decide whether other faults may act in this step."""
        self._look()
        may_act = self._fetching() is None or self._dice.random() < OTHERS
        self.others_may_act = may_act and not self.is_one_away

    def is_done_at_once(self, node: Node) -> bool:
        """Return whether what a worker thread is to do is done right now."""
        if (at_once := self._installations.is_done_at_once(node)) is not None:
            return at_once
        return not self.happen or self._dice.random() < AT_ONCE

    def takes_longer_s(self, node: Node) -> float:
        """Return how much longer a worker thread takes, if it installs a snapshot."""
        if (longer_s := self._installations.takes_longer_s(node)) is not None:
            return longer_s
        if not self._late.keeper or not node.journal.is_held:
            return 0.0
        return self._dice.uniform(*SLOW_S) if self._dice.random() < SLOW else 0.0

    def act(self) -> None:
        """Do what the dice say."""
        if not self.happen:
            return
        if self._away is not None:
            self._wait(self._away)
        elif self._installations.is_on:
            self._installations.act()
        elif self._fetching() is not None and self._late.keeper:
            self._change_leader()
        elif self._dice.random() < BEGINS:
            self._go()

    def end(self) -> None:
        """Let a machine that is away come back."""
        node, self._away, self._came_back = self._away, None, None
        if node is not None:
            self._world.trace(self._world.now, f"{node.node_id} comes back")
            node.restart_at = self._world.now

    def _look(self) -> None:
        """See whether a machine that is back has got what it lacked."""
        node = self._came_back
        if node is not None and node.replica and node.replica.has_installed:
            self._world.effects[Effect.INSTALLED_AMID_FAULTS] += 1
            self._came_back = None

    def _go(self) -> None:
        """Let a voter be away, if the others can do without it; see that they can."""
        world, members = self._world, self._world.memberships
        voters = members.configuration.voters
        up = [node for node in world.live() if node.node_id in voters]
        begins = max((n.journal.first_index for n in up if n.leads), default=None)
        if begins is None or len(up) < len(voters):
            return
        if any(node.journal.last_index < begins for node in up):
            return  # One that still has to fetch could not confirm an entry.
        if not members.can_lose_one():
            return
        keeper = self._late.keeper
        self._away = node = self._dice.choice([n for n in up if n.node_id != keeper])
        self._came_back = None
        self._until = world.now + AWAY_MAX_S
        world.crash(node.node_id, power=self._dice.random() < 0.5)
        node.restart_at = None
        recovery.mend(world.nodes.values(), world.now)
        manners = world.network.manners
        world.network.heal()
        world.network.manners = manners

    def _fetching(self) -> Node | None:
        """Return the machine that is back and fetches, for a while."""
        return self._came_back if self._world.now < self._until else None

    def _let_another_lead(self) -> None:
        """Let a machine lead that will have dropped what the absent one lacks."""
        others = [n.node_id for n in self._world.live() if not n.leads]
        if others and self._dice.random() < SHORTENS:
            self._late.hand_over(self._dice.choice(others))

    def _change_leader(self) -> None:
        """Let the machine lead that has the entries which a member lacks."""
        if self._installations.happen:
            return  # It will lead later, and know less.
        node = self._fetching()
        installs = node is not None and node.is_up() and node.journal.is_held
        if self._dice.random() < HANDED_OVER[installs]:
            self._late.hand_over(self._late.keeper)

    def _wait(self, node: Node) -> None:
        """Let a machine come back when the log has gone on without it."""
        world = self._world
        if node.is_up() or node.restart_at is not None:
            self._away = None  # Something else has started it.
            return
        leaders = [each for each in world.live() if each.leads]
        begins = max((each.journal.first_index for each in leaders), default=0)
        if begins > node.had_entries or world.now > self._until:
            self.end()
            self._came_back, self._until = node, world.now + FETCHES_S
        elif leaders and self._dice.random() < WRITES:
            world.ask(self._dice.choice(leaders))
        if any(each.node_id == self._late.keeper for each in leaders):
            self._let_another_lead()
