# SPDX-License-Identifier: Apache-2.0
"""
Slots that administrators take back, because no receipt can tell how a move ended.

The other cluster may have accepted codes of the users. So all that can be used a second
time ends before this one serves them, as after a restore (E1).
"""

from dataclasses import replace

from sparecode_node.domain.ids import UserId
from sparecode_node.domain.moves import (
    ARRIVALS,
    ELSEWHERE,
    SETTLED,
    Move,
    MoveState,
    part_id,
)
from sparecode_node.domain.outcomes import Rejected, plural
from sparecode_node.domain.slots import in_words
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.moves import ReclaimMove
from sparecode_node.statemachine.handlers.emergency_access import void_live
from sparecode_node.statemachine.handlers.epochs import end_tokencodes_of
from sparecode_node.statemachine.handlers.moves import (
    in_short,
    record_end,
    unknown_move,
    wrong_slots,
    wrong_step,
)
from sparecode_node.statemachine.handlers.token_changes import raise_version
from sparecode_node.statemachine.tables import meta
from sparecode_node.statemachine.tables import moves as move_tables
from sparecode_node.statemachine.tables import tokens as token_tables

RECLAIMED_MAX = 20
"""Users of one command: more would block the engine's thread."""


def reclaim_move(applying: Applying, command: ReclaimMove) -> Rejected | None:
    """
    Apply `ReclaimMove`: serve the slots of a move again; the caller repeats it.

    Only people can know that the other cluster never serves them. The move is over in
    any case: its export is never imported, and its ticket freezes nothing again. A whole
    import whose end a restore lost becomes active, so the source gets its receipt.

    Slots that are taken back alone become a move of their own; the rest stays as it is.
    """
    move = _wanted(applying, command)
    if isinstance(move, Rejected):
        return move
    if move.state in SETTLED:
        applying.detail = "its slots are served here"
        return None
    if refused := _problem(applying, move):
        return refused
    about = in_short(applying, move)
    if command.part and move.ticket.move_id == command.move_id:
        move = _split(applying, move, command.part)
    if move.state in ARRIVALS and not _is_whole(move):
        record_end(applying, move, MoveState.CLEARED)
        applying.detail = f"{about}; served here without users: {command.reason}"
        return None
    if move.state is MoveState.LOST:
        move = replace(move, pieces=0)  # From here on the slots that are done.
    first = move.ticket.first_slot
    users = move_tables.users_of(
        applying.db, move, RECLAIMED_MAX + 1, (first + move.pieces, move.done_name)
    )
    left = len(users) > RECLAIMED_MAX
    users = users[:RECLAIMED_MAX]
    voided = sum(_end_codes(applying, user_id) for user_id, *_ in users)
    if left:
        _, slot, name = users[-1]
        move_tables.save(
            applying.db,
            replace(
                move, state=MoveState.RECLAIMING, pieces=slot - first, done_name=name
            ),
        )
        progress = f"{plural(len(users), 'user')}, and more are left"
    elif move.source_key:
        record_end(applying, move, MoveState.ACTIVE)
        progress = "its import is served here"
    else:
        record_end(applying, move, MoveState.RETURNED)
        progress = "served here again, without a receipt"
    applying.detail = (
        f"{about}; {progress}, codes of {plural(voided, 'token')} voided: "
        f"{command.reason}"
    )
    return None


def _wanted(applying: Applying, command: ReclaimMove) -> Move | Rejected:
    """Return the move to take back, or the part of it: see `move_tables.find_part`."""
    move, part = move_tables.find(applying.db, command.move_id), command.part
    if move is None:
        return unknown_move(command.move_id)
    if part is None:
        return move
    first, last = move.ticket.first_slot, move.ticket.last_slot
    if not first <= part.start < part.stop <= last + 1:
        return wrong_slots(f"the move has {in_words(first, last)}")
    found = move_tables.find_part(applying.db, command.move_id, part) or move
    has_begun = found.ticket.move_id != command.move_id
    if has_begun or found.state in SETTLED:
        return found
    if found.state is MoveState.RECLAIMING:
        return wrong_step("all slots of the move are being taken back: go on with that")
    if not move_tables.slots_of(applying.db, found):
        return wrong_slots(
            f"other moves decide about {in_words(part[0], part[-1])} since"
        )
    return found


def _split(applying: Applying, move: Move, part: range) -> Move:
    """Make a move of its own of the part that is taken back alone."""
    slots = move_tables.slots_of(applying.db, move)
    ticket = replace(move.ticket, move_id=part_id(move.ticket.move_id, part))
    # The receipt of the whole move stays with that one.
    part_of_it = replace(move, ticket=ticket, canceled=False)
    move_tables.begin(applying.db, part_of_it, slots)
    return part_of_it


def _problem(applying: Applying, move: Move) -> Rejected | None:
    """Refuse a move that is under way, or whose slots left a moment ago."""
    if move.state is MoveState.RECLAIMING:
        return None
    left_ms = move.ended_at_ms
    # Reclaiming ends tokencodes by this cluster's window: the other's may be larger.
    if move.state is MoveState.LEAVING:
        left_ms = move.began_at_ms
    elif move.state not in ELSEWHERE:
        left_ms = None
    if left_ms is None:
        return wrong_step(f"its slots are not to be taken back: it is {move.state}")
    if applying.now_ms - left_ms < applying.policy.request_retention_ms:
        return wrong_slots(
            "the slots left this cluster a moment ago: attempts that it has turned away "
            "may still be repeated; try again in ten minutes"
        )
    restored_at_ms = meta.read(applying.db, "epoch_at_ms", 0)
    if move.began_at_ms <= restored_at_ms:
        later = move_tables.taken_on(applying.db, move, restored_at_ms)
        if later is not None:
            return wrong_slots(
                "its users have moved on since the backup, by the move "
                f"{later.ticket.move_id}, which was frozen after the restore"
            )
    if _is_whole(move):
        return None
    if move.state in ARRIVALS and move_tables.users_of(applying.db, move, 1):
        return wrong_step(
            "users of the move are here: delete them first, with "
            "sparecode cluster export-users delete"
        )
    return None


def _is_whole(move: Move) -> bool:
    """
    Return whether a restore lost how the move ended, but has all of its users.

    This may be the only copy of them: the source deletes its own after *activate*.
    """
    return move.state is MoveState.LOST and move.complete


def _end_codes(applying: Applying, user_id: UserId) -> int:
    """End all that the other cluster may have accepted; return the tokens with codes."""
    voided = 0
    for token in token_tables.find_tokens_of(applying.db, user_id):
        voided += void_live(applying, token, "users reclaimed") > 0
        raise_version(applying, token)
    end_tokencodes_of(applying, user_id)
    return voided
