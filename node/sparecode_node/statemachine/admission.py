# SPDX-License-Identifier: Apache-2.0
"""Checks of the calling administrator: session, role, no self-service (P1, I10)."""

from sparecode_node.domain.administrators import (
    REAUTHENTICATION_MS,
    Administrator,
    Permission,
    may,
)
from sparecode_node.domain.ids import AdministratorName
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.passkeys import ShownFactor
from sparecode_node.domain.policy import FactorRule
from sparecode_node.statemachine import commands, power
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.administrators import ChangePassword
from sparecode_node.statemachine.commands.agents import (
    RegisterAgent,
    RemoveAgent,
    UpdateAgent,
)
from sparecode_node.statemachine.commands.permissions import PERMISSIONS
from sparecode_node.statemachine.commands.second_factors import (
    RegisterPasskey,
    SetSecondFactor,
)
from sparecode_node.statemachine.commands.sessions import CloseSession, Reauthenticate
from sparecode_node.statemachine.feature_level import (
    MEMBERS_ARE_POWER,
    REAUTHENTICATIONS,
)
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables

WITHOUT_REQUIRED_FACTOR = (
    ChangePassword,
    CloseSession,
    Reauthenticate,
    RegisterPasskey,
    SetSecondFactor,
)
"""
The only commands of a session without the second factor that the policy requires (P8).

Setting another administrator's password is also a `ChangePassword`, but not allowed. An
administrator who has the factor must show it and cannot set up another one instead.
"""

SECOND_FACTOR_REQUIRED = Rejected(
    Reason.SECOND_FACTOR_REQUIRED,
    "the policy requires a second factor that this session has not shown: set it up on "
    "your account's page in the Security Console, or sign in with it",
)

WITH_TEMPORARY_PASSWORD = (ChangePassword, CloseSession, Reauthenticate)
"""The only commands allowed with a temporary password."""

NOT_ABOUT_USERS = (
    RegisterAgent,
    UpdateAgent,
    RemoveAgent,
    commands.RegisterRadiusClient,
    commands.UpdateRadiusClient,
    commands.RotateRadiusSecret,
    commands.CreateAgentKey,
)
"""Commands whose `name_key` is not the name of a user."""

_IN_RELEASE_0_1_0 = {
    commands.ActivateKey: Permission.CHANGE_CLUSTER,
    commands.CreateJoinTicket: Permission.CHANGE_CLUSTER,
    commands.AddMember: Permission.CHANGE_CLUSTER,
    commands.RemoveMember: Permission.CHANGE_CLUSTER,
    commands.Reject: Permission.USE_OWN_ACCOUNT,
}
"""The permissions below level 2: of operators, and for `Reject` of every role."""


def permission_of(command: type[commands.Command], level: int) -> Permission:
    """Return the permission that a command needs at a feature level of the cluster."""
    if level < MEMBERS_ARE_POWER and command in _IN_RELEASE_0_1_0:
        return _IN_RELEASE_0_1_0[command]
    return PERMISSIONS[command]


def check_session(applying: Applying) -> Rejected | None:
    """
    Check the administrator's session and role (P1).

    Services have checked them before, but both may have ended since.
    """
    command_type = type(applying.call.command)
    if command_type not in PERMISSIONS:
        return None
    row = applying.db.execute(
        "SELECT administrator, proved_at_ms, factor FROM sessions "
        "WHERE session_id = ? AND ends_at_ms > ?",
        (applying.call.session_id, applying.now_ms),
    ).fetchone()
    administrator = (
        administrator_tables.find_administrator(applying.db, AdministratorName(row[0]))
        if row
        else None
    )
    if administrator is None or not administrator.enabled:
        return Rejected(Reason.SESSION_ENDED, "the session has ended; sign in again")
    applying.administrator = administrator
    permission = permission_of(command_type, applying.feature_level)
    if not may(administrator.role, permission):
        return Rejected(
            Reason.ROLE,
            f"the role {administrator.role} lacks the permission {permission}",
        )
    if administrator.temporary and command_type not in WITH_TEMPORARY_PASSWORD:
        return Rejected(
            Reason.PASSWORD_CHANGE_NEEDED,
            "the password is temporary: change it first",
        )
    if not _has_shown_factor(applying, administrator, ShownFactor(row[2])):
        return SECOND_FACTOR_REQUIRED
    if (
        applying.feature_level >= REAUTHENTICATIONS
        and applying.now_ms - row[1] > REAUTHENTICATION_MS
        and power.changes_power(applying)
    ):
        return power.REAUTHENTICATION_NEEDED
    return _self_service(applying, administrator)


def _has_shown_factor(
    applying: Applying, administrator: Administrator, factor: ShownFactor
) -> bool:
    """Return whether the session may use the command by its second factor (P8)."""
    rule = FactorRule(applying.policy.administrators_second_factor)
    if factor.satisfies(rule):
        return True
    command = applying.call.command
    match command:
        case ChangePassword() if command.name != administrator.name:
            return False
        case RegisterPasskey() | SetSecondFactor():
            return not administrator.best_factor.satisfies(rule)
        case _:
            return isinstance(command, WITHOUT_REQUIRED_FACTOR)


def _self_service(applying: Applying, administrator: Administrator) -> Rejected | None:
    """Refuse commands of administrators on their own user or its tokens (I10)."""
    if administrator.user_id is None:
        return None
    for user_id in _users_of(applying):
        if user_id == administrator.user_id:
            return Rejected(
                Reason.SELF_SERVICE_FORBIDDEN,
                "this is about your own user: another administrator must do it",
            )
    return None


def _users_of(applying: Applying) -> list[str]:
    """
    Return the users that a command concerns, directly or through their tokens.

    Field names tell, so that commands added later are included.
    """
    command = applying.call.command
    if isinstance(command, NOT_ABOUT_USERS):
        return []
    name = getattr(command, "name_key", None)
    user = (
        user_tables.find_user_by_name(applying.db, name) if name is not None else None
    )
    tokens = [
        token_tables.find_token(applying.db, getattr(command, field))
        for field in ("serial", "replacement")
        if hasattr(command, field)
    ]
    return [
        *([user.user_id] if user else []),
        *(token.user_id for token in tokens if token and token.user_id),
    ]
