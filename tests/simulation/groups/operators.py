# SPDX-License-Identifier: Apache-2.0
"""
Operators who move slots from one cluster to another, and sometimes give that up.

If a cluster of a move is restored or lost, its operator stops, and leaves the move to
`Recovery`.
"""

import asyncio
import contextlib
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

from sparecode_client import slot_of
from sparecode_node.domain.moves import MoveState
from tests.simulation.groups.estate import (
    PEOPLE,
    Estate,
    Moving,
    RestoredError,
)
from tests.simulation.groups.group import Group
from tests.simulation.groups.moves import DELETED_AFTER_MS, MoveRefusedError
from tests.simulation.groups.tokens import TOKEN_USERS

ALONE = 0.4
"""How often an operator moves one slot alone."""

T = TypeVar("T")


class Operators:
    """All operators who move slots."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self.deletions: list[asyncio.Task[None]] = []
        wide = [
            around
            for around in estate.neighborhoods
            if len(estate.with_users(around)) > 1
        ]
        self._reserved = estate.rng.choice(wide)
        """The slots of the operator who moves neighbors on."""

    async def move(self) -> None:
        """Move some slots after the others, as long as anything goes wrong."""
        estate, rng = self._estate, self._estate.rng
        while estate.is_faulty:
            await asyncio.sleep(rng.uniform(0.1, 2.0))
            slots = self._slots()
            if {*slots} & {*self._reserved}:
                continue
            source = estate.groups[estate.table.owners[slots[0]]]
            target = self._target(slots)
            moved = await self._move_slots(slots, source, target)
            if moved and rng.random() < 0.6:  # It was a mistake: back, or on, at once.
                other = rng.choice([source, *estate.living])
                pace = 0.0 if other is source else 1.0
                await self._move_slots(self._next(slots), target, other, pace)

    async def move_on(self) -> None:
        """
        Move neighbors on who have just come together, or one of them from the other.

        So a cluster often has a part of what came by a move, or what came by two. Other
        operators leave these neighbors alone: there is little time.
        """
        estate, rng = self._estate, self._estate.rng
        around = self._reserved
        while estate.is_faulty:
            await asyncio.sleep(rng.uniform(0.1, 1.0))
            pair = [*rng.choice([*pairwise(estate.with_users(around))])]
            both = range(pair[0], pair[1] + 1)
            rng.shuffle(pair)
            slots = [both, range(pair[0], pair[0] + 1)]
            source, target = (estate.groups[estate.table.owners[each]] for each in pair)
            targets = [target]
            if source is target:
                targets = estate.living
            else:
                slots.reverse()
            for each in slots:
                ready = [group for group in targets if self._can_get(group, each)]
                target = rng.choice(ready or [source])
                if not await self._move_slots(each, source, target, 0.0):
                    break
                source, targets = target, estate.living

    def _can_get(self, group: Group, slots: range) -> bool:
        """Return whether a cluster can take these slots now."""
        return not any(map(group.has_users, slots)) and group.moves.can_come(
            slots, self._estate.timeline.now
        )

    def _slots(self) -> range:
        """Return a slot with users, or a range around it that one cluster has."""
        rng = self._estate.rng
        slot = rng.choice(self._estate.slots)
        return range(slot, slot + 1) if rng.random() < ALONE else self._around(slot)

    def _next(self, slots: range) -> range:
        """Return slots that have just moved: the same ones, a part, or more of them."""
        estate, rng = self._estate, self._estate.rng
        slot = rng.choice(estate.with_users(slots))
        return rng.choice([slots, range(slot, slot + 1), self._around(slot)])

    def _around(self, slot: int) -> range:
        estate, rng = self._estate, self._estate.rng
        [around] = [each for each in estate.neighborhoods if slot in each]
        slots = range(slot, slot + 1)
        first, last = rng.choice(around[: slot - around[0] + 1]), rng.choice(around)
        for wider in (range(first, slot + 1), range(first, max(slot, last) + 1)):
            if len(estate.owners(wider)) == 1:
                slots = wider
        return slots

    def _target(self, slots: range) -> Group:
        """Return any cluster, or the one that has a slot beside these."""
        estate, rng = self._estate, self._estate.rng
        beside = estate.groups[
            estate.table.owners[rng.choice([slots[0] - 1, slots.stop])]
        ]
        is_living = not beside.is_lost
        return beside if is_living and rng.random() < 0.3 else rng.choice(estate.living)

    async def _move_slots(
        self, slots: range, source: Group, target: Group, pace: float = 1.0
    ) -> bool:
        """Move slots, or cancel that; return whether they have moved."""
        estate = self._estate
        if estate.held & {*slots} or estate.restoring in (source, target):
            return False
        if source is target or source.is_lost or target.is_lost:
            return False
        if self._splits(slots, source):
            return False
        moving = Moving(estate.name("move"), slots, source, target, pace)
        estate.rules.counts["overlaps"] += any(
            each.slots != slots and each.shares_slots_with(slots)
            for each in estate.begun
            if each.is_under_way
        )
        estate.begun.append(moving)
        over = None
        try:
            over = await self._run(moving)
        except RestoredError:
            estate.rules.counts["interrupted"] += 1
        moving.is_under_way = False
        if over is None:
            moving.stopped.set()
            return False
        deletion = asyncio.get_running_loop().create_task(self._delete(moving, over))
        self.deletions.append(deletion)
        return over is source

    def _splits(self, slots: range, source: Group) -> bool:
        """
        Return whether a move must wait, because it takes a part of what has come together.

        The earlier source first ends the move: else only its receipt could free the copy
        of those who have moved on, and that is lost with this cluster.
        """
        parts = [
            each
            for each in self._estate.begun
            if each.target is source
            and each.shares_slots_with(slots)
            and not each.is_within(slots)
        ]
        if any(
            not each.source.is_lost
            and each.source.moves.state_of(each.move_id) is MoveState.LEAVING
            for each in parts
        ):
            return True
        self._estate.rules.counts["parts"] += any(
            source.moves.decided_by(each.move_id, slots) for each in parts
        )
        return False

    async def _run(self, moving: Moving) -> Group | None:
        """Move a slot; return the cluster that does not serve it, if that has ended."""
        estate, rng = self._estate, self._estate.rng
        slots, source, target = moving.slots, moving.source, moving.target
        move_id, key = moving.move_id, source.moves.key
        try:
            ticket = await estate.step(
                target,
                lambda request: target.moves.prepare(move_id, slots, key, request),
            )
        except MoveRefusedError:
            return None
        moving.ticket = ticket
        estate.tickets.append(ticket)
        if target.is_up and target.is_open:
            moving.backup = estate.keep(target)
        hurried = False
        try:
            for step in (self._freeze, self._import):
                await step(moving)
                if rng.random() < 0.4:  # An operator in a hurry.
                    estate.publish(slots, target, over=[source])
                    hurried = True
                await asyncio.sleep(rng.choice([0.0, 0.1, 2.0, 4.0]) * moving.pace)
                if rng.random() < 0.2 * moving.pace:
                    raise MoveRefusedError("the operator gives up")  # noqa: TRY301
            receipt, over = await self._activate(moving), source
        except MoveRefusedError:
            receipt, over = await self._give_up(moving)
            if hurried and over is target:
                estate.publish(slots, source, over=[target])
        if over is source:
            estate.publish(slots, target, over=[source])
        self._count(moving, over)
        estate.receipts.append(receipt)
        await asyncio.sleep(rng.choice([0.0, 0.2, 2.0]))
        try:
            await self._step(
                moving,
                source,
                lambda request: source.moves.end(ticket, receipt, request),
                patient=True,
            )
        except MoveRefusedError as error:
            self._refused(moving, error)
        return over

    def _count(self, moving: Moving, over: Group) -> None:
        counts, slots = self._estate.rules.counts, moving.slots
        if over is moving.target:
            counts["canceled"] += 1
            counts["several canceled"] += len(slots) > 1
            return
        occupied = self._estate.with_users(slots)
        counts["moves"] += 1
        counts["several moved"] += len(occupied) > 1
        counts["empty moved"] += len(slots) > len(occupied)
        counts["users moved"] += sum(slot_of(user) in slots for user in PEOPLE)
        counts["tokens moved"] += sum(slot_of(user) in slots for user in TOKEN_USERS)

    async def _delete(self, moving: Moving, over: Group) -> None:
        """Delete the users of a canceled import; or those who have left, after a day."""
        estate = self._estate
        wait_s = estate.rng.uniform(0.1, 3.0)
        if over is moving.source:
            wait_s += DELETED_AFTER_MS / 1000
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(moving.touched.wait(), wait_s)
        try:
            if over is moving.source and not moving.is_touched:
                moving.is_deleting = True
                await back_up_before_delete(estate, moving)
            await self._step(
                moving,
                over,
                lambda request: over.moves.delete(moving.move_id, request),
                patient=True,
            )
        except RestoredError:
            estate.rules.counts["interrupted"] += 1
        except MoveRefusedError as error:
            self._refused(moving, error)
        finally:
            moving.stopped.set()

    def _refused(self, moving: Moving, error: MoveRefusedError) -> None:
        self._estate.rules.violated(
            "a move ends as its target says", f"{moving.move_id}: {error}"
        )

    async def _freeze(self, moving: Moving) -> None:
        ticket, source = moving.ticket, moving.source
        assert ticket is not None
        await self._step(
            moving, source, lambda request: source.moves.freeze(ticket, request)
        )

    async def _import(self, moving: Moving) -> None:
        source, target = moving.source, moving.target
        pieces = await self._step(
            moving,
            source,
            lambda request: source.moves.export(moving.move_id, request),
        )
        self._estate.pieces += [(target.name, piece) for piece in pieces]
        # An operator may stop in the middle, and believe that all is imported.
        if self._estate.rng.random() < 0.05:
            pieces = pieces[:-1]
        for piece in pieces:
            await self._step(
                moving,
                target,
                lambda request, piece=piece: target.moves.take(piece, request),
            )

    async def _activate(self, moving: Moving) -> bytes:
        target = moving.target
        return await self._step(
            moving,
            target,
            lambda request: target.moves.activate(moving.move_id, request),
        )

    async def _give_up(self, moving: Moving) -> tuple[bytes, Group]:
        """Cancel a move, or take the receipt of its activation, which was approved late."""
        target = moving.target
        try:
            receipt = await self._step(
                moving,
                target,
                lambda request: target.moves.cancel(moving.move_id, request),
                patient=True,
            )
        except MoveRefusedError:
            return await self._activate(moving), moving.source
        return receipt, target

    async def _step(
        self,
        moving: Moving,
        group: Group,
        step: Callable[[str], T],
        *,
        patient: bool = False,
    ) -> T:
        """Do a step of a move, unless another operator goes on with it."""
        if moving.is_touched:
            raise RestoredError(moving.move_id)
        try:
            result = await self._estate.step(group, step, patient=patient)
        except MoveRefusedError as error:
            if moving.is_touched:
                raise RestoredError(moving.move_id) from error
            raise
        return result


async def back_up_before_delete(estate: Estate, moving: Moving) -> None:
    """
    Keep no backup of the target that lacks the users of a move.

    The source deletes its copy next: a restore of such a backup would lose the users.
    """
    target = moving.target
    while True:
        kept = [
            backup
            for backup in estate.backups.get(target.name, ())
            if moving.move_id in backup.whole
        ]
        if target.is_lost:
            raise RestoredError(target.name)
        if kept or target.is_up:
            break
        await asyncio.sleep(0.5)
    estate.backups[target.name] = kept or [target.back_up()]
