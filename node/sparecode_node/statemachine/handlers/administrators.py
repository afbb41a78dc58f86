# SPDX-License-Identifier: Apache-2.0
"""
Handlers of administrators: load, decide, save (P1, P2).

The commit that changes an administrator's role, password or right to sign in also ends
their sessions.
"""

import hmac
from dataclasses import replace

from sparecode_node.domain.administrators import Administrator, Permission, Role, may
from sparecode_node.domain.ids import AdministratorName, NameKey, UserId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.personal_kinds import PersonalKind
from sparecode_node.domain.personal_notices import Told
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.administrators import (
    ChangePassword,
    CreateAdministrator,
    RemoveAdministrator,
    UpdateAdministrator,
)
from sparecode_node.statemachine.feature_level import STANDING_APPROVERS
from sparecode_node.statemachine.handlers import keys, sign_in_waits
from sparecode_node.statemachine.handlers.users import unknown_user
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import sign_in_waits as wait_tables
from sparecode_node.statemachine.tables import users as user_tables


def _unknown(name: AdministratorName) -> Rejected:
    return Rejected(
        Reason.ADMINISTRATOR_UNKNOWN, f"there is no administrator {name}", "name"
    )


def create_administrator(
    applying: Applying, command: CreateAdministrator
) -> Rejected | None:
    """Apply `CreateAdministrator`."""
    if not keys.takes(applying, command.key_id):
        return Rejected(Reason.STALE_PARAMETERS)
    if administrator_tables.find_administrator(applying.db, command.name) is not None:
        return Rejected(
            Reason.ADMINISTRATOR_EXISTS,
            f"administrator {command.name} already exists",
            "name",
        )
    user_id = None if command.user is None else _linked(applying, command.user)
    if isinstance(user_id, Rejected):
        return user_id
    administrator_tables.save_administrator(
        applying.db,
        Administrator(
            name=command.name,
            role=command.role,
            password_salt=command.password_salt,
            password_verifier=command.password_verifier,
            key_id=command.key_id,
            user_id=user_id,
            temporary=True,
        ),
    )
    applying.detail = f"{command.role}, {_user_text(command.user)}"
    return None


def _linked(applying: Applying, name: str) -> UserId | Rejected:
    user = user_tables.find_user_by_name(applying.db, NameKey(name))
    return unknown_user(name) if user is None else user.user_id


def _user_text(name: str | None) -> str:
    return "no user" if name is None else f"user {name}"


def update_administrator(
    applying: Applying, command: UpdateAdministrator
) -> Rejected | None:
    """Apply `UpdateAdministrator`."""
    db = applying.db
    before = administrator_tables.find_administrator(db, command.name)
    if before is None:
        return _unknown(command.name)
    after, changes = before, []
    if command.role is not None:
        after = replace(after, role=command.role)
        changes.append(str(command.role))
    if command.enabled is not None:
        after = replace(after, enabled=command.enabled)
        changes.append("enabled" if command.enabled else "disabled")
    if command.no_user or command.user is not None:
        name = None if command.no_user else command.user
        user_id = None if name is None else _linked(applying, name)
        if isinstance(user_id, Rejected):
            return user_id
        after = replace(after, user_id=user_id)
        changes.append(_user_text(name))
    refused = _unlinked_self(applying, before, after) or _last(applying, before, after)
    if refused is not None:
        return refused
    administrator_tables.save_administrator(db, after)
    if (before.role, before.enabled) != (after.role, after.enabled):
        _end_sessions(applying, command.name)
    if before.user_id != after.user_id:
        _tell_former(applying, before, PersonalKind.ADMINISTRATOR_CHANGED)
    applying.detail = ", ".join(changes)
    return None


def _tell_former(applying: Applying, before: Administrator, kind: PersonalKind) -> None:
    """Tell the user whom the event no longer finds as this administrator (N6)."""
    if before.user_id is not None:
        applying.told.append(Told(kind=kind, user_id=before.user_id))


