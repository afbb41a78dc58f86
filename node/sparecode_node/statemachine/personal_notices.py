# SPDX-License-Identifier: Apache-2.0
"""
Notices to people: decides in the commit of an event who hears of it (N6-N8).

The state decides all of it, so every replica writes the same notices: the addresses on
file, and how many of a kind a person has had within the hour. A stranger who causes an
event a million times therefore fills no mailbox.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.ids import AdministratorName, TokenSerial
from sparecode_node.domain.personal_kinds import KINDS_OF_USERS, PersonalKind
from sparecode_node.domain.personal_notices import (
    ADMINISTRATORS_MAX,
    COUNTED_MS,
    Audience,
    PersonalNotice,
    Told,
    Wanted,
    per_hour,
    told_by,
)
from sparecode_node.domain.users import User
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import notices as tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables

NOTHING_SILENT = Wanted()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Person:
    """A person who hears of something."""

    key: str
    """What their notices are counted by: the user's id, or the administrator's name."""
    name: str
    user: User


def personal_notices(
    db: sqlite3.Connection,
    event: AuditEvent,
    told: Sequence[Told] = (),
    wanted: Wanted = NOTHING_SILENT,
) -> list[PersonalNotice]:
    """
    Return the notices to people that an event causes, each to one address.

    *told*: what the handler of the event's command tells; *wanted*: what is sent.
    """
    found = []
    known = told_by(event.action, event.outcome, event.detail)
    if known is not None and known[0] not in wanted.silent:
        kind, audience = known
        for person in _people(db, event, audience):
            found += _addressed(db, person, kind, event.at_ms, wanted)
    for each in told:
        user = each.deleted or user_tables.find_user(db, each.user_id)
        if user is not None and each.kind not in wanted.silent:
            found += _addressed(db, _user(user), each.kind, event.at_ms, wanted, each)
    return found


def addresses_of(db: sqlite3.Connection, user: User, now_ms: int) -> tuple[str, ...]:
    """Return the address of a user, and the former ones that still hear (N8)."""
    former = tables.former_addresses(db, user.user_id, now_ms=now_ms)
    return tuple(dict.fromkeys([user.email] * bool(user.email) + former))


def managers_of(db: sqlite3.Connection, user: User, now_ms: int) -> tuple[str, ...]:
    """Return the address of a user's manager, and the former ones that still hear (N8)."""
    former = tables.former_addresses(db, user.user_id, now_ms=now_ms, of_manager=True)
    present = [user.manager_email] * bool(user.manager_email)
    return tuple(dict.fromkeys(present + former))


def _addressed(
    db: sqlite3.Connection,
    person: _Person,
    kind: PersonalKind,
    now_ms: int,
    wanted: Wanted,
    told: Told | None = None,
) -> list[PersonalNotice]:
    """
    Return a notice for each address of a person, within the limits of the hour.

    The address that a change leaves has a limit of its own. Otherwise changes of other
    addresses would hide this one (N8).
    """
    user, most = person.user, per_hour(kind)
    own = (told.addresses if told else ()) or addresses_of(db, user, now_ms)
    managers: tuple[str, ...] = ()
    if kind in KINDS_OF_USERS and wanted.tells_managers(kind):
        managers = (told.managers if told else ()) or managers_of(db, user, now_ms)
    left = [
        (address, of_manager)
        for address, of_manager in (
            (told.left_address if told else "", False),
            (told.left_manager if told else "", True),
        )
        if address
    ]
    if not own and not managers and not left:
        return []
    number = tables.count_personal(
        db, person.key, kind, now_ms=now_ms, hour_ms=COUNTED_MS
    )
    recipients = [
        *((address, False) for address in own),
        *((address, True) for address in managers),
    ]
    if number > most:
        recipients = []
    for address, of_manager in left:
        key = f"{person.key} {address.casefold()}"
        count = tables.count_personal(db, key, kind, now_ms=now_ms, hour_ms=COUNTED_MS)
        if count <= most:
            recipients.append((address, of_manager))
    unique: dict[str, bool] = {}
    for address, of_manager in recipients:
        # An address of both the user and the manager gets the user's notice.
        unique.setdefault(address, of_manager)
    return [
        PersonalNotice(
            kind=kind,
            recipient=address,
            person=person.name,
            language=user.language,
            is_last=number >= most,
            user_id="" if told and told.deleted else user.user_id,
            to_manager=of_manager,
            target=told.target if told else "",
        )
        for address, of_manager in unique.items()
    ]


def _people(
    db: sqlite3.Connection, event: AuditEvent, audience: Audience
) -> Iterator[_Person]:
    """Return those who hear of an event. Administrators without a user have no address."""
    if audience is Audience.OWNER:
        token = token_tables.find_token(db, TokenSerial(event.target))
        if token is not None and token.user_id is not None:
            user = user_tables.find_user(db, token.user_id)
            if user is not None:
                yield _user(user)
        return
    for name in _administrators(db, event, audience):
        if audience is Audience.APPROVERS and event.actor == f"administrator:{name}":
            continue
        found = administrator_tables.find_administrator(db, AdministratorName(name))
        if found is None or found.user_id is None:
            continue
        user = user_tables.find_user(db, found.user_id)
        if user is not None:
            yield _Person(key=f"administrator:{name}", name=name, user=user)


def _administrators(
    db: sqlite3.Connection, event: AuditEvent, audience: Audience
) -> Iterator[str]:
    """Return the names of the administrators that an audience has, each once."""
    names: list[str] = []
    if audience not in (Audience.APPROVERS, Audience.HELP_DESK):
        names.append(event.target)
    if audience is not Audience.ADMINISTRATOR:
        names += administrator_tables.enabled_of_role(
            db, Role.SUPER_ADMIN, most=ADMINISTRATORS_MAX
        )
    if audience is Audience.HELP_DESK:
        names += administrator_tables.enabled_of_role(
            db, Role.HELP_DESK, most=ADMINISTRATORS_MAX
        )
    yield from dict.fromkeys(names)


def _user(user: User) -> _Person:
    return _Person(key=user.user_id, name=user.display_name or user.username, user=user)
