# SPDX-License-Identifier: Apache-2.0
"""
Members come and go while everything else goes wrong too.

Machines are added and join as learners, are promoted, removed, replaced. A removed one
runs on with all its data and tries to take part. A wiped one returns under its old id
without data, like a node that lost its disk.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.members import Configuration, Member, MemberRole
from sparecode_node.replication.raft.membership_changes import (
    AddLearner,
    Change,
    ChangeOutcome,
    Promote,
    Remove,
)
from tests.simulation.changes import Wish
from tests.simulation.comparisons import Comparison
from tests.simulation.fault_effects import Effect, Effects
from tests.simulation.invariants import Invariants
from tests.simulation.machines import Node
from tests.simulation.observed import attempt_of
from tests.simulation.statements import Statements

CHANGE_S = 1.5
HURRIED = 0.1
"""How often an administrator changes the members of a cluster that has just begun."""
MACHINES_MORE = 3
"""Machines added in a run, at most."""

_DONE = {
    AddLearner: Effect.LEARNER_ADDED,
    Promote: Effect.LEARNER_PROMOTED,
    Remove: Effect.MEMBER_REMOVED,
}


class World(Protocol):
    """The cluster."""

    now: float
    effects: Effects
    invariants: Invariants
    nodes: dict[str, Node]
    statements: Statements

    def live(self) -> list[Node]: ...
    def leader(self) -> str | None: ...
    def add_machine(self, node_id: str, members: tuple[Member, ...]) -> None: ...
    def wipe(self, node: Node) -> None: ...
    def run_on(self, node: Node, act: Any) -> bool: ...
    def trace(self, now: float, seen: str) -> None: ...


@dataclass
class Memberships:
    """Requests membership changes, and knows the members."""

    world: World
    rng: random.Random
    rate: float
    """The rate of membership changes, per step."""
    founders: int
    hurry: random.Random | None = None
    """Dice of an administrator who does not wait until the cluster is ready, if any."""
    repeats: int = 0
    """How often an impatient administrator asks for the same again, at once."""
    configuration: Configuration = field(default_factory=Configuration)
    """The newest that is known to be committed."""
    wiped: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    """Machines whose disk has rotted: they may have to be replaced."""
    acknowledged: list[Change] = field(default_factory=list)
    """Changes that were acknowledged."""
    forwards: ClassVar[bool] = False
    """Whether a node that is asked asks the primary."""
    _committed: int = 0
    _added: int = 0

    def __post_init__(self) -> None:
        """Draw whether the administrator is in a hurry, where members change at all."""
        if self.hurry and not (self.rate and self.hurry.random() < HURRIED):
            self.hurry = None

    # --- Looking

    def look_at(self, node: Node) -> None:
        """Learn what is committed; see that members change one at a time."""
        journal = node.journal
        committed = node.running.engine.raftCommitIndex
        if committed > self._committed and committed >= journal.first_index:
            self._committed = committed
            self.configuration = journal.configuration_at(committed)
        # A joining node starts with members that are newer than the start of its log.
        known = [result for index, result in journal._configurations if index > 0]
        for one, next_one in itertools.pairwise(known):
            self.world.invariants.comparisons[Comparison.CONFIGURATION] += (
                one.voters != next_one.voters
            )
            if len(one.voters ^ next_one.voters) > 1:
                seen = (
                    f"{node.node_id}: {sorted(one.voters)}, {sorted(next_one.voters)}"
                )
                self.world.invariants.violated("one change at a time", seen)

    def on_leader(self, node: Node) -> None:
        """See that whom the cluster has let go leads in no term that is new."""
        outside = node.node_id in self.wiped or (
            node.node_id in self.configuration.removed
        )
        if outside:
            seen = f"{node.node_id} leads in term {node.term}"
            self.world.invariants.violated("no outsider leads", seen)

    def belonging(self) -> list[str]:
        """Return the members that have what they need to be some."""
        return [i for i in self.configuration.ids if i not in self.wiped]

    def is_asked(self) -> bool:
        """
        Return whether a change may still begin that was asked for.

        If it removes a voter, no other one can be lost at the same time.
        """
        wishes = self.world.invariants.wishes
        return any(not (each.outcomes or each.node_died) for each in wishes)

    def can_lose_one(self, but: str = "") -> bool:
        """Return whether all is so well that a voter may be lost; *but* that one is."""
        lost = ((self.wiped | self.doubtful) - {but}) & set(self.configuration.ids)
        few = len(self.configuration.voters) < 3
        return not (few or lost or self.is_asked())

    def check(self) -> None:
        """See that what was acknowledged of the members is so, or has gone further."""
        result = self.configuration
        for change in self.acknowledged:
            node_id = change.node_id
            is_so = {
                AddLearner: result.member(node_id) is not None,
                Promote: node_id in result.voters,
                Remove: False,
            }[type(change)]
            self.world.invariants.comparisons[Comparison.CHANGE] += 1
            if not (is_so or node_id in result.removed):
                seen = f"{change}, and the members are {result}"
                self.world.invariants.violated("changes kept", seen)

    # --- Changing

    def act(self) -> None:
        """Do what the dice say."""
        if not self.configuration.members or self.rng.random() >= self.rate:
            return
        if self.rng.random() < 0.15:
            self._wipe_one()
        elif change := self._wanted():
            for _ in range(1 + self.repeats):
                self._ask(change)

    def act_at_once(self) -> None:
        """Ask the first leader for a change, before it knows the journals of all."""
        if self.hurry is None or not self.configuration.members:
            return
        if not any(node.leads for node in self.world.live()):
            return
        dice, self.hurry = self.hurry, None
        founder = NodeId(dice.choice(sorted(self.configuration.voters)))
        adds = dice.random() < 0.5
        self._ask(AddLearner(self._new_machine()) if adds else Remove(founder))
        self.world.effects[Effect.CHANGE_AT_ONCE] += 1

    def _wanted(self) -> Change | None:
        result, rng = self.configuration, self.rng
        learners = [m for m in result.members if m.role is MemberRole.LEARNER]
        if learners and rng.random() < 0.7:
            node_id = rng.choice(learners).node_id
            return Promote(node_id) if rng.random() < 0.85 else Remove(node_id)
        if gone := sorted(self.wiped & set(result.ids)):
            return Remove(NodeId(rng.choice(gone)))
        few = len(result.members) <= self.founders
        if few and not learners and self._added < MACHINES_MORE:
            return AddLearner(self._new_machine())
        if len(result.voters) > self.founders or rng.random() < 0.2:
            chosen = NodeId(rng.choice(sorted(result.voters)))
            # The operator of an only voter would be a majority, and skip entries.
            is_needed = self.world.statements.signs and len(result.voters) <= 2
            # Nor does one remove a good machine while another has to be replaced.
            is_needed = is_needed or bool(self.doubtful & (result.voters - {chosen}))
            return None if is_needed else Remove(chosen)
        return None

    def _new_machine(self) -> Member:
        self._added += 1
        node_id = f"n{self.founders + self._added}"
        member = Member(node_id=NodeId(node_id), address=f"{node_id}:7301")
        self.world.add_machine(node_id, (*self.configuration.members, member))
        return member

    def _ask(self, change: Change) -> None:
        """Request it of every node that believes to lead: at most one can do it."""
        for node in self.world.live():
            if not node.leads or node.is_paused():
                continue
            if isinstance(change, Remove) and change.node_id == node.node_id:
                self.transfer(node, self.wish(node), to_remove=True)
            else:
                self._change(node, change, self.wish(node, change))

    def remove(self, leader: Node, node_id: str) -> None:
        """Ask a leader to remove a voter, if one may be lost."""
        if node_id in self.configuration.voters and self.can_lose_one():
            change = Remove(NodeId(node_id))
            self._change(leader, change, self.wish(leader, change))

    def wish(self, node: Node, change: Change | None = None) -> Wish:
        """Wait for the answer of a node: to a change, or else to a hand-over."""
        wishes = self.world.invariants.wishes
        calls = attempt_of(node, len(wishes))
        due = self.world.now + CHANGE_S
        wish = Wish(calls, due, change=change, travels=self.forwards)
        wishes.append(wish)
        return wish

    def transfer(
        self,
        node: Node,
        wish: Wish,
        target: NodeId | None = None,
        timeout_s: float = CHANGE_S,
        *,
        to_remove: bool = False,
    ) -> None:
        """Ask one node to hand over, also because it is *to_remove*."""

        def answered(outcome: object) -> None:
            handed_over = to_remove and not isinstance(outcome, Exception)
            self.world.effects[Effect.PRIMARY_TO_REMOVE] += handed_over
            self.world.invariants.on_wish(wish, outcome)

        self.world.run_on(
            node,
            lambda replica: replica.transfer(
                target, timeout_s=timeout_s, callback=answered
            ),
        )

    def _change(self, node: Node, change: Change, wish: Wish) -> None:
        self.change(node, change, lambda o: self._answered(change, wish, o))

    def change(
        self, node: Node, change: Change, answered: Callable[[ChangeOutcome], object]
    ) -> None:
        """Request a change of one node."""
        self.world.run_on(
            node,
            lambda replica: replica.change_members(
                change, timeout_s=CHANGE_S, callback=answered
            ),
        )

    def _answered(self, change: Change, wish: Wish, outcome: ChangeOutcome) -> None:
        self.world.invariants.on_wish(wish, outcome)
        self.world.trace(self.world.now, f"{change}: {outcome!r}")
        if isinstance(outcome, int):
            self.acknowledged.append(change)
            self.world.effects[_DONE[type(change)]] += 1
        else:
            self.world.effects[Effect.CHANGE_FAILED] += 1

    def _wipe_one(self) -> None:
        """Wipe a machine whose journal all others know by name, if they do without."""
        voters = sorted(self.configuration.voters)
        if not self.can_lose_one():
            return
        node = self.world.nodes[self.rng.choice(voters)]
        # A process that is still opening its files is up, and has no journal yet.
        up = [each for each in self.world.live() if each.node_id in voters]
        if len(up) < len(voters):
            return
        known = {
            getattr(other.journal.configuration.member(node.node_id), "journal_id", "")
            for other in up
        }
        voters_known = {other.journal.configuration.voters for other in up}
        if known == {node.journal.journal_id} and len(voters_known) == 1:
            self.wiped.add(node.node_id)
            self.world.wipe(node)
