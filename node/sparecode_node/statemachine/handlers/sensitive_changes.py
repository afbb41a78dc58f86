# SPDX-License-Identifier: Apache-2.0
"""Which changes are sensitive: a second administrator must approve them (P3)."""

from sparecode_node.domain.administrators import Administrator
from sparecode_node.domain.ids import AdministratorName
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.administrators import (
    ChangePassword,
    CreateAdministrator,
    RemoveAdministrator,
    UpdateAdministrator,
)
from sparecode_node.statemachine.commands.epochs import OpenCluster
from sparecode_node.statemachine.commands.membership import (
    AddMember,
    FinishAuthorities,
    KeepAuthorities,
    ReplaceAuthorities,
)
from sparecode_node.statemachine.commands.notices import RemoveChannel, SaveChannel
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from sparecode_node.statemachine.commands.second_factors import RemoveSecondFactor
from sparecode_node.statemachine.commands.segments import DeclareSegmentsLost
from sparecode_node.statemachine.feature_level import EXACT_APPROVALS, MEMBERS_ARE_POWER
from sparecode_node.statemachine.tables import administrators as administrator_tables


def is_sensitive(applying: Applying, administrator: Administrator) -> bool:
    """Return whether it grants power, or takes it from one who could object."""
    command = applying.call.command
    match command:
        case (
            UpdatePolicy()
            | CreateAdministrator()
            | OpenCluster()
            | KeepAuthorities()
            | ReplaceAuthorities()
            | FinishAuthorities()
            | RemoveSecondFactor()
            | DeclareSegmentsLost()
        ):
            return True
        case SaveChannel() | RemoveChannel():
            return True  # It decides what leaves the cluster, and what stays untold.
        case UpdateAdministrator() if _relinks(applying, administrator, command):
            return True
        case UpdateAdministrator():
            if command.enabled is False:
                return command.role is not None or _rules(applying, command.name)
            return command.role is not None or command.enabled is not None
        case RemoveAdministrator():
            return _rules(applying, command.name)
        case AddMember():
            return applying.feature_level >= MEMBERS_ARE_POWER
        case ChangePassword():
            # Setting another administrator's password allows signing in as them.
            return command.name != administrator.name
        case _:
            return False


def _relinks(
    applying: Applying, administrator: Administrator, command: UpdateAdministrator
) -> bool:
    """
    Return whether it changes another administrator's link to a user (I10).

    The link decides whose codes they may not issue, and what they may not approve.
    """
    return (
        applying.feature_level >= EXACT_APPROVALS
        and (command.no_user or command.user is not None)
        and command.name != administrator.name
    )


def _rules(applying: Applying, name: AdministratorName) -> bool:
    administrator = administrator_tables.find_administrator(applying.db, name)
    return administrator is not None and administrator.rules
