# SPDX-License-Identifier: Apache-2.0
"""
Notices to people: decides in the commit of an event who hears of it (N6, N7).

The state decides all of it, so every replica writes the same notices: the addresses on
file, and how many of a kind a person has had within the hour. A stranger who causes an
event a million times therefore fills no mailbox.
"""

import sqlite3
from collections.abc import Callable, Mapping

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.personal_notices import (
    COUNTED_MS,
    PersonalKind,
    PersonalNotice,
    per_hour,
)
from sparecode_node.domain.users import User
from sparecode_node.statemachine.tables import notices as tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables


def personal_notices(db: sqlite3.Connection, event: AuditEvent) -> list[PersonalNotice]:
    """Return the notices to people that an event causes, each to one address."""
    kind = _kind(event)
    if kind is None:
        return []
    user = _OWNERS[kind](db, event)
    if user is None or not user.email:
        return []
    number = tables.count_personal(
        db, user.user_id, kind, now_ms=event.at_ms, hour_ms=COUNTED_MS
    )
    most = per_hour(kind)
    if number > most:
        return []
    return [
        PersonalNotice(
            kind=kind,
            recipient=user.email,
            person=user.display_name or user.username,
            language=user.language,
            is_last=number == most,
        )
    ]


def _kind(event: AuditEvent) -> PersonalKind | None:
    if event.outcome not in ("applied", "noted"):
        return None
    return _KINDS.get(event.action)


def _of_token(db: sqlite3.Connection, event: AuditEvent) -> User | None:
    token = token_tables.find_token(db, TokenSerial(event.target))
    if token is None or token.user_id is None:
        return None
    return user_tables.find_user(db, token.user_id)


_KINDS: Mapping[str, PersonalKind] = {
    "SaveEmergencyAccess": PersonalKind.CODES_ISSUED,
    "IssueFixedTokencode": PersonalKind.CODES_ISSUED,
    "IssueTokencodesInBulk": PersonalKind.CODES_ISSUED,
}

_OWNERS: Mapping[
    PersonalKind, Callable[[sqlite3.Connection, AuditEvent], User | None]
] = {
    PersonalKind.CODES_ISSUED: _of_token,
}
