# SPDX-License-Identifier: Apache-2.0
"""Handlers of codes that go to their user as a sealed message (I13)."""

import sqlite3
from dataclasses import replace

from sparecode_node.domain.authentication import Event
from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.notices import ChannelKind
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.sealed_codes import (
    OPENED_MS,
    WAITING_MS,
    MailOutcome,
    SealedCodes,
)
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.audit import AuditLog
from sparecode_node.statemachine.commands.emergency_access import (
    NoteSealedCodes,
    OpenSealedCodes,
    SaveEmergencyAccess,
)
from sparecode_node.statemachine.feature_level import SEALED_CODES
from sparecode_node.statemachine.tables import emergency_access as code_tables
from sparecode_node.statemachine.tables import notices as notice_tables
from sparecode_node.statemachine.tables import sealed_codes as tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables

NOT_OPENED = "CODES_NOT_OPENED"
VOIDED = "CODES_VOIDED"

CLOSED = Rejected(
    Reason.NO_EMERGENCY_ACCESS,
    "these codes can no longer be opened: they were opened before, an hour has passed, "
    "or they no longer work",
)


def message_problem(
    applying: Applying,
    command: SaveEmergencyAccess,
    token: Token,
    user: User | None,
) -> Rejected | None:
    """
    Refuse codes that cannot go to their user by message.

    A new address gets none for 72 hours. Otherwise an attacker who changes the address
    would be sent the codes at once, and their owner would hear of it too late (N8).
    Without a PIN, anyone who reads the mail could sign in.
    """
    if not command.opener or user is None:
        return None  # Without a user, `issue` refuses it.
    if applying.feature_level < SEALED_CODES or not applying.policy.codes_by_message:
        return _refused("the policy codes_by_message does not allow it")
    if token.pin_rule is PinRule.NONE:
        return _refused(
            f"token {token.serial} has no PIN, so anyone who reads the mail could sign in: "
            f"give {user.username} the codes in person"
        )
    if not user.email:
        return _refused(f"{user.username} has no address on file: add one first")
    if tables.has_left_address(applying.db, user.user_id, applying.now_ms):
        return _refused(
            f"the address of {user.username} was set or changed within the last 72 hours: "
            "give them the codes in person"
        )
    if not any(
        each.kind is ChannelKind.MAIL for each in notice_tables.keeping(applying.db)
    ):
        return _refused("no channel for mail is enabled")
    if command.recipient != user.email:
        return Rejected(Reason.STALE_PARAMETERS)
    return None


def keep(applying: Applying, command: SaveEmergencyAccess) -> None:
    """Keep the encrypted codes of a set that was just saved, until they are opened."""
    if command.opener:
        tables.save(
            applying.db,
            SealedCodes(
                set_id=command.set_id,
                opener=command.opener,
                ciphertext=command.sealed_codes,
                recipient=command.recipient,
                ends_at_ms=applying.now_ms + WAITING_MS,
            ),
        )


def open_sealed_codes(applying: Applying, command: OpenSealedCodes) -> Rejected | None:
    """
    Apply `OpenSealedCodes`: one page gets the codes, for a minute.

    The called node has read them before it proposed this.
    """
    sealed = tables.by_opener(applying.db, command.opener)
    if sealed is None or not _works(applying, sealed):
        return CLOSED
    if sealed.page:
        return None if sealed.page == command.page else CLOSED
    tables.save(
        applying.db,
        replace(sealed, page=command.page, ends_at_ms=applying.now_ms + OPENED_MS),
    )
    applying.detail = f"set {sealed.set_id}"
    return None


def note_sealed_codes(applying: Applying, command: NoteSealedCodes) -> None:
    """Apply `NoteSealedCodes`. A set whose mail was not sent is void at once."""
    sealed = tables.of_set(applying.db, command.set_id)
    words = {
        MailOutcome.SENT: "mail sent",
        MailOutcome.UNKNOWN: "mail perhaps sent",
        MailOutcome.FAILED: "mail not sent",
    }[MailOutcome(command.outcome)]
    cause = f": {command.cause}" if command.cause else ""
    applying.detail = f"set {command.set_id}: {words}{cause}"
    if command.outcome != MailOutcome.FAILED or sealed is None or sealed.page:
        return
    voided = _void(applying.db, sealed, applying.now_ms)[1]
    if voided:
        applying.events.append(
            Event(
                action=VOIDED,
                serial=command.serial,
                cause=f"mail with their link not sent: {plural(voided, 'code')}",
            )
        )


def end_unopened(
    db: sqlite3.Connection, audit: AuditLog, node_id: str, now_ms: int
) -> None:
    """Void the sets whose codes were not opened in time, and forget those that were."""
    for sealed in tables.ended(db, now_ms):
        if sealed.page:
            tables.delete(db, sealed.set_id)
            continue
        serial, voided = _void(db, sealed, now_ms)
        events = [
            (NOT_OPENED, f"set {sealed.set_id}"),
            *(
                [(VOIDED, f"not opened in time: {plural(voided, 'code')}")]
                * bool(voided)
            ),
        ]
        for action, detail in events:
            audit.append(
                at_ms=now_ms,
                actor=f"node:{node_id}",
                node=node_id,
                action=action,
                target=serial,
                outcome="noted",
                detail=detail,
            )


def _works(applying: Applying, sealed: SealedCodes) -> bool:
    """Return whether a code of the set would be accepted, except for a lock."""
    codes = code_tables.find_set(applying.db, sealed.set_id)
    token = token_tables.find_token(applying.db, codes.serial) if codes else None
    if codes is None or token is None or token.user_id is None or not token.enabled:
        return False
    user = user_tables.find_user(applying.db, token.user_id)
    live = codes.live(applying.now_ms, token.expires_at_ms)
    return bool(live) and user is not None and user.enabled


def _void(
    db: sqlite3.Connection, sealed: SealedCodes, now_ms: int
) -> tuple[TokenSerial, int]:
    """Void a set and forget its sealed codes; return its token, and how many were live."""
    before = code_tables.find_set(db, sealed.set_id)
    if before is None:
        raise AssertionError("sealed codes go with their set")
    token = token_tables.find_token(db, before.serial)
    live = before.live(now_ms, token.expires_at_ms if token else None)
    code_tables.update_set(db, before, before.void(now_ms))
    tables.delete(db, sealed.set_id)
    if token is not None and token.user_id is not None:
        user = user_tables.find_user(db, token.user_id)
        if user is not None:
            user_tables.save_user(db, user.changed())
    return before.serial, live


def _refused(words: str) -> Rejected:
    return Rejected(
        Reason.NOT_BY_MESSAGE, f"codes cannot go by message: {words}", "by_message"
    )
