# SPDX-License-Identifier: Apache-2.0
"""Handlers of codes that go to their user, or a manager, as a sealed message (I13)."""

import sqlite3
from collections.abc import Mapping
from dataclasses import replace

from sparecode_node.domain.approvals import ApprovalKind, Hold
from sparecode_node.domain.authentication import Event
from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.notices import ChannelKind
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.personal_kinds import PersonalKind
from sparecode_node.domain.sealed_codes import (
    OPENED_MS,
    WAITING_MS,
    MailOutcome,
    MessageObstacle,
    SealedCodes,
    address_of,
    heard_of_manager,
    is_allowed,
    obstacle,
    way,
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
_WORDS: Mapping[str, str] = {
    MailOutcome.SENT: "mail sent",
    MailOutcome.FAILED: "mail not sent",
}

UNTOLD = "codes for a user who perhaps never heard of the manager on file"
"""Why codes for a manager wait for another administrator."""

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
    Refuse codes that cannot go to their user, or the user's manager, by message.

    A new address gets none for 72 hours. Otherwise an attacker who changes the address
    would be sent the codes at once, and their owner would hear of it too late (N8).
    Without a PIN, anyone who reads the mail could sign in. An administrator's own address
    gets none either: the administrator would have them, and not be known to.
    """
    if not command.opener or user is None:
        return None  # Without a user, `issue` refuses it.
    to_manager = command.to_manager
    field = "to_manager" if to_manager else "by_message"
    stands = _obstacle(applying, token, user, to_manager=to_manager)
    address = address_of(user, to_manager=to_manager)
    if stands is not None:
        return _refused(_words(stands, token, user, to_manager=to_manager), field)
    if _is_own(applying, address):
        return _refused(
            "the address is your own one on file: issue the codes without a message, or "
            "let another administrator send them",
            field,
        )
    if not any(
        each.kind is ChannelKind.MAIL for each in notice_tables.keeping(applying.db)
    ):
        return _refused("no channel for mail is enabled", field)
    if command.recipient != address:
        return Rejected(Reason.STALE_PARAMETERS)
    return None


def _obstacle(
    applying: Applying, token: Token, user: User, *, to_manager: bool
) -> MessageObstacle | None:
    if applying.feature_level < SEALED_CODES or not is_allowed(
        applying.policy, to_manager=to_manager
    ):
        return MessageObstacle.POLICY
    return obstacle(user, token.pin_rule, to_manager=to_manager, now_ms=applying.now_ms)


def _words(
    stands: MessageObstacle, token: Token, user: User, *, to_manager: bool
) -> str:
    name = user.username
    whose = f"{name}'s manager" if to_manager else name
    policy = (
        "codes_by_message and codes_to_manager do"
        if to_manager
        else ("codes_by_message does")
    )
    return {
        MessageObstacle.POLICY: f"the policy {policy} not allow it",
        MessageObstacle.NO_PIN: f"token {token.serial} has no PIN, so anyone who reads the "
        f"mail could sign in: give {name} the codes in person",
        MessageObstacle.NO_ADDRESS: f"{name} has no manager on file: add the address of one "
        "first (manager_email)"
        if to_manager
        else f"{name} has no address on file: add one first",
        MessageObstacle.NEW_ADDRESS: f"the address of {whose} was set or changed within "
        f"the last 72 hours: give {name if to_manager else 'them'} the codes in person",
    }[stands]


def _is_own(applying: Applying, address: str) -> bool:
    """Return whether an address is that of the calling administrator."""
    caller = applying.acting_administrator
    own = user_tables.find_user(applying.db, caller.user_id) if caller.user_id else None
    return own is not None and own.email.casefold() == address.casefold()


def hold_needed(applying: Applying) -> Hold | None:
    """
    Return the hold of codes for a manager of whom the user could not hear; None: no hold.

    Who had no address of some age when the manager was put on file was not told of it,
    or someone else was (N8). So another administrator must approve that this manager is
    the right one.
    """
    command = applying.call.command
    if not isinstance(command, SaveEmergencyAccess) or not command.to_manager:
        return None
    user = user_tables.find_user(applying.db, command.user_id)
    if user is None or (
        heard_of_manager(user)
        and PersonalKind.MANAGER_CHANGED not in applying.policy.silent_notices.split()
    ):
        return None
    return Hold(ApprovalKind.ISSUE, UNTOLD, (command.serial,))


def with_way(applying: Applying, command: SaveEmergencyAccess, held: Hold) -> Hold:
    """
    Return a hold whose approver reads to whom the codes go by message.

    The description is in the audit log, and so has no address.
    """
    reasons = [held.description]
    if held.description != UNTOLD and hold_needed(applying):
        reasons.append(UNTOLD)
    words = f"{', '.join(reasons)}, {way(to_manager=command.to_manager)}"
    return replace(held, description=words, recipient=command.recipient)


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
                to_manager=command.to_manager,
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
    applying.detail = f"set {sealed.set_id}, {way(to_manager=sealed.to_manager)}"
    return None


def note_sealed_codes(applying: Applying, command: NoteSealedCodes) -> None:
    """Apply `NoteSealedCodes`. A set whose mail was not sent is void at once."""
    sealed = tables.of_set(applying.db, command.set_id)
    # Any member can propose any word: one that is not known must not stop the nodes.
    words = _WORDS.get(command.outcome, "mail perhaps sent")
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
            (
                NOT_OPENED,
                f"set {sealed.set_id}, {way(to_manager=sealed.to_manager)}",
            ),
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


def _refused(words: str, field: str) -> Rejected:
    return Rejected(
        Reason.NOT_BY_MESSAGE, f"codes cannot go by message: {words}", field
    )
