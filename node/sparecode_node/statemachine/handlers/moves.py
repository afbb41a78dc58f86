# SPDX-License-Identifier: Apache-2.0
"""
Handlers of moves: users go from one cluster to another, and no code works in both.

Each cluster keeps its own part. The target decides how a move ends; the source believes
nothing but the proof of that end (docs/clusters.md). Every step can be repeated.
"""

from dataclasses import replace

from sparecode_node.domain.authentication import Event
from sparecode_node.domain.ids import KeyId, TokenSerial
from sparecode_node.domain.moves import (
    ARRIVALS,
    DELETED_AFTER_MS,
    ELSEWHERE,
    NO_PIECES,
    OPEN,
    OTHER_EXPORT,
    Move,
    MoveState,
    MoveTicket,
    key_words,
    lock_of,
    ticket_words,
)
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.slots import SLOTS, in_words
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.moves import (
    ActivateMove,
    CancelMove,
    DeleteMovedUsers,
    EndMove,
    ExportMovedUsers,
    FreezeUsers,
    ImportMovedUsers,
    PrepareMove,
    ticket_of,
)
from sparecode_node.statemachine.handlers import keys, moved_users
from sparecode_node.statemachine.tables import meta
from sparecode_node.statemachine.tables import moves as move_tables

DELETED_MAX = 20
"""Users that one command deletes: deleting more would block the engine's thread."""

NEVER_MAX = 1000
"""Moves that never began here and are recorded nevertheless."""


def prepare_move(applying: Applying, command: PrepareMove) -> Rejected | None:
    """Apply `PrepareMove`."""
    db, first, last = applying.db, command.first_slot, command.last_slot
    own = str(meta.read(db, "cluster_id", ""))
    if move_tables.find(db, command.move_id) is not None:
        return wrong_step(f"the move {command.move_id} has begun before")
    if not keys.takes(applying, command.key_id):
        return Rejected(Reason.STALE_PARAMETERS)
    if not 0 <= first <= last < SLOTS:
        return wrong_slots(f"slots are numbers from 0 to {SLOTS - 1}")
    if command.source == own:
        return wrong_slots(
            "users come from another cluster, and this key is of this one"
        )
    if move_tables.has_users(db, first, last):
        return wrong_slots(
            f"{in_words(first, last)} already have users in this cluster"
        )
    for move in move_tables.newest_of_each(db, first, last):
        words = in_words(move.ticket.first_slot, move.ticket.last_slot)
        if move.state in OPEN:
            return wrong_slots(f"{words} are in a move already: {move.ticket.move_id}")
        if (
            move.state in ELSEWHERE
            and move.ended_at_ms is not None
            and applying.now_ms - move.ended_at_ms
            < applying.policy.request_retention_ms
        ):
            return wrong_slots(
                f"{words} left this cluster a moment ago: attempts that it has turned "
                "away may still be repeated; try again in ten minutes"
            )
    ticket = MoveTicket(
        move_id=command.move_id,
        first_slot=first,
        last_slot=last,
        source=command.source,
        target=own,
        source_key_id=command.source_key_id,
        public_key=command.public_key,
        activated_lock=command.activated_lock,
        canceled_lock=command.canceled_lock,
        same_administrators=command.same_administrators,
    )
    move_tables.begin(
        db,
        Move(
            ticket=ticket,
            state=MoveState.ARRIVING,
            key_id=command.key_id,
            source_key=command.source_key,
            began_at_ms=applying.now_ms,
        ),
    )
    applying.detail = (
        f"{in_words(first, last)} from cluster {command.source}, "
        f"whose key is {key_words(command.source_key)}; "
        f"the ticket is {ticket_words(ticket)}"
    )
    if command.same_administrators:
        count = move_tables.record_administrators(db, command.move_id)
        applying.detail += (
            "; vouched for: an administrator of that cluster is the person who has the "
            "same name here, and has no other name here "
            f"({plural(count, 'administrator')} here)"
        )
    return None


