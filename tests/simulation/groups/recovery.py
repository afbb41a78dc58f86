# SPDX-License-Identifier: Apache-2.0
"""
Clusters that are restored from a backup, or lost for good, and what operators do then.

They follow the table of docs/clusters.md, "If a cluster is lost or restored". One cluster
is restored at a time, from a backup that is younger than the restore before.
"""

import asyncio
from itertools import combinations

from sparecode_node.domain.moves import ELSEWHERE, MoveState
from tests.simulation.groups.estate import LATE_S, Estate, Moving, ranges_of
from tests.simulation.groups.group import Group, GroupBackup
from tests.simulation.groups.moves import LEFT, MoveRefusedError, WaitingError
from tests.simulation.groups.operators import back_up_before_delete

AGAIN_S = 2.0
"""Seconds after which an operator tries a step again whose time has not come."""


class Recovery:
    """The operators who bring clusters back."""

    def __init__(self, estate: Estate) -> None:
        self._estate = estate
        self._voided: set[int] = set()
        """Slots whose users need new codes."""

    async def back_up(self) -> None:
        """Make backups, at any moment."""
        estate, rng = self._estate, self._estate.rng
        while estate.is_faulty:
            await asyncio.sleep(rng.uniform(0.2, 2.0))
            group = rng.choice(estate.living)
            if group.is_up and group.is_open:
                estate.keep(group)

    async def recover(self) -> None:
        """Restore a cluster now and then, and lose one for good."""
        estate, rng = self._estate, self._estate.rng
        loses_one = rng.random() < 0.5
        while estate.is_faulty:
            await asyncio.sleep(rng.uniform(2.0, 10.0))
            lost = await self._expendable() if loses_one else None
            if not estate.is_faulty:
                return
            if lost is not None:
                loses_one = False
                await self._lose(lost)
            else:
                group, backup = await self._to_restore()
                if estate.is_faulty:
                    await self._restore(group, backup)

    async def _to_restore(self) -> tuple[Group, GroupBackup | None]:
        """
        Return a cluster and one of its backups; None: its newest state.

        Mostly wait a moment for a cluster that gives on a part of the users whom it got,
        or others with them, and take a backup of the time when they arrived.
        """
        estate, rng = self._estate, self._estate.rng
        more = rng.random() < 0.6
        for _ in range(rng.choice([0, 120, 120])):
            if found := self._given_on(more=more):
                return rng.choice(found)
            await asyncio.sleep(0.1)
        group = rng.choice(estate.living)
        return group, rng.choice([None, *estate.backups[group.name]])

    def _given_on(self, *, more: bool) -> list[tuple[Group, GroupBackup | None]]:
        """
        Return clusters that gave on other users than they got; each with a backup.

        *more*: others with those that they got; else also a part of them.
        """
        estate = self._estate
        return [
            (later.source, earlier.backup)
            for earlier, later in combinations(estate.begun, 2)
            if later.source is earlier.target
            and later.ticket
            and earlier.shares_slots_with(later.slots)
            and estate.with_users(earlier.slots) != estate.with_users(later.slots)
            and (earlier.is_within(later.slots) or not more)
            and earlier.backup in estate.backups.get(later.source.name, ())
            and later.target.moves.state_of(later.move_id) is MoveState.ACTIVE
        ]

    # --- A restore

    async def _restore(self, group: Group, backup: GroupBackup | None) -> None:
        """Restore a cluster from a backup, and open it once it serves no slot twice."""
        estate, rng = self._estate, self._estate.rng
        survivor = group.back_up()
        backup = backup or survivor
        slots = self._begin(group)
        group.is_up = False
        await asyncio.sleep(rng.uniform(0.1, 3.0))
        group.restore(backup, "recover" if backup is survivor else "restore")
        group.is_up = True
        estate.rules.counts["restores"] += backup is not survivor
        estate.rules.counts["recoveries"] += backup is survivor
        estate.rules.on_restored(group)
        slots |= {slot for slot in estate.slots if group.has_users(slot)}
        estate.held |= slots
        await self._let_stop(group)
        await self._end_moves_from(group)
        for slot in sorted(slots):
            if group.moves.serves(slot) and group.has_users(slot):
                estate.rules.on_void(group, estate.codes_of(slot))
                self._voided.add(slot)
        await estate.step(group, group.open, patient=True)
        await self._finish(group, slots)

    def _begin(self, group: Group) -> set[int]:
        """Stop all moves from and to a cluster; return the slots that ever moved so."""
        estate = self._estate
        estate.restoring = group
        slots = {slot for slot in estate.slots if group.has_users(slot)}
        for moving in self._moves_of(group):
            moving.touched.set()
            slots |= {*moving.slots}
        estate.held |= slots
        return slots

    def _moves_of(self, group: Group, slots: range | None = None) -> list[Moving]:
        """Return the moves from and to a cluster; with *slots*, of some of these alone."""
        return [
            moving
            for moving in self._estate.begun
            if group in (moving.source, moving.target)
            and (slots is None or moving.shares_slots_with(slots))
        ]

    async def _let_stop(self, group: Group) -> None:
        for moving in self._moves_of(group):
            await moving.stopped.wait()

    async def _finish(self, group: Group, slots: set[int]) -> None:
        """Bring the slots home, issue new codes, and delete copies that are left."""
        estate = self._estate
        nearby = [each for each in estate.neighborhoods if slots & {*each}]
        for _ in range(2):  # Until then an approval may come late.
            await asyncio.gather(*(self._bring_home(group, each) for each in nearby))
            await asyncio.sleep(LATE_S + 0.1)
        everyone = list(estate.groups.values())
        for slot in sorted(slots):
            homes = [each for each in estate.living if each.is_home(slot)]
            if slot not in estate.slots:  # It has no users, so any cluster may have it.
                homes = [each for each in estate.living if each.moves.serves(slot)][:1]
            if len(homes) == 1:
                estate.publish([slot], homes[0], over=everyone)
            if slot in self._voided and homes:
                await estate.issue_anew(homes[0], slot)
        self._voided.clear()
        for each in nearby:
            for slot in estate.with_users(each):
                await self._delete_copies(slot)
        estate.back_up_all()
        estate.held -= slots
        estate.restoring = None

    # --- A loss

    async def _expendable(self) -> Group | None:
        """Wait a moment for a cluster that can be lost during a move without a user."""
        estate = self._estate
        for _ in range(50):
            for group in estate.rng.sample(estate.living, len(estate.living)):
                is_target = any(
                    moving.target is group
                    and moving.ticket
                    and not moving.stopped.is_set()
                    for moving in estate.begun
                )
                if is_target and all(
                    self._is_elsewhere(group, slot) for slot in estate.slots
                ):
                    return group
            await asyncio.sleep(0.1)
        return None

    def _is_elsewhere(self, group: Group, slot: int) -> bool:
        """Return whether the users of a slot are in another cluster, too, or not here."""
        newest = group.moves.newest_of(slot)
        if newest is None:
            return not group.has_users(slot)
        if newest.state in ELSEWHERE:
            return True
        return not group.has_users(slot) or any(
            group.moves.state_of(moving.move_id)
            in (MoveState.ACTIVE, MoveState.ARRIVING)
            and slot in _slots_left(moving)
            for moving in self._moves_of(group, range(slot, slot + 1))
            if moving.target is group and not moving.is_deleting
        )

    async def _lose(self, group: Group) -> None:
        """Lose a cluster for good: the sources of its moves take the users back."""
        estate = self._estate
        slots = self._begin(group)
        group.is_up, group.is_lost = False, True
        estate.rules.counts["losses"] += 1
        await self._let_stop(group)
        await self._end_moves_from(group)
        await self._finish(group, slots)

    # --- Moves from the cluster

    async def _end_moves_from(self, group: Group, slots: range | None = None) -> None:
        """End the moves from a cluster as their targets say, before it serves the slots."""
        for moving in self._moves_of(group, slots):
            target, ticket = moving.target, moving.ticket
            if moving.source is not group or ticket is None or target.is_lost:
                continue
            receipt = await self._decided(moving)
            if receipt is None or group.is_lost:
                continue
            try:
                known = group.moves.state_of(moving.move_id)
                is_active = target.moves.state_of(moving.move_id) is MoveState.ACTIVE
                if known is None and is_active:
                    await self._freeze_again(group, moving)
                if known in (None, MoveState.LEAVING):
                    await self._end(moving, receipt)
            except MoveRefusedError:
                continue  # The slots are not served here anyway.

    async def _freeze_again(self, group: Group, moving: Moving) -> None:
        """
        Freeze users whom a restored source has forgotten to have moved.

        A slot that has come back after the backup stays as it is: it is not served.
        Raises `MoveRefusedError`.
        """
        ticket = moving.ticket
        assert ticket is not None
        await self._estate.step(
            group, lambda request: group.moves.freeze(ticket, request), patient=True
        )
        frozen = group.moves.decided_by(moving.move_id, moving.slots)
        self._estate.rules.counts["frozen in part"] += len(frozen) < len(moving.slots)

    async def _end(self, moving: Moving, receipt: bytes) -> None:
        """End a move in its source. Raises `MoveRefusedError`."""
        source, ticket = moving.source, moving.ticket
        assert ticket is not None
        await self._estate.step(
            source,
            lambda request: source.moves.end(ticket, receipt, request),
            patient=True,
        )
        self._estate.rules.counts["ended by receipt"] += 1

    async def _decided(self, moving: Moving) -> bytes | None:
        """Let the target decide how a move ends, if it has not; return the receipt."""
        target, move_id = moving.target, moving.move_id
        match target.moves.state_of(move_id):
            case MoveState.ARRIVING:
                steps = [target.moves.activate, target.moves.cancel]
                self._estate.rng.shuffle(steps)
            case MoveState.ACTIVE:
                steps = [target.moves.activate]
            case MoveState.CANCELED:
                steps = [target.moves.cancel]
            case _:
                return None
        for step in steps:
            try:
                receipt = await self._estate.step(
                    target,
                    lambda request, step=step: step(move_id, request),
                    patient=True,
                )
            except MoveRefusedError:
                continue
            self._estate.receipts.append(receipt)
            return receipt
        return None

    # --- Moves to the cluster

    async def _bring_home(self, group: Group, slots: range) -> None:
        await self._end_moves_from(group, slots)
        for moving in self._moves_of(group, slots):
            if moving.target is group and moving.ticket is not None:
                await self._settle(moving)

    async def _settle(self, moving: Moving) -> None:
        while True:
            if await self._is_settled(moving):
                return
            await asyncio.sleep(AGAIN_S)

    async def _is_settled(self, moving: Moving) -> bool:
        """Do the next step of a move to the cluster; return whether none is left."""
        group, source, move_id = moving.target, moving.source, moving.move_id
        own = None if group.is_lost else group.moves.state_of(move_id)
        there = None if source.is_lost else source.moves.state_of(move_id)
        if own in (MoveState.ARRIVING, MoveState.ACTIVE, MoveState.CANCELED):
            receipt = await self._decided(moving)
            is_canceled = group.moves.state_of(move_id) is MoveState.CANCELED
            awaits_end = there is MoveState.LEAVING or (there is None and is_canceled)
            if receipt and awaits_end and not source.is_lost:
                await self._end(moving, receipt)
            return True
        moved_on = self._moved_on(moving) if there in LEFT else {*moving.slots}
        copies = _slots_left(moving)
        lost = _slots_decided(group, moving) if own is MoveState.LOST else []
        if set(lost) - moved_on - {*copies}:
            await self._reclaim(group, moving, lost, moved_on | {*copies})
            return False
        if lost:
            await self._delete(group, moving)
            return False
        return await self._reclaim(source, moving, copies, moved_on)

    def _moved_on(self, moving: Moving) -> set[int]:
        """Return the slots of a move that its target gave to a third cluster."""
        left = moving.source.moves.find(moving.move_id)
        found: set[int] = set()
        for later in self._moves_of(moving.target, moving.slots):
            if later.source is not moving.target or later.target.is_lost:
                continue
            for slot in {*later.slots} & {*moving.slots}:
                arrived = later.target.moves.find_of(later.move_id, slot)
                if (
                    left is not None
                    and arrived is not None
                    and arrived.state is MoveState.ACTIVE
                    and (arrived.ended_at_ms or 0) > left.began_at_ms
                ):
                    found.add(slot)
        return found

    async def _reclaim(
        self, group: Group, moving: Moving, wanted: list[int], others: set[int]
    ) -> bool:
        """
        Let a cluster serve slots of a move again; return whether it does.

        *others*: the slots that it must not serve. Then it takes back the parts between
        them, and else the whole move.
        """
        kept = [slot for slot in moving.slots if slot not in others]
        parts: list[range | None] = [None]
        if len(kept) < len(moving.slots):
            parts = [*ranges_of(kept)]
        for part in parts:
            is_wanted = not {*wanted}.isdisjoint(part or moving.slots)
            if is_wanted and not await self._reclaim_part(group, moving, part):
                return False
        return True

    async def _reclaim_part(
        self, group: Group, moving: Moving, part: range | None
    ) -> bool:
        estate, request = self._estate, self._estate.name("request")
        slots = group.moves.decided_by(moving.move_id, part or moving.slots)
        try:
            await estate.insist(
                group, lambda: group.moves.reclaim(moving.move_id, request, part)
            )
        except WaitingError as waiting:
            approval = waiting.approval_id
        except MoveRefusedError:
            return False  # Ten minutes have not passed.
        else:
            return True  # The receipt of a canceled move came before.
        request = estate.name("approval")
        try:
            await estate.insist(group, lambda: group.approve(approval, request))
        except MoveRefusedError:
            return False  # The move has changed meanwhile.
        for slot in slots:
            estate.rules.on_void(group, estate.codes_of(slot))
        estate.rules.on_reclaimed(group, slots)
        estate.rules.counts["reclaims"] += 1
        estate.rules.counts["several reclaimed"] += len(slots) > 1
        estate.rules.counts["parts reclaimed"] += part is not None
        estate.publish(slots, group, over=list(estate.groups.values()))
        self._voided |= {*slots}
        return True

    # --- Copies that are left

    async def _delete_copies(self, slot: int) -> None:
        estate = self._estate
        for group in estate.living:
            while group.has_users(slot):
                newest = group.moves.newest_of(slot)
                if newest is None or newest.state not in ELSEWHERE:
                    break
                moving = next(
                    each
                    for each in estate.begun
                    if each.move_id == newest.ticket.move_id
                )
                if not moving.stopped.is_set():
                    break  # Its operator does it.
                if newest.state is MoveState.GONE and not moving.target.is_lost:
                    await back_up_before_delete(estate, moving)
                if not await self._delete(group, moving):
                    await asyncio.sleep(AGAIN_S)

    async def _delete(self, group: Group, moving: Moving) -> bool:
        try:
            await self._estate.step(
                group,
                lambda request: group.moves.delete(moving.move_id, request),
                patient=True,
            )
        except MoveRefusedError:
            return False  # A day has not passed.
        self._estate.rules.counts["copies deleted"] += 1
        return True


def _slots_decided(group: Group, moving: Moving) -> list[int]:
    """Return the slots whose users a move, as the last one, has brought or taken."""
    slots = group.moves.decided_by(moving.move_id, moving.slots)
    return [slot for slot in slots if group.has_users(slot)]


def _slots_left(moving: Moving) -> list[int]:
    """Return the slots of a move of which its source still has the users."""
    source = moving.source
    if source.is_lost or source.moves.state_of(moving.move_id) not in LEFT:
        return []
    return _slots_decided(source, moving)
