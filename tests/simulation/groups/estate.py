# SPDX-License-Identifier: Apache-2.0
"""
All clusters that share the users, the network to them, and what operators know.

Requests and answers are lost, and repeated late. An operator repeats a step until the
cluster answers, and gets the approval that it needs.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from sparecode_client import SlotTable, slot_of
from sparecode_client.clusters.slots import SLOTS, ClusterAddress
from sparecode_node.domain.challenges import Challenge
from sparecode_node.domain.moves import MoveTicket
from sparecode_node.services.secrets.move_seals import SealedPiece
from tests.simulation.groups.group import Group, GroupBackup, NotHere
from tests.simulation.groups.moves import MoveRefusedError, WaitingError
from tests.simulation.groups.rules import GroupRules
from tests.simulation.groups.tokens import TOKEN_USERS, Devices, NextTry
from tests.simulation.nodes.loops import Timeline
from tests.simulation.people import USERS, IssuedSet

NAMES = ("east", "west", "north", "south")
FOUNDED = NAMES[:3]
"""The clusters that have users in the beginning."""
CODES = 40
LATE_S = 6.0
"""The latest that the network delivers a request."""
BACKUPS_KEPT = 6
NEAR = 3
"""Slots with users that are so near to each other are neighbors: ranges move them."""

PEOPLE = (*USERS, *TOKEN_USERS)

T = TypeVar("T")


class Lost(Exception):  # noqa: N818  An event on the network.
    """There is no answer. *sent*: the request has perhaps arrived."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("sent" if sent else "not sent")
        self.sent = sent


class RestoredError(Exception):
    """A cluster was restored or lost meanwhile: other operators go on with the move."""