def freeze_users(applying: Applying, command: FreezeUsers) -> Rejected | None:
    """Apply `FreezeUsers`."""
    db, ticket = applying.db, ticket_of(command)
    move = move_tables.find(db, command.move_id)
    if move is not None:
        if move.ticket != ticket:
            return wrong_step("this cluster has another ticket of this move")
        if move.state is not MoveState.LEAVING:
            return wrong_step(f"the move is over: it is {move.state}")
        return None
    if refused := _not_from_here(applying, ticket):
        return refused
    first, last = ticket.first_slot, ticket.last_slot
    if not 0 <= first <= last < SLOTS:
        return wrong_slots(f"slots are numbers from 0 to {SLOTS - 1}")
    if not move_tables.has_users(db, first, last):
        return wrong_slots(f"{in_words(first, last)} have no users in this cluster")
    if not applying.keys.uses(KeyId(ticket.source_key_id)):
        return wrong_step(
            "the key ring no longer has the key that the target knows: cancel the move "
            "there, and prepare another with the present key"
        )
    slots = _to_freeze(applying, first, last)
    if isinstance(slots, Rejected):
        return slots
    move = Move(
        ticket=ticket,
        state=MoveState.LEAVING,
        key_id=ticket.source_key_id,
        began_at_ms=applying.now_ms,
    )
    move_tables.begin(db, move, slots)
    applying.detail = (
        f"{slots_in_words(applying, move)} to cluster {ticket.target}; "
        f"the ticket is {ticket_words(ticket)}"
    )
    if ticket.same_administrators:
        applying.detail += (
            "; there an administrator of this cluster counts as the person who has the "
            "same name there"
        )
    return None


def _to_freeze(applying: Applying, first: int, last: int) -> list[range] | Rejected:
    """
    Return which slots of a ticket to freeze: all of them, or those served after a restore.

    A restored source has forgotten that a slot came back, and that it left with the
    others. That slot stays as it is: this copy of its users is not the newest. A slot
    whose move is open may be served again by the receipt of that move, so that one ends
    first.
    """
    db = applying.db
    blocking = [
        move
        for move in move_tables.newest_of_each(db, first, last)
        if move.state in OPEN | ELSEWHERE
    ]
    if not blocking:
        return [range(first, last + 1)]
    served = move_tables.served(db, first, last)
    still_open = next((move for move in blocking if move.state in OPEN), None)
    has_users = any(move_tables.has_users(db, each[0], each[-1]) for each in served)
    if has_users and still_open is None and meta.read(db, "not_open", 0):
        return served
    other = still_open or blocking[0]
    return wrong_slots(
        f"{in_words(first, last)} are not all served here: see the move "
        f"{other.ticket.move_id}"
    )


def export_moved_users(
    applying: Applying, command: ExportMovedUsers
) -> Rejected | None:
    """Apply `ExportMovedUsers`: the audit log tells each export."""
    move = _find(applying, command.move_id, arriving=False)
    if isinstance(move, Rejected):
        return move
    if move.state is not MoveState.LEAVING:
        return wrong_step(f"the move is over: it is {move.state}")
    if not move_tables.decides_all(applying.db, move):
        # The target would serve the other slots, too, and have no users there.
        return wrong_slots(
            "the move has frozen only some of its slots: cancel it in the target, and "
            "prepare another"
        )
    applying.detail = f"to cluster {move.ticket.target}"
    return None


def import_moved_users(
    applying: Applying, command: ImportMovedUsers
) -> Rejected | None:
    """Apply `ImportMovedUsers`: one piece after the other, each once."""
    move = _find(applying, command.move_id, arriving=True)
    if isinstance(move, Rejected):
        return move
    if move.state is MoveState.LOST:
        return wrong_step(_UNKNOWN_END)
    if move.state is not MoveState.ARRIVING:
        return wrong_step(f"the move is over: it is {move.state}")
    if not keys.takes(applying, command.key_id):
        return Rejected(Reason.STALE_PARAMETERS)
    if not _is_of_import(move, command):
        return Rejected(Reason.MOVE_EXPORT, OTHER_EXPORT)
    if command.number < move.pieces:
        applying.detail = f"piece {command.number} again"
        return None
    if command.number != move.pieces:
        return Rejected(
            Reason.MOVE_EXPORT,
            f"the next piece is {move.pieces}, and this is {command.number}",
        )
    if not command.rows:
        # The node that sent it was behind, and has not opened the piece.
        return Rejected(Reason.STALE_PARAMETERS)
    imported = moved_users.import_rows(
        applying,
        command.rows,
        key_id=command.key_id,
        ticket=move.ticket,
    )
    if isinstance(imported, Rejected):
        return imported
    users = move.users + imported
    move_tables.save(
        applying.db,
        replace(
            move,
            pieces=move.pieces + 1,
            chain=command.chain,
            complete=command.last,
            users=users,
        ),
    )
    applying.detail = f"piece {command.number}, {plural(users, 'user')} so far"
    return None


