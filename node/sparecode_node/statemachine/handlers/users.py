# SPDX-License-Identifier: Apache-2.0
"""Handlers of users: load, decide, save."""

from collections.abc import Sequence
from dataclasses import replace

from sparecode_node.domain.agents import GROUPS_MAX
from sparecode_node.domain.ids import GroupKey
from sparecode_node.domain.lockout import FREE, Factor
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.personal_kinds import PersonalKind
from sparecode_node.domain.personal_notices import (
    FORMER_ADDRESS_MS,
    FORMER_ADDRESSES_MAX,
    Told,
)
from sparecode_node.domain.users import NEW_USER, User
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.users import (
    CreateUser,
    DeleteUser,
    UnlockUser,
    UpdateUser,
)
from sparecode_node.statemachine.feature_level import (
    ETAGS,
    PERSONAL_NOTICES,
    SEALED_CODES,
)
from sparecode_node.statemachine.handlers import keys, known_secrets
from sparecode_node.statemachine.personal_notices import (
    addresses_of,
    managers_of,
)
from sparecode_node.statemachine.results import Applied, Result
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import groups as group_tables
from sparecode_node.statemachine.tables import notices as notice_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables


def unknown_user(name: str) -> Rejected:
    """Return the refusal of a name that no user has."""
    return Rejected(Reason.USER_UNKNOWN, f"there is no user {name}", "username")


def create_user(applying: Applying, command: CreateUser) -> Result:
    """Apply `CreateUser`."""
    db = applying.db
    if user_tables.find_user_by_name(db, command.name_key) is not None:
        return Rejected(
            Reason.USER_EXISTS,
            f"user {command.name_key} already exists (names are compared without "
            "regard to case)",
            "username",
        )
    # Nodes draw a new id for each user. If an id repeats anyway, keep the first user.
    if user_tables.find_user(db, command.user_id) or user_tables.find_user_by_tag(
        db, command.name_tag
    ):
        return Rejected(
            Reason.USER_EXISTS, "a user with this id already exists", "username"
        )
    if not keys.takes(applying, command.key_id):
        return Rejected(Reason.STALE_PARAMETERS)
    user = User(
        user_id=command.user_id,
        username=command.username,
        name_key=command.name_key,
        name_tag=command.name_tag,
        display_name=command.display_name,
        email=command.email,
        enabled=True,
        auth_version=NEW_USER,
        pin_salt=command.pin_salt,
        code_salt=command.code_salt,
        tag_key_id=command.key_id,
        language=command.language,
        manager_email=command.manager_email,
        email_since_ms=_since_ms(applying) if command.email else 0,
        manager_since_ms=_since_ms(applying) if command.manager_email else 0,
    )
    user_tables.save_user(db, user)
    known_secrets.note_user(applying, user)
    refused = _change_groups(applying, user, join=command.join_groups)
    return refused or Applied(index=applying.index)


def update_user(applying: Applying, command: UpdateUser) -> Result:
    """Apply `UpdateUser`."""
    db = applying.db
    user = user_tables.find_user_by_name(db, command.name_key)
    if user is None:
        return unknown_user(command.name_key)
    _name_changes(applying, user, command)
    if command.display_name is not None:
        user = replace(user, display_name=command.display_name)
    if command.email is not None and command.email != user.email:
        _change_address(applying, user)
        user = replace(user, email=command.email, email_since_ms=_since_ms(applying))
    if command.language is not None:
        user = replace(user, language=command.language)
    if command.manager_email not in (None, user.manager_email):
        _change_manager(applying, user)
        user = replace(
            user,
            manager_email=command.manager_email,
            manager_since_ms=_since_ms(applying),
        )
        _add_detail(applying, "manager's address changed")
    if command.enabled is not None:
        if user.enabled and not command.enabled:
            applying.told.append(
                Told(kind=PersonalKind.USER_DISABLED, user_id=user.user_id)
            )
        user = replace(user, enabled=command.enabled)
        _add_detail(applying, "enabled" if command.enabled else "disabled")
    user_tables.save_user(db, user)
    refused = _change_groups(
        applying, user, join=command.join_groups, leave=command.leave_groups
    )
    return refused or Applied(index=applying.index)


