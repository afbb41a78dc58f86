# SPDX-License-Identifier: Apache-2.0
"""
Clusters that share the users, programs that sign them in, and operators who move slots.

The programs use the library's `AsyncRoutedAgent`, the clusters the real state machine.
Requests and answers are lost and repeated late, clusters lose their quorum for a while,
slot tables are old, operators give moves up, and a thief sends again what they have sent.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import pytest

from sparecode_client import (
    AsyncRoutedAgent,
    Authentication,
    Decision,
    OutcomeUnknown,
    Refused,
    SlotTable,
    SparecodeError,
    Unavailable,
    slot_of,
)
from sparecode_client.agent import AsyncAgent
from sparecode_client.clusters.routes import LOOK_S
from sparecode_client.clusters.slots import SLOTS, ClusterAddress
from sparecode_node.domain.ids import SetId
from sparecode_node.domain.moves import MoveTicket
from sparecode_node.services.cluster import move_pieces
from sparecode_node.services.secrets.move_seals import SealedPiece
from sparecode_node.statemachine.handlers import moves as move_handlers
from tests.simulation.groups.group import Group, NotHere
from tests.simulation.groups.moves import (
    DELETED_AFTER_MS,
    REMEMBERED_S,
    MoveRefusedError,
    WaitingError,
)
from tests.simulation.groups.rules import GroupRules
from tests.simulation.nodes.loops import NodeLoop, Timeline
from tests.simulation.people import USERS, IssuedSet, Try

NAMES = ("east", "west", "north")
CODES = 40
CONTENT_BYTES = 1_000
"""A user has several pieces, so that an import may stop between them."""
RESERVED = 4
"""Codes of each user that are tried at the end alone."""
SECONDS = 60.0
PROGRAMS = 3
OPERATORS = 3
WITHIN = timedelta(seconds=1)
LATE_S = 6.0
"""The latest that the network delivers a request."""
REPEATED_S = REMEMBERED_S - LATE_S - WITHIN.total_seconds() - 1.0
"""A program begins no try later: the clusters must still remember the request then."""

T = TypeVar("T")


class Lost(Exception):  # noqa: N818  An event on the network.
    """There is no answer. *sent*: the request has perhaps arrived."""

    def __init__(self, *, sent: bool) -> None:
        super().__init__("sent" if sent else "not sent")
        self.sent = sent


class GroupsRun:
    """One seed."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(move_handlers, "DELETED_AFTER_MS", DELETED_AFTER_MS)
        self._patch.setattr(move_pieces, "CONTENT_BYTES", CONTENT_BYTES)
        self.rules = GroupRules()
        self.timeline = Timeline()
        self.loop = NodeLoop(
            self.timeline,
            self.rng,
            rate=1.0,
            run_beside=lambda work: work() or 0.0,
            on_error=lambda seen: self.rules.violated("no exception", seen),
        )
        self.groups = {name: Group(name, lambda: self.timeline.now) for name in NAMES}
        self.is_faulty = True
        self.slots = sorted({slot_of(user) for user in USERS})
        self.codes: set[str] = set()
        self.table = self._beginning()
        self.files = [self.table] * PROGRAMS
        """The slot table as each program has it on its disk."""
        self.programs = [
            AsyncRoutedAgent.over(self._reader(k), self._agent, timeout=WITHIN)
            for k in range(PROGRAMS)
        ]
        self._numbers: dict[str, int] = {}
        self._tickets: list[MoveTicket] = []
        self._pieces: list[tuple[str, SealedPiece]] = []
        """With the clusters that they are for."""
        self._receipts: list[bytes] = [b"forged"]

    def close(self) -> None:
        self._patch.undo()
        self.loop.kill()
        self.loop.drain()
        for group in self.groups.values():
            group.close()

    def _beginning(self) -> SlotTable:
        owners = ["east"] * SLOTS
        for user in USERS:
            owners[slot_of(user)] = self.rng.choice(NAMES)
        for user in USERS:
            issued = IssuedSet(user, 1, CODES)
            self.groups[owners[slot_of(user)]].add_user(user, issued)
            self.codes |= {f"{issued.set_id}/{n}" for n in range(1, CODES + 1)}
        for group in self.groups.values():
            group.appoint()
        clusters = {
            name: ClusterAddress(
                name=name, nodes=(name,), ca="", certificate="", key=""
            )
            for name in NAMES
        }
        return SlotTable(version=1, clusters=clusters, owners=tuple(owners))

    def _reader(self, program: int) -> Callable[[], SlotTable]:
        return lambda: self.files[program]

    def _agent(self, cluster: ClusterAddress) -> AsyncAgent:
        return cast("AsyncAgent", GroupAgent(self, self.groups[cluster.name]))

    def name(self, what: str) -> str:
        self._numbers[what] = self._numbers.get(what, 0) + 1
        return f"{what}{self._numbers[what]}"

    # --- The run

    def run(self) -> None:
        """Run to the end, and look at what is left."""
        work = [
            *(self._sign_in(program) for program in range(PROGRAMS)),
            *(self._move() for _ in range(OPERATORS)),
            self._fail(),
            self._deploy(),
            self._steal(),
        ]
        tasks = [self.loop.create_task(each) for each in work]
        self.timeline.run_until(self.timeline.now + SECONDS)
        self.is_faulty = False
        for group in self.groups.values():
            group.is_up = True
        self.timeline.run_until(self.timeline.now + SECONDS)
        self._expect_end(tasks)
        self.files = [self.table] * PROGRAMS
        self._expect_end([self.loop.create_task(self._lose_each_group())])
        self.rules.check_homes(self._all, self.slots)
        self.rules.check_end(self._all, self.slots, self.codes)

    @property
    def _all(self) -> Sequence[Group]:
        return list(self.groups.values())

    def _expect_end(self, tasks: Sequence["asyncio.Task[Any]"]) -> None:
        self.timeline.run_until(self.timeline.now + SECONDS)
        for task in tasks:
            if not task.done():
                self.rules.violated("everything ends", repr(task.get_coro()))
            elif error := task.exception():
                self.rules.violated("no exception", repr(error))

    # --- The network

    async def ask(self, group: Group, action: Callable[[], T]) -> T:
        """Let a cluster do something, and return the answer, unless something is lost."""
        rng = self.rng
        await asyncio.sleep(rng.uniform(0.001, 0.05))
        if not group.is_up:
            raise Lost(sent=False)
        if self.is_faulty and rng.random() < 0.05:
            self._repeat_late(group, action)  # It was only slow.
            raise Lost(sent=True)
        if self.is_faulty and rng.random() < 0.05:
            self._repeat_late(group, action)
        result = action()
        self.rules.check_homes(self._all, self.slots)
        await asyncio.sleep(rng.uniform(0.001, 0.05))
        if self.is_faulty and rng.random() < 0.2:
            raise Lost(sent=True)
        return result

    def _repeat_late(self, group: Group, action: Callable[[], object]) -> None:
        def arrive() -> None:
            if not group.is_up:
                return
            try:
                action()
            except (NotHere, MoveRefusedError, WaitingError):
                self.rules.counts["late and refused"] += 1
            self.rules.check_homes(self._all, self.slots)

        self.timeline.after(self.rng.choice([0.05, 0.5, 2.0, LATE_S]), arrive)

    # --- Programs

    async def _sign_in(self, program: int) -> None:
        rng = self.rng
        while self.is_faulty:
            await asyncio.sleep(rng.uniform(0.01, 0.6))
            user = rng.choice(USERS)
            # Programs try the same codes at about the same time.
            progress = int((self.timeline.now - 1000.0) / SECONDS * (CODES - RESERVED))
            ordinal = min(CODES - RESERVED, max(1, progress + rng.randint(-1, 2)))
            await self._try(program, user, ordinal)

    async def _try(self, program: int, user: str, ordinal: int) -> Decision | None:
        """Sign in, and retry now and then if the outcome is unknown."""
        request_id, cluster = self.name("try"), ""
        until_s = self.timeline.now + REPEATED_S
        while self.timeline.now < until_s:
            try:
                answer = await self.programs[program].authenticate(
                    user, f"{ordinal}", request_id=request_id, cluster=cluster
                )
            except OutcomeUnknown as error:
                self.rules.counts["unknown"] += 1
                if self.rng.random() < 0.2:
                    return None
                await asyncio.sleep(self.rng.choice([0.1, 1.0, 6.0]))
                if self.rng.random() < 0.3:  # Another program goes on.
                    program = self.rng.randrange(PROGRAMS)
                    cluster = error.cluster
            except (Unavailable, Refused):
                return None
            else:
                self.rules.on_answer(request_id, answer.decision)
                return answer.decision
        return None

    async def _deploy(self) -> None:
        """Copy the slot table to the programs, late."""
        while self.is_faulty:
            await asyncio.sleep(self.rng.uniform(0.1, 3.0))
            self.files[self.rng.randrange(PROGRAMS)] = self.table

    # --- Operators

    async def _move(self) -> None:
        while self.is_faulty:
            await asyncio.sleep(self.rng.uniform(0.1, 2.0))
            slot = self.rng.choice(self.slots)
            source = self.groups[self.table.owners[slot]]
            target = self.groups[self.rng.choice(NAMES)]
            if target is source:
                continue
            moved = await self._move_slot(slot, source, target)
            if moved and self.rng.random() < 0.3:  # It was a mistake: back at once.
                await self._move_slot(slot, target, source)

    async def _move_slot(self, slot: int, source: Group, target: Group) -> bool:
        """Move a slot, or cancel that; return whether it has moved."""
        move_id, key = self.name("move"), source.moves.key
        try:
            ticket = await self._step(
                target,
                lambda request: target.moves.prepare(move_id, slot, key, request),
            )
        except MoveRefusedError:
            return False
        self._tickets.append(ticket)
        hurried = False
        try:
            for step in (self._freeze, self._import):
                await step(ticket, source, target)
                if self.rng.random() < 0.4:  # An operator in a hurry.
                    self._publish(slot, target, over=[source])
                    hurried = True
                await asyncio.sleep(self.rng.choice([0.0, 0.1, 2.0, 4.0]))
                if self.rng.random() < 0.2:
                    raise MoveRefusedError("the operator gives up")  # noqa: TRY301
            receipt, over = await self._activate(ticket, target), source
        except MoveRefusedError:
            receipt, over = await self._give_up(ticket, source, target)
            if hurried and over is target:
                self._publish(slot, source, over=[target])
        if over is source:
            self._publish(slot, target, over=[source])
        self.rules.counts["moves" if over is source else "canceled"] += 1
        self._receipts.append(receipt)
        await asyncio.sleep(self.rng.choice([0.0, 0.2, 2.0]))
        try:
            await self._step(
                source,
                lambda request: source.moves.end(ticket, receipt, request),
                patient=True,
            )
            await asyncio.sleep(DELETED_AFTER_MS / 1000 + self.rng.choice([0.1, 3.0]))
            await self._step(
                over, lambda request: over.moves.delete(move_id, request), patient=True
            )
        except MoveRefusedError as error:
            self.rules.violated("a move ends as its target says", f"{move_id}: {error}")
        return over is source

    async def _freeze(self, ticket: MoveTicket, source: Group, target: Group) -> None:
        del target
        await self._step(source, lambda request: source.moves.freeze(ticket, request))

    async def _import(self, ticket: MoveTicket, source: Group, target: Group) -> None:
        pieces = await self._step(
            source, lambda request: source.moves.export(ticket.move_id, request)
        )
        self._pieces += [(target.name, piece) for piece in pieces]
        # An operator may stop in the middle, and believe that all is imported.
        if self.rng.random() < 0.05:
            pieces = pieces[:-1]
        for piece in pieces:
            await self._step(
                target, lambda request, piece=piece: target.moves.take(piece, request)
            )

    async def _activate(self, ticket: MoveTicket, target: Group) -> bytes:
        return await self._step(
            target, lambda request: target.moves.activate(ticket.move_id, request)
        )

    async def _give_up(
        self, ticket: MoveTicket, source: Group, target: Group
    ) -> tuple[bytes, Group]:
        """Cancel a move, or take the receipt of its activation, which was approved late."""
        try:
            return await self._cancel(ticket, target), target
        except MoveRefusedError:
            return await self._activate(ticket, target), source

    async def _cancel(self, ticket: MoveTicket, target: Group) -> bytes:
        return await self._step(
            target,
            lambda request: target.moves.cancel(ticket.move_id, request),
            patient=True,
        )

    async def _step(
        self, group: Group, step: Callable[[str], T], *, patient: bool = False
    ) -> T:
        """
        Do a step, and get its approval if it needs one. Raises `MoveRefusedError`.

        The approval may be late, and the operator may not wait for it; a *patient* one
        does.
        """
        while True:
            request = self.name("request")
            try:
                return await self._insist(group, partial(step, request))
            except WaitingError as waiting:
                approval = waiting.approval_id
            approve = partial(group.approve, approval)
            if not patient and self.is_faulty and self.rng.random() < 0.08:
                self._repeat_late(group, partial(approve, self.name("approval")))
                self.rules.counts["late approvals"] += 1
                raise MoveRefusedError("nobody approves")
            await asyncio.sleep(self.rng.choice([0.0, 0.2, 2.0]))
            try:
                await self._insist(group, partial(approve, self.name("approval")))
            except MoveRefusedError:
                if not patient:
                    raise
            self.rules.counts["approved"] += 1

    def _publish(self, slot: int, target: Group, *, over: Sequence[Group]) -> None:
        """
        Give the slot to a cluster in the table that programs get sooner or later.

        *over*: the clusters that this operator expects there. If it is another one,
        another operator has moved the slot on, and the table stays as it is.
        """
        owners = list(self.table.owners)
        if owners[slot] not in {group.name for group in over}:
            return
        owners[slot] = target.name
        self.table = replace(
            self.table, version=self.table.version + 1, owners=tuple(owners)
        )

    async def _insist(self, group: Group, action: Callable[[], T]) -> T:
        """Repeat a step until it is answered. Raises `MoveRefusedError`."""
        while True:
            try:
                return await self.ask(group, action)
            except Lost:
                await asyncio.sleep(self.rng.uniform(0.05, 1.0))

    # --- What goes wrong

    async def _fail(self) -> None:
        """Take the quorum of a cluster for a while."""
        while self.is_faulty:
            await asyncio.sleep(self.rng.uniform(1.0, 8.0))
            group = self.rng.choice(self._all)
            group.is_up = False
            await asyncio.sleep(self.rng.uniform(0.2, 4.0))
            group.is_up = True
            self.rules.counts["outages"] += 1

    async def _steal(self) -> None:
        """Send again what operators have sent: exports, orders and receipts."""
        rng = self.rng
        while self.is_faulty:
            await asyncio.sleep(rng.uniform(0.05, 0.4))
            group = rng.choice(self._all)
            pieces = [piece for name, piece in self._pieces if name == group.name]
            if not group.is_up or not self._tickets:
                continue
            ticket, request = rng.choice(self._tickets), self.name("theft")
            try:
                match rng.randrange(4):
                    case 0 | 1 if pieces:
                        group.moves.take(rng.choice(pieces), request)
                    case 2:
                        group.moves.freeze(ticket, request)
                    case _:
                        group.moves.end(ticket, rng.choice(self._receipts), request)
            except MoveRefusedError:
                self.rules.counts["thefts refused"] += 1
            except WaitingError as waiting:
                # The other administrator believes that it is the operator's step.
                if rng.random() < 0.3:
                    self._repeat_late(
                        group, partial(group.approve, waiting.approval_id, request)
                    )
            self.rules.check_homes(self._all, self.slots)

    async def _lose_each_group(self) -> None:
        """Without one cluster, its users wait; all others sign in."""
        await asyncio.sleep(LOOK_S)  # Every program has the newest table.
        for k, lost in enumerate(self._all):
            lost.is_up = False
            for user in USERS:
                home = self.table.owners[slot_of(user)]
                ordinal = CODES - RESERVED + 1 + k
                decision = await self._try(k % PROGRAMS, user, ordinal)
                if (decision is Decision.ACCEPTED) != (home != lost.name):
                    self.rules.violated(
                        "a lost cluster stops its own users alone",
                        f"{user} of {home} without {lost.name}: {decision}",
                    )
            lost.is_up = True