def _is_of_import(move: Move, command: ImportMovedUsers) -> bool:
    """
    Return whether a piece may be of the export whose import has begun.

    The node has verified its signature, which covers its chain. The chain of the newest
    piece covers the contents of all pieces up to it; earlier ones are not kept.
    """
    if command.number >= move.pieces:
        return not move.complete
    if command.number == move.pieces - 1:
        return (command.chain, command.last) == (move.chain, move.complete)
    return not command.last


def activate_move(applying: Applying, command: ActivateMove) -> Rejected | None:
    """Apply `ActivateMove`."""
    move = _find(applying, command.move_id, arriving=True)
    if isinstance(move, Rejected):
        return move
    match move.state:
        case MoveState.ACTIVE:
            return None
        case MoveState.CANCELED:
            return wrong_step("the move was canceled")
        case MoveState.LOST:
            return wrong_step(_UNKNOWN_END)
        case MoveState.CLEARED:
            return wrong_step(f"the move is over: it is {move.state}")
    if not move.complete:
        return wrong_step(
            f"the import is not complete: {plural(move.pieces, 'piece')} so far"
        )
    record_end(applying, move, MoveState.ACTIVE)
    applying.detail += f", with {plural(move.users, 'user')}"
    return None


def cancel_move(applying: Applying, command: CancelMove) -> Rejected | None:
    """
    Apply `CancelMove`. What was imported is deleted afterwards.

    The slots count as gone, even if this cluster never had them: another one has them.
    """
    move = _find(applying, command.move_id, arriving=True)
    if isinstance(move, Rejected):
        return move
    match move.state:
        case MoveState.CANCELED:
            return None
        case MoveState.CLEARED if move.canceled:
            return None  # The source needs the receipt still, if it never got it.
        case MoveState.ACTIVE:
            return wrong_step("the slots are served here already")
        case MoveState.LOST:
            return wrong_step(_UNKNOWN_END)
        case MoveState.CLEARED:
            return wrong_step(f"the move is over: it is {move.state}")
    record_end(applying, replace(move, canceled=True), MoveState.CANCELED)
    return None


def end_move(applying: Applying, command: EndMove) -> Rejected | None:
    """
    Apply `EndMove`.

    A canceled move that has not begun here is recorded, too: its order to freeze the
    slots may be on the way still. Nothing but its own ticket tells of it, so this needs
    an approval, and the number of such moves is limited.
    """
    ticket = ticket_of(command)
    move = move_tables.find(applying.db, command.move_id)
    if move is None:
        if refused := _not_from_here(applying, ticket):
            return refused
    elif move.ticket != ticket:
        return wrong_step("this cluster has another ticket of this move")
    ends = {
        ticket.activated_lock: MoveState.GONE,
        ticket.canceled_lock: MoveState.RETURNED,
    }
    outcome = ends.get(lock_of(command.proof))
    if outcome is None:
        return Rejected(
            Reason.MOVE_RECEIPT, "this is no receipt of this move", "receipt"
        )
    if move is None:
        if outcome is not MoveState.RETURNED:
            return wrong_step("the move has not begun here, so nobody has moved by it")
        if move_tables.count_never(applying.db) >= NEVER_MAX:
            return wrong_step(
                f"{NEVER_MAX} moves that never began are recorded already"
            )
        move = Move(
            ticket=ticket,
            state=MoveState.NEVER,
            key_id=ticket.source_key_id,
            began_at_ms=applying.now_ms,
            ended_at_ms=applying.now_ms,
        )
        move_tables.save(applying.db, move)
        applying.detail = (
            f"{in_words(ticket.first_slot, ticket.last_slot)} to cluster "
            f"{ticket.target} had not begun to move; the ticket is {ticket_words(ticket)}"
        )
    elif move.state is MoveState.LEAVING:
        record_end(applying, move, outcome)
    elif move.state not in (outcome, MoveState.NEVER):
        return wrong_step(f"the move has ended otherwise: it is {move.state}")
    return None