@dataclass(eq=False)
class Moving:
    """A move that an operator has begun."""

    move_id: str
    slots: range
    source: Group
    target: Group
    pace: float = 1.0
    """0: its operator waits for nothing between the steps."""
    ticket: MoveTicket | None = None
    backup: GroupBackup | None = None
    """Of the target, while the users are arriving."""
    is_under_way: bool = True
    """Its operator has not come to its end."""
    is_deleting: bool = False
    """The users who have left are about to be deleted: no one can take them back."""
    touched: asyncio.Event = field(default_factory=asyncio.Event)
    """Set if a cluster of it was restored or lost: its own operator leaves it alone."""
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once its own operator does nothing more."""

    @property
    def is_touched(self) -> bool:
        return self.touched.is_set()

    def shares_slots_with(self, slots: range) -> bool:
        return self.slots[0] <= slots[-1] and slots[0] <= self.slots[-1]

    def is_within(self, slots: range) -> bool:
        return slots[0] <= self.slots[0] and self.slots[-1] <= slots[-1]


def neighborhoods(slots: Sequence[int]) -> list[range]:
    """Return ranges around slots that are near to each other, with a slot on each side."""
    found: list[range] = []
    for slot in slots:
        if found and slot - found[-1].stop < NEAR:
            found[-1] = range(found[-1].start, slot + 2)
        else:
            found.append(range(slot - 1, slot + 2))
    return found


def ranges_of(slots: Sequence[int]) -> list[range]:
    """Return slots, which are in order, as ranges."""
    found: list[range] = []
    for slot in slots:
        if found and slot == found[-1].stop:
            found[-1] = range(found[-1].start, slot + 1)
        else:
            found.append(range(slot, slot + 1))
    return found


class Estate:
    """All clusters, and what operators and programs share."""

    def __init__(
        self, rng: random.Random, rules: GroupRules, timeline: Timeline, programs: int
    ) -> None:
        self.rng = rng
        self.rules = rules
        self.timeline = timeline
        self.is_faulty = True
        self.groups = {name: Group(name, lambda: timeline.now) for name in NAMES}
        self.slots = sorted({slot_of(user) for user in PEOPLE})
        """The slots that have users."""
        self.neighborhoods = neighborhoods(self.slots)
        self.devices = Devices(
            random.Random(f"{rng.random()} devices"),
            lambda: timeline.now,
            lambda user: rules.positions.get(user, -1),
        )
        self.codes: set[str] = set()
        self.sets: dict[str, int] = {}
        """The newest set of each user."""
        self.table = self._beginning()
        self.files = [self.table] * programs
        """The slot table as each program has it on its disk."""
        self.backups: dict[str, list[GroupBackup]] = {}
        self.back_up_all()
        self.begun: list[Moving] = []
        self.held: set[int] = set()
        """Slots whose home is being found after a restore: nobody begins to move them."""
        self.restoring: Group | None = None
        self.tickets: list[MoveTicket] = []
        self.pieces: list[tuple[str, SealedPiece]] = []
        """With the clusters that they are for."""
        self.receipts: list[bytes] = [b"forged"]
        self.challenges: dict[bytes, tuple[Challenge, str]] = {}
        """Each with the id of the cluster that it is sealed for."""
        self.answers: list[NextTry] = []
        """The answers to challenges that programs have sent."""
        self._numbers: dict[str, int] = {}

    def close(self) -> None:
        for group in self.groups.values():
            group.close()

    def _beginning(self) -> SlotTable:
        owners = ["east"] * SLOTS
        for slots in self.neighborhoods:
            owners[slots.start : slots.stop] = [self.rng.choice(FOUNDED)] * len(slots)
        for user in TOKEN_USERS:
            self.groups[owners[slot_of(user)]].add_token_user(user)
        for user in USERS:
            issued = self._next_set(user)
            self.groups[owners[slot_of(user)]].add_user(user, issued)
            self._count(issued)
        for group in self.groups.values():
            group.appoint()
        clusters = {
            name: ClusterAddress(
                name=name, nodes=(name,), ca="", certificate="", key=""
            )
            for name in NAMES
        }
        return SlotTable(version=1, clusters=clusters, owners=tuple(owners))

    @property
    def living(self) -> Sequence[Group]:
        """All clusters that are not lost for good."""
        return [group for group in self.groups.values() if not group.is_lost]

    def name(self, what: str) -> str:
        self._numbers[what] = self._numbers.get(what, 0) + 1
        return f"{what}{self._numbers[what]}"

    def back_up_all(self) -> None:
        """Make a backup of each cluster, and keep no older one."""
        self.backups = {group.name: [group.back_up()] for group in self.living}

    def keep(self, group: Group) -> GroupBackup:
        """Make a backup of a cluster, and keep it with the newest others."""
        backup = group.back_up()
        kept = self.backups[group.name][-BACKUPS_KEPT + 1 :]
        self.backups[group.name] = [*kept, backup]
        return backup

    def check_homes(self) -> None:
        self.rules.check_homes(self.living, self.slots)

    def owners(self, slots: range) -> set[str]:
        """Return the clusters that the table gives these slots to."""
        return set(self.table.owners[slots.start : slots.stop])

    def with_users(self, slots: range) -> list[int]:
        return [slot for slot in self.slots if slot in slots]

    # --- Codes

    def codes_of(self, slot: int) -> set[str]:
        """Return all codes that users of a slot ever got."""
        users = tuple(f"{user}." for user in USERS if slot_of(user) == slot)
        return {code for code in self.codes if code.startswith(users)}

    async def issue_anew(self, group: Group, slot: int) -> None:
        """Issue new codes to the users of a slot, whose codes are void."""
        for user in USERS:
            if slot_of(user) == slot:
                issued = self._next_set(user)
                await self.step(group, partial(group.issue, issued), patient=True)
                self._count(issued)

    def _next_set(self, user: str) -> IssuedSet:
        return IssuedSet(user, self.sets.get(user, 0) + 1, CODES)

    def _count(self, issued: IssuedSet) -> None:
        self.sets[issued.user] = issued.number
        self.codes |= {f"{issued.set_id}/{n}" for n in range(1, issued.codes + 1)}

    # --- The network

    async def ask(
        self, group: Group, action: Callable[[], T], slot: int | None = None
    ) -> T:
        """
        Let a cluster do something, and return the answer, unless something is lost.

        *slot*: of an attempt. If it left the cluster, no copy arrives once it may be back
        (`queues.py`).
        """
        rng, epoch = self.rng, group.epoch
        await asyncio.sleep(rng.uniform(0.001, 0.05))
        if not group.is_up or group.epoch != epoch:
            raise Lost(sent=False)
        if self.is_faulty and rng.random() < 0.05:
            self.repeat_late(group, action, slot)  # It was only slow.
            raise Lost(sent=True)
        if self.is_faulty and rng.random() < 0.05:
            self.repeat_late(group, action, slot)
        result = action()
        self.check_homes()
        await asyncio.sleep(rng.uniform(0.001, 0.05))
        if self.is_faulty and rng.random() < 0.2:
            raise Lost(sent=True)
        return result

    def repeat_late(
        self, group: Group, action: Callable[[], object], slot: int | None = None
    ) -> None:
        """Let a request arrive a second time, or for the first time, later."""
        late_s = self.rng.choice([0.05, 0.5, 2.0, LATE_S])
        back_s = None if slot is None else group.moves.back_from_s(slot)
        if back_s is None or self.timeline.now + late_s < back_s:
            self.arrive_late(group, action, late_s)

    def arrive_late(
        self, group: Group, action: Callable[[], object], seconds: float
    ) -> None:
        """Let a request arrive after a while, if the cluster then has a quorum."""
        epoch = group.epoch

        def arrive() -> None:
            if not group.is_up:
                return
            try:
                with group.calls_of(epoch):
                    action()
            except (NotHere, MoveRefusedError, WaitingError):
                self.rules.counts["late and refused"] += 1
            self.check_homes()

        self.timeline.after(seconds, arrive)

    # --- Operators

    async def insist(
        self, group: Group, action: Callable[[], T], epoch: int | None = None
    ) -> T:
        """
        Repeat a step until it is answered, within one epoch of the cluster.

        Raises `MoveRefusedError` and `RestoredError`.
        """
        epoch = epoch or group.epoch
        while True:
            if group.is_lost or group.epoch != epoch:
                raise RestoredError(group.name)
            try:
                return await self.ask(group, action)
            except Lost:
                await asyncio.sleep(self.rng.uniform(0.05, 1.0))

    async def step(
        self, group: Group, step: Callable[[str], T], *, patient: bool = False
    ) -> T:
        """
        Do a step, and get its approval if it needs one.

        The approval may be late, and the operator may not wait for it; a *patient* one
        does. Raises `MoveRefusedError` and `RestoredError`.
        """
        epoch = group.epoch
        while True:
            request = self.name("request")
            try:
                return await self.insist(group, partial(step, request), epoch)
            except WaitingError as waiting:
                approval = waiting.approval_id
            approve = partial(group.approve, approval)
            if not patient and self.is_faulty and self.rng.random() < 0.08:
                self.repeat_late(group, partial(approve, self.name("approval")))
                self.rules.counts["late approvals"] += 1
                raise MoveRefusedError("nobody approves")
            await asyncio.sleep(self.rng.choice([0.0, 0.2, 2.0]))
            try:
                await self.insist(group, partial(approve, self.name("approval")), epoch)
            except MoveRefusedError:
                if not patient:
                    raise
            self.rules.counts["approved"] += 1

    def publish(
        self, slots: Sequence[int], target: Group, *, over: Sequence[Group]
    ) -> None:
        """
        Give slots to a cluster in the table that programs get sooner or later.

        *over*: the clusters that this operator expects there. If a slot has another one,
        another operator has moved it on, and its row stays as it is.
        """
        owners, expected = list(self.table.owners), {group.name for group in over}
        for slot in slots:
            if owners[slot] in expected:
                owners[slot] = target.name
        if owners != list(self.table.owners):
            self.table = replace(
                self.table, version=self.table.version + 1, owners=tuple(owners)
            )
