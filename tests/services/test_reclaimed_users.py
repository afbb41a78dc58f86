# SPDX-License-Identifier: Apache-2.0
"""Moves whose end no receipt tells, and restores meanwhile: no code works twice."""

from collections.abc import Awaitable

import pytest

from sparecode_client import slot_of
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.moves import MoveState
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.cluster import move_pieces, user_moves
from sparecode_node.services.errors import (
    ApprovalNeededError,
    InvalidFieldError,
    Refused,
)
from sparecode_node.statemachine.commands.epochs import BeginEpoch
from sparecode_node.statemachine.handlers import moves, reclaimed_users
from tests.services.one_node import PIN, OneNode
from tests.services.test_administrators import settled
from tests.services.test_epoch_review import beginning
from tests.services.test_user_moves import (
    BOB,
    Move,
    gone,
    move,
    refusal,
    refused,
)

pytestmark = pytest.mark.asyncio

__all__ = ["move"]

MINUTES_S = 60


async def pass_minutes(node: OneNode, minutes: float) -> None:
    node.clock.pass_s(minutes * MINUTES_S)
    await node.login()


async def restored(node: OneNode, cluster_id: str = "restored") -> None:
    """Begin the epoch of a restore, and open the cluster."""
    begun = BeginEpoch(
        cluster_id=cluster_id, cause="restore", state_index=1, state_at_ms=1
    )
    node.replicator.commit([Proposal(call=beginning(begun))])
    await node.login()
    context = node.admin("ClusterService/GetReview")
    seen = (await node.epoch_review.review(context)).value
    await node.epoch_review.open(
        node.admin("ClusterService/OpenCluster"), review=seen.mark
    )


async def test_codes_of_a_lost_target_are_void(move: Move) -> None:
    """(E1) It may have been active, and have accepted some of them."""
    issued = await move.east.issue()
    await move.through_import()
    await move.activate()
    spent, left = (PIN + each.code for each in issued.codes[:2])
    assert await move.west.accepts(spent)
    tokencode = PIN + move.west.tokencode()
    assert await move.west.accepts(tokencode)

    assert await refused(move.reclaim(move.east)) is Reason.MOVE_SLOTS
    await pass_minutes(move.east, 11)
    assert await move.reclaim(move.east) is MoveState.RETURNED
    for passcode in (spent, left, tokencode):
        assert not await move.east.accepts(passcode)
    await pass_minutes(move.east, 1)
    assert await move.east.accepts_two()


async def test_slots_that_are_gone_come_back_if_the_target_is_lost(move: Move) -> None:
    issued = await move.east.issue()
    await move.through_import()
    await move.end((await move.activate()).receipt)
    assert await refused(move.reclaim(move.east)) is Reason.MOVE_SLOTS
    await pass_minutes(move.east, 11)
    assert await move.reclaim(move.east) is MoveState.RETURNED
    assert not await move.east.accepts(PIN + issued.codes[0].code)
    await pass_minutes(move.east, 1)
    assert await move.east.accepts_two()
    # Neither the late deletion nor another freeze by this ticket hits them.
    await pass_minutes(move.east, DAY_MS / 1000 / MINUTES_S)
    assert await refused(move.delete(move.east)) is Reason.MOVE_STEP
    assert await refused(move.freeze()) is Reason.MOVE_STEP
    assert await refused(move.export()) is Reason.MOVE_STEP