def delete_moved_users(
    applying: Applying, command: DeleteMovedUsers
) -> Rejected | None:
    """Apply `DeleteMovedUsers`: some of them; the caller repeats it."""
    move = move_tables.find(applying.db, command.move_id)
    if move is None:
        return unknown_move(command.move_id)
    if move.state not in ELSEWHERE or move.ended_at_ms is None:
        return wrong_step(f"its users are not to be deleted: the move is {move.state}")
    due_ms = move.ended_at_ms + DELETED_AFTER_MS
    if move.state is MoveState.GONE and applying.now_ms < due_ms:
        return wrong_step("the users of slots that are gone are kept for a day")
    about = in_short(applying, move)
    if move.state is MoveState.LOST:
        # This copy is given up: the rest of it goes without another approval.
        move_tables.save(
            applying.db,
            replace(move, pieces=0, chain=NO_PIECES, complete=False, users=0),
        )
    deleted = move_tables.users_of(applying.db, move, DELETED_MAX)
    for user_id, *_ in deleted:
        moved_users.delete_user(
            applying, user_id, with_history=move.state is MoveState.GONE
        )
    left = bool(move_tables.users_of(applying.db, move, 1))
    applying.detail = f"{about}; {plural(len(deleted), 'user')}"
    applying.detail += ", and more are left" * left
    return None


def lose_arriving(applying: Applying) -> None:
    """
    End the moves whose end a restore has lost, without serving their slots (E1).

    After the backup this cluster may have activated such a move, and accepted codes of
    its users; or canceled it, so that the source serves them.
    """
    for move in move_tables.arriving(applying.db):
        record_end(applying, move, MoveState.LOST)


def record_end(applying: Applying, move: Move, state: MoveState) -> None:
    """Record how a move has ended in this cluster."""
    move_tables.save(
        applying.db, replace(move, state=state, ended_at_ms=applying.now_ms)
    )
    move_tables.forget_administrators(applying.db, move.ticket.move_id)
    words = slots_in_words(applying, move)
    applying.detail = f"{words}: {state}"
    applying.events.append(
        Event(
            action="SLOTS_MOVED",
            serial=TokenSerial(move.ticket.move_id),
            cause=f"{words} {_WORDS[state]}",
        )
    )


def slots_in_words(applying: Applying, move: Move) -> str:
    """Return the slots of a move, and how many of them it still decides about."""
    first, last = move.ticket.first_slot, move.ticket.last_slot
    decided = sum(map(len, move_tables.slots_of(applying.db, move)))
    words = in_words(first, last)
    return words if decided == last - first + 1 else f"{decided} of {words}"


def in_short(applying: Applying, move: Move) -> str:
    """Return what an approver decides by: the slots, the state, the other cluster."""
    ticket = move.ticket
    words = slots_in_words(applying, move)
    if move.source_key:
        return f"{words}, {move.state}, from cluster {ticket.source}"
    return f"{words}, {move.state}, to cluster {ticket.target}"


_WORDS = {
    MoveState.ACTIVE: "are served here",
    MoveState.CANCELED: "are not served here: the move was canceled",
    MoveState.GONE: "are served by the other cluster",
    MoveState.RETURNED: "are served here again",
    MoveState.CLEARED: "are served here, without users",
    MoveState.LOST: "are not served here: a restore lost how the move ended",
}

_UNKNOWN_END = (
    "this cluster was restored or recovered since the move began, and does not know how "
    "it ended: see docs/clusters.md"
)


def _find(applying: Applying, move_id: str, *, arriving: bool) -> Move | Rejected:
    """Return a move to this cluster, or one from it."""
    move = move_tables.find(applying.db, move_id)
    if move is None:
        return unknown_move(move_id)
    if (move.state in ARRIVALS) != arriving:
        return wrong_step(
            "this is a step of the cluster that the users go to"
            if arriving
            else "this is a step of the cluster that the users come from"
        )
    return move


def _not_from_here(applying: Applying, ticket: MoveTicket) -> Rejected | None:
    own = str(meta.read(applying.db, "cluster_id", ""))
    if ticket.source in {own, *meta.former_cluster_ids(applying.db)}:
        return None
    return wrong_slots(f"the users of this move come from cluster {ticket.source}")


def unknown_move(move_id: str) -> Rejected:
    """Return the refusal of a move that this cluster does not know."""
    return Rejected(Reason.MOVE_UNKNOWN, f"there is no move {move_id}", "move_id")


def wrong_step(detail: str) -> Rejected:
    """Return the refusal of a step that is not the next one of a move."""
    return Rejected(Reason.MOVE_STEP, detail)


def wrong_slots(detail: str) -> Rejected:
    """Return the refusal of a step because of its slots."""
    return Rejected(Reason.MOVE_SLOTS, detail)