def _name_changes(applying: Applying, user: User, command: UpdateUser) -> None:
    """Name the fields that change: their values are no part of the audit log."""
    named = ("display_name", "email", "language")
    for field in named if applying.feature_level >= ETAGS else ():
        if getattr(command, field) not in (None, getattr(user, field)):
            _add_detail(applying, f"{field.replace('_', ' ')} changed")


def _since_ms(applying: Applying) -> int:
    """Return the time of an address that is set now; below level 2 none is kept."""
    return applying.now_ms if applying.feature_level >= SEALED_CODES else 0


def _change_address(applying: Applying, user: User) -> None:
    """Let both addresses hear of the change, and the former one of the next days (N8)."""
    if applying.feature_level < PERSONAL_NOTICES:
        return
    if user.email:
        notice_tables.keep_address(
            applying.db,
            user.user_id,
            user.email,
            now_ms=applying.now_ms,
            ends_at_ms=applying.now_ms + FORMER_ADDRESS_MS,
            most=FORMER_ADDRESSES_MAX,
        )
    applying.told.append(
        Told(
            kind=PersonalKind.ADDRESS_CHANGED,
            user_id=user.user_id,
            left_address=user.email,
        )
    )


def _change_manager(applying: Applying, user: User) -> None:
    """Let the user and both managers hear of the change, as of an own address (N8)."""
    if user.manager_email:
        notice_tables.keep_address(
            applying.db,
            user.user_id,
            user.manager_email,
            now_ms=applying.now_ms,
            ends_at_ms=applying.now_ms + FORMER_ADDRESS_MS,
            most=FORMER_ADDRESSES_MAX,
            of_manager=True,
        )
    applying.told.append(
        Told(
            kind=PersonalKind.MANAGER_CHANGED,
            user_id=user.user_id,
            left_manager=user.manager_email,
        )
    )


def _add_detail(applying: Applying, *words: str) -> None:
    applying.detail = ", ".join([applying.detail] * bool(applying.detail) + [*words])


def _change_groups(
    applying: Applying,
    user: User,
    *,
    join: Sequence[GroupKey],
    leave: Sequence[GroupKey] = (),
) -> Rejected | None:
    """Add the user to groups and remove them from others; agents admit by group."""
    if not join and not leave:
        return None
    changes = [f"joins {group}" for group in join]
    changes += [f"leaves {group}" for group in leave]
    _add_detail(applying, *changes)
    count = group_tables.change_memberships(
        applying.db, user.user_id, joined=join, left=leave
    )
    if count > GROUPS_MAX:
        return Rejected(
            Reason.GROUP_LIMIT,
            f"{user.username} would be in {count} groups; the maximum is {GROUPS_MAX}",
            "join_groups",
        )
    return None


def delete_user(applying: Applying, command: DeleteUser) -> Result:
    """Apply `DeleteUser`."""
    db = applying.db
    user = user_tables.find_user_by_name(db, command.name_key)
    if user is None:
        return unknown_user(command.name_key)
    tokens = token_tables.find_tokens_of(db, user.user_id)
    if tokens:
        serials = ", ".join(token.serial for token in tokens)
        return Rejected(
            Reason.USER_HAS_TOKENS,
            f"{user.username} still has tokens: {serials}",
            "username",
        )
    administrators = administrator_tables.administrators_of(db, user.user_id)
    if administrators:
        return Rejected(
            Reason.USER_IS_ADMINISTRATOR,
            f"{user.username} is linked to administrators: {', '.join(administrators)}",
            "username",
        )
    if applying.feature_level >= PERSONAL_NOTICES:
        # The former addresses go with the user: read them before.
        applying.told.append(
            Told(
                kind=PersonalKind.USER_DELETED,
                user_id=user.user_id,
                deleted=user,
                addresses=addresses_of(db, user, applying.now_ms),
                managers=managers_of(db, user, applying.now_ms),
            )
        )
    known_secrets.forget_user(applying, user)
    user_tables.delete_user(db, user.user_id)
    return Applied(index=applying.index)


def unlock_user(applying: Applying, command: UnlockUser) -> Result:
    """Apply `UnlockUser` (L6)."""
    db = applying.db
    user = user_tables.find_user_by_name(db, command.name_key)
    if user is None:
        return unknown_user(command.name_key)
    for factor in Factor:
        user_tables.save_lockout(db, user.user_id, factor, FREE)
    return Applied(index=applying.index)
