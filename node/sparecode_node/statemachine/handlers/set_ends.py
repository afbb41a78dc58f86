# SPDX-License-Identifier: Apache-2.0
"""
Sets that end by time: their users hear of it (N6).

Time alone is no entry of the log. So a set that ends by time has a row in `set_ends`,
and the primary proposes `NoteEndedSets` when one is due. Apply finds out itself what is
due, so it does not matter who proposes, nor how often.
"""

import sqlite3

from sparecode_node.domain.authentication import Event
from sparecode_node.domain.emergency_access import EmergencyCodeSet
from sparecode_node.domain.moves import ELSEWHERE, OPEN, MoveState
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.policy import DAY_MS, MINUTE_MS
from sparecode_node.domain.slots import slot_of
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.feature_level import SET_ENDS
from sparecode_node.statemachine.tables import emergency_access as code_tables
from sparecode_node.statemachine.tables import moves as move_tables
from sparecode_node.statemachine.tables import set_ends as tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables

NOTED_MAX = 20
"""Sets that one command judges: applying it blocks the engine's thread."""
TOLD_MS = DAY_MS
"""An end that is older is no news. So a cluster that was down sends no flood of mails."""
LATER_MS = 10 * MINUTE_MS
"""When a set is looked at again whose user is on the way between two clusters."""

NOTHING_DUE = Rejected(Reason.STALE_PARAMETERS, "no set has ended")


def follow(applying: Applying, codes: EmergencyCodeSet, token: Token) -> None:
    """Save when the end of a set will be told: of a new one, or after a change."""
    if applying.feature_level < SET_ENDS:
        return
    end_ms = codes.effective_end_ms(token.expires_at_ms)
    if end_ms is None or not codes.unused:
        tables.delete(applying.db, codes.set_id)
    else:
        # An administrator may set an end that has passed: it counts from now on.
        tables.save(applying.db, codes.set_id, max(end_ms, applying.now_ms))


def follow_untold(applying: Applying, codes: EmergencyCodeSet, token: Token) -> None:
    """Save the end of a set that arrives, even if it has passed: none has told it."""
    end_ms = codes.effective_end_ms(token.expires_at_ms)
    if end_ms is not None:
        tables.save(applying.db, codes.set_id, end_ms)


def follow_token(applying: Applying, token: Token, former: Token) -> None:
    """
    Save it for the sets of a token whose end was changed.

    *former*: the token before that. A set that had ended, and still has, stays as it
    is: its end has been told, or will be.
    """
    if applying.feature_level < SET_ENDS or token == former:
        return
    now_ms = applying.now_ms
    for codes in code_tables.find_sets(applying.db, token.serial):
        if not (
            codes.expired(now_ms, former.expires_at_ms)
            and codes.expired(now_ms, token.expires_at_ms)
        ):
            follow(applying, codes, token)


def note_ended_sets(applying: Applying) -> Rejected | None:
    """
    Apply `NoteEndedSets`: an event for each set that has ended with codes unused.

    Sets that are used up, void or replaced are no news: other events have told that.
    A command that only puts ends off, or finds no news, leaves no event: during a move it
    comes every ten minutes for each set that has ended.
    """
    db = applying.db
    due = tables.due(db, applying.now_ms, most=NOTED_MAX)
    if not due:
        return NOTHING_DUE
    late = 0
    for set_id, end_ms in due:
        codes = code_tables.find_set(db, set_id)
        if codes is None:
            raise AssertionError("the end of a set goes with the set")
        unused, owner = codes.unused, _owner(db, codes)
        move = _move_of(db, owner) if owner else None
        if move in OPEN:
            # The move decides which cluster tells it.
            tables.put_off(db, set_id, applying.now_ms + LATER_MS)
            continue
        tables.delete(db, set_id)
        if not unused or owner is None or move in ELSEWHERE:
            continue
        if applying.now_ms - end_ms > TOLD_MS:
            late += 1
            continue
        what = "fixed tokencode" if codes.fixed else f"{plural(unused, 'code')} unused"
        applying.events.append(
            Event(
                action="SET_ENDED", serial=codes.serial, cause=f"set {set_id}: {what}"
            )
        )
    applying.detail = f"{plural(len(applying.events), 'set')} ended"
    applying.unrecorded = not applying.events and not late
    if late:
        applying.detail += f", {late} more than a day ago"
    return None


def _owner(db: sqlite3.Connection, codes: EmergencyCodeSet) -> User | None:
    token = token_tables.find_token(db, codes.serial)
    if token is None or token.user_id is None:
        return None
    return user_tables.find_user(db, token.user_id)


def _move_of(db: sqlite3.Connection, user: User) -> MoveState | None:
    """Return the state of the move that decides which cluster serves a user."""
    if not move_tables.any_move(db):
        return None
    move = move_tables.newest_of(db, slot_of(user.name_key))
    return move.state if move else None