def _unlinked_self(
    applying: Applying, before: Administrator, after: Administrator
) -> Rejected | None:
    """Refuse administrators who unlink their own user (I10)."""
    caller = applying.administrator
    if (
        caller is None
        or caller.name != before.name
        or before.user_id in (None, after.user_id)
    ):
        return None
    return Rejected(
        Reason.SELF_SERVICE_FORBIDDEN,
        "you cannot unlink your own user: another administrator must do it",
    )


def _last(
    applying: Applying, before: Administrator, after: Administrator | None
) -> Rejected | None:
    """Refuse to lose the last enabled super administrator."""
    if not before.rules or (after is not None and after.rules):
        return None
    (others,) = applying.db.execute(
        "SELECT count(*) FROM administrators WHERE role = ? AND enabled AND name != ?",
        (Role.SUPER_ADMIN, before.name),
    ).fetchone()
    if others:
        return None
    return Rejected(
        Reason.LAST_SUPER_ADMIN,
        f"{before.name} is the last enabled super administrator: without one, no "
        "administrator could be added",
        "name",
    )


def remove_administrator(
    applying: Applying, command: RemoveAdministrator
) -> Rejected | None:
    """Apply `RemoveAdministrator`."""
    before = administrator_tables.find_administrator(applying.db, command.name)
    if before is None:
        return _unknown(command.name)
    refused = _last(applying, before, None)
    if refused is not None:
        return refused
    _end_sessions(applying, command.name)
    administrator_tables.delete_administrator(applying.db, command.name)
    _tell_former(applying, before, PersonalKind.ADMINISTRATOR_REMOVED)
    return None


def change_password(applying: Applying, command: ChangePassword) -> Rejected | None:
    """Apply `ChangePassword`."""
    db, caller = applying.db, applying.acting_administrator
    own = caller.name == command.name
    if not own and not may(caller.role, Permission.CHANGE_ADMINISTRATORS):
        return Rejected(
            Reason.ROLE,
            f"the role {caller.role} may not change another administrator's password",
        )
    if not own and caller.temporary:
        return Rejected(
            Reason.PASSWORD_CHANGE_NEEDED,
            "your own password is temporary: change it first",
        )
    before = administrator_tables.find_administrator(db, command.name)
    version = before.version if before else 0
    if command.administrator_version != version:
        return Rejected(Reason.STALE_PARAMETERS)
    if not keys.takes(applying, command.key_id):
        return Rejected(Reason.STALE_PARAMETERS)
    if before is None:
        return _unknown(command.name)
    if own:
        refused = _old_password(applying, before, command)
        if refused is not None:
            return refused
    after = before.with_password(
        command.password_salt,
        command.password_verifier,
        command.key_id,
        temporary=not own,
    )
    if applying.feature_level < STANDING_APPROVERS:
        after = replace(after, replaced=False)
    administrator_tables.save_administrator(db, after)
    _end_sessions(applying, command.name)
    wait_tables.delete_all(db, command.name)
    applying.detail = "own" if own else "temporary"
    return None


def _old_password(
    applying: Applying, administrator: Administrator, command: ChangePassword
) -> Rejected | None:
    """
    Refuse a wrong old password.

    Without this check, a stolen session would be enough to take the account over. The
    session has a count of its own, so strangers' passwords do not get in the way (L7).
    """
    if (command.candidate_key_id or command.key_id) != administrator.key_id:
        return Rejected(Reason.STALE_PARAMETERS)
    client = applying.call.session_id
    if sign_in_waits.blocks(applying, administrator, client):
        return Rejected(
            Reason.LOCKED,
            f"too many wrong passwords: wait a {sign_in_waits.time_to_wait(applying)} "
            "and try again",
            "old_password",
        )
    if hmac.compare_digest(administrator.password_verifier, command.candidate):
        return None
    sign_in_waits.charge(applying, administrator, client)
    return Rejected(Reason.WRONG_PASSWORD, "the old password is wrong", "old_password")


def _end_sessions(applying: Applying, name: AdministratorName) -> None:
    applying.db.execute("DELETE FROM sessions WHERE administrator = ?", (name,))