async def test_many_users_are_taken_back_in_steps(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody of them is served before the last one: the engine is never busy long."""
    monkeypatch.setattr(reclaimed_users, "RECLAIMED_MAX", 1)
    await move.east.add_user("bob", serial=BOB)
    codes = [await move.east.issue(), await move.east.issue(BOB)]
    await move.prepare()
    await move.freeze()
    await pass_minutes(move.east, 11)
    assert await move.reclaim(move.east) is MoveState.RECLAIMING
    for name in ("alice", "bob"):
        assert await refusal(move.east, "1", username=name) is Reason.SLOT_MOVING
    assert await refused(move.export()) is Reason.MOVE_STEP
    assert await move.reclaim(move.east) is MoveState.RETURNED
    for name, issued in zip(("alice", "bob"), codes, strict=True):
        for each in issued.codes:
            assert not await move.east.accepts(PIN + each.code, username=name)


NEAR = "arno-v"
PART = slot_of(NEAR)


async def three_users(move: Move) -> None:
    """Freeze three users, eleven minutes ago."""
    await move.east.add_user(NEAR, serial="3001")
    await move.east.add_user("bill", serial="3002")
    await move.prepare()
    await move.freeze()
    await pass_minutes(move.east, 11)


async def test_a_part_of_a_move_is_taken_back_in_steps(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other users stay where the move has brought them."""
    monkeypatch.setattr(reclaimed_users, "RECLAIMED_MAX", 1)
    await three_users(move)
    slots = sorted(slot_of(each) for each in ("alice", NEAR, "bill"))
    part = slots[0], slots[1]
    [other] = (each for each in ("alice", NEAR, "bill") if slot_of(each) == slots[2])
    assert await move.reclaim(move.east, *part) is MoveState.RECLAIMING
    assert await refused(move.reclaim(move.east, slots[0], slots[0])) is (
        Reason.MOVE_SLOTS
    )
    assert await move.reclaim(move.east, *part) is MoveState.RETURNED
    assert await move.reclaim(move.east, *part) is MoveState.RETURNED
    for name in ("alice", NEAR, "bill"):
        moving = name == other
        served = await answers(move.east, name)
        assert served is not moving, name
    listed = await move.east.user_moves.list(move.east.admin("MoveService/ListMoves"))
    assert [(each.ticket.move_id, each.state) for each in listed] == [
        (f"{move.id}/{part[0]}-{part[1]}", MoveState.RETURNED),
        (move.id, MoveState.LEAVING),
    ]
    assert (listed[0].ticket.first_slot, listed[0].ticket.last_slot) == part


async def answers(node: OneNode, username: str) -> bool:
    """Return whether a cluster decides about a user."""
    try:
        await node.authenticate("1", username=username)
    except Refused as moving:
        return moving.rejected.reason is not Reason.SLOT_MOVING
    return True


async def test_no_part_is_taken_back_of_a_move_that_is_taken_back(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaimed_users, "RECLAIMED_MAX", 1)
    await three_users(move)
    assert await move.reclaim(move.east) is MoveState.RECLAIMING
    assert await refused(move.reclaim(move.east, PART, PART)) is Reason.MOVE_STEP


async def test_an_export_ends_when_a_part_is_taken_back(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(A3) Its users are served here again: the target must not get them."""
    monkeypatch.setattr(user_moves, "USERS_READ", 1)
    monkeypatch.setattr(move_pieces, "CONTENT_BYTES", 100)
    await three_users(move)
    pieces = await move.east.user_moves.export(
        move.east.admin("MoveService/ExportMovedUsers"), move_id=move.id
    )
    assert not (await anext(pieces)).last
    await move.reclaim(move.east, PART, PART)
    with pytest.raises(Refused) as ended:
        _ = [piece async for piece in pieces]
    assert ended.value.rejected.reason is Reason.MOVE_STEP


@pytest.mark.parametrize("ends", [(7, None), (None, 7), (8, 7), (-1, 7), (7, 4096)])
async def test_the_slots_of_a_part_are_a_range(
    move: Move, ends: tuple[int | None, int | None]
) -> None:
    await move.prepare()
    with pytest.raises(InvalidFieldError, match="last_slot"):
        await move.reclaim(move.east, *ends)


async def test_who_approves_the_reclaim_of_a_part_reads_its_slots(move: Move) -> None:
    """(P3) A repeated approved step needs no other approval, and another part does."""
    await three_users(move)
    dora = await settled(move.east, Role.SUPER_ADMIN)
    approval_id = await asked(move.reclaim(move.east, PART, PART))
    (waiting,) = move.east.primary_db.execute(
        "SELECT description FROM approvals"
    ).fetchone()
    assert waiting.startswith(
        f"slot {PART}, leaving, to cluster {move.ticket.target}; "
    )
    await approve(move.east, dora, approval_id)
    assert await move.reclaim(move.east, PART, PART) is MoveState.RETURNED
    await asked(move.reclaim(move.east, slot_of("alice"), slot_of("alice")))


async def test_a_target_that_cleared_a_move_gives_its_receipt_still(move: Move) -> None:
    """Without it the source could only reclaim the slots, and void all codes."""
    issued = await move.east.issue()
    await move.through_import()
    await move.cancel()
    await pass_minutes(move.west, 11)
    await move.delete(move.west)
    assert await move.reclaim(move.west) is MoveState.CLEARED
    assert await refused(move.activate()) is Reason.MOVE_STEP
    await pass_minutes(move.east, 11)
    assert await move.end((await move.cancel()).receipt) is MoveState.RETURNED
    assert await move.east.accepts(PIN + issued.codes[0].code)


async def test_a_canceled_slot_takes_users_again(move: Move) -> None:
    await move.through_import()
    await move.cancel()
    await pass_minutes(move.west, 11)
    assert await refused(move.reclaim(move.west)) is Reason.MOVE_STEP
    await move.delete(move.west)
    assert await move.reclaim(move.west) is MoveState.CLEARED
    await move.west.add_user("bob", serial=BOB)
    assert await refused(move.load()) is Reason.MOVE_STEP
    assert await refused(move.activate()) is Reason.MOVE_STEP


async def test_a_restored_target_goes_on_with_no_move(move: Move) -> None:
    """(E1) After the backup it was active, perhaps: a code of the export is spent."""
    issued = await move.east.issue()
    await move.through_import()
    await restored(move.west)
    assert await refused(move.activate()) is Reason.MOVE_STEP
    assert await refused(move.cancel()) is Reason.MOVE_STEP
    assert await refused(move.load()) is Reason.MOVE_STEP
    passcode = PIN + issued.codes[0].code
    assert await refusal(move.west, passcode) is Reason.SLOT_MOVED
    await move.delete(move.west)
    await pass_minutes(move.west, 11)
    assert await move.reclaim(move.west) is MoveState.CLEARED

    await pass_minutes(move.east, 11)
    await move.reclaim(move.east)
    assert not await move.east.accepts(passcode)
    again = Move(move.east, move.west)
    await pass_minutes(move.east, 1)
    await again.through_import()
    await again.activate()
    assert not await move.west.accepts(passcode)


async def test_a_restored_source_takes_its_old_ticket(move: Move) -> None:
    """Its backup knows nothing of the move; the users are served by the target."""
    await move.prepare()
    await restored(move.east)
    await move.freeze()
    await move.export()
    await move.load()
    ended = await move.activate()
    assert await move.end(ended.receipt) is MoveState.GONE
    assert await refusal(move.east, PIN + move.east.tokencode()) is Reason.SLOT_MOVED


async def asked(step: Awaitable[object]) -> int:
    """Return the number of the approval that a step waits for."""
    with pytest.raises(ApprovalNeededError) as waiting:
        await step
    return waiting.value.approval_id


async def approve(node: OneNode, approver: str, approval_id: int) -> None:
    author, node.bearer = node.bearer, approver
    try:
        await node.approvals.approve(
            node.admin("AdministratorService/Approve"), approval_id=approval_id
        )
    finally:
        node.bearer = author


async def test_no_approval_outlives_the_state_of_its_move(move: Move) -> None:
    """(P3) The target was lost when one asked, and serves the users when one approves."""
    await move.through_import()
    await pass_minutes(move.east, 11)
    dora = await settled(move.east, Role.SUPER_ADMIN)
    approval_id = await asked(move.reclaim(move.east))
    await move.end((await move.activate()).receipt)
    assert await refused(approve(move.east, dora, approval_id)) is Reason.APPROVAL_STALE
    assert await refusal(move.east, PIN + move.east.tokencode()) is Reason.SLOT_MOVED


async def test_who_approves_a_reclaim_reads_what_it_is(move: Move) -> None:
    """(P3) The slots, the state of the move, and the cluster that may serve them."""
    await move.through_import()
    await pass_minutes(move.east, 11)
    await settled(move.east, Role.SUPER_ADMIN)
    await asked(move.reclaim(move.east))
    (waiting,) = move.east.primary_db.execute(
        "SELECT description FROM approvals"
    ).fetchone()
    target = move.ticket.target
    assert waiting.startswith(f"slots 0 to 4095, leaving, to cluster {target}; ")


async def test_an_import_whose_end_is_lost_is_deleted_by_two(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(P3) The source may have deleted the users: this is perhaps the only copy."""
    monkeypatch.setattr(moves, "DELETED_MAX", 1)
    await move.east.add_user("bob", serial=BOB)
    await move.through_import()
    await restored(move.west)
    dora = await settled(move.west, Role.SUPER_ADMIN)
    approval_id = await asked(move.delete(move.west))
    assert gone(move.west) == []
    await approve(move.west, dora, approval_id)
    # The rest of the copy needs no other approval.
    assert not await move.delete(move.west)
    assert len(gone(move.west)) == 4  # Two users, each with a token.


async def test_a_restored_target_keeps_the_only_copy(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source got the receipt before the restore, and has deleted its users."""
    monkeypatch.setattr(reclaimed_users, "RECLAIMED_MAX", 1)
    await move.east.add_user("bob", serial=BOB)
    issued = await move.east.issue()
    await move.through_import()
    tokencode = PIN + move.west.tokencode()
    await restored(move.west)
    assert await refused(move.reclaim(move.west)) is Reason.MOVE_SLOTS
    await pass_minutes(move.west, 11)
    assert await move.reclaim(move.west) is MoveState.RECLAIMING
    assert await refused(move.activate()) is Reason.MOVE_STEP
    assert await refused(move.delete(move.west)) is Reason.MOVE_STEP
    assert await move.reclaim(move.west) is MoveState.ACTIVE
    for passcode in (tokencode, PIN + issued.codes[0].code):
        assert not await move.west.accepts(passcode)
    await pass_minutes(move.west, 1)
    assert await move.west.accepts_two()
    # If the source never got the receipt, it gets one now.
    await pass_minutes(move.east, 11)
    assert await move.end((await move.activate()).receipt) is MoveState.GONE


async def test_keeping_the_only_copy_needs_an_approval(move: Move) -> None:
    """(P3) The source may serve the users, too."""
    await move.through_import()
    await restored(move.west)
    await pass_minutes(move.west, 11)
    await settled(move.west, Role.SUPER_ADMIN)
    await asked(move.reclaim(move.west))
    (waiting,) = move.west.primary_db.execute(
        "SELECT description FROM approvals"
    ).fetchone()
    source = move.ticket.source
    assert waiting.startswith(f"slots 0 to 4095, lost, from cluster {source}; ")