class GroupAgent:
    """Asks one cluster, as `AsyncAgent` does: until an answer, or the deadline."""

    removed_nodes: frozenset[str] = frozenset()

    def __init__(self, run: GroupsRun, group: Group) -> None:
        self._run = run
        self._group = group

    async def authenticate(
        self,
        username: str,
        passcode: str,
        *,
        client_address: str,
        resource: str,
        request_id: str,
        within: timedelta,
    ) -> Authentication:
        del client_address, resource
        wanted = Try(username, SetId(f"{username}.1"), int(passcode))
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + within.total_seconds()
        in_doubt, last = False, "UNREACHABLE"
        while loop.time() < deadline_s:
            try:
                decision = await self._run.ask(
                    self._group, lambda: self._decide(wanted, request_id)
                )
            except NotHere as answer:
                if answer.moved:
                    raise Refused("SLOT_MOVED", "the slot has moved away") from None
                last = "SLOT_MOVING"
            except Lost as loss:
                in_doubt |= loss.sent
            else:
                return Authentication(
                    decision=Decision(decision), authentication_id=request_id
                )
            await asyncio.sleep(0.3)
        error: SparecodeError = Unavailable(last, "no node could answer")
        if in_doubt:
            error = OutcomeUnknown(request_id, "the outcome is unknown")
        raise error

    def _decide(self, wanted: Try, request_id: str) -> str:
        rules = self._run.rules
        try:
            decision, _ = self._group.decide(wanted, request_id)
        except NotHere as answer:
            if answer.moved:
                rules.on_moved(self._group.name, request_id)
            raise
        rules.on_decided(self._group.name, request_id, wanted, decision)
        return decision.value

    async def close(self) -> None:
        """Do nothing: there is no connection."""
