# SPDX-License-Identifier: Apache-2.0
"""Which changes are sensitive: a second administrator must approve them (P3)."""

from typing import TypeAlias

from sparecode_node.domain.administrators import Administrator
from sparecode_node.domain.ids import AdministratorName
from sparecode_node.domain.moves import SETTLED, Move, MoveState
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
from sparecode_node.statemachine.commands.moves import (
    ActivateMove,
    DeleteMovedUsers,
    EndMove,
    FreezeUsers,
    PrepareMove,
    ReclaimMove,
)
from sparecode_node.statemachine.commands.notices import RemoveChannel, SaveChannel
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from sparecode_node.statemachine.commands.second_factors import RemoveSecondFactor
from sparecode_node.statemachine.commands.segments import (
    ConfirmArchive,
    DeclareSegmentsLost,
)
from sparecode_node.statemachine.feature_level import EXACT_APPROVALS, MEMBERS_ARE_POWER
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import moves as move_tables

MoveStep: TypeAlias = (
    PrepareMove | FreezeUsers | ActivateMove | EndMove | ReclaimMove | DeleteMovedUsers
)
"""Steps of moves that can wait for an approval."""


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
            | PrepareMove()
            | ConfirmArchive()
        ):
            return True
        case (
            FreezeUsers()
            | ActivateMove()
            | EndMove()
            | ReclaimMove()
            | DeleteMovedUsers()
        ):
            return not _is_settled(applying, command)
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


def _is_settled(
    applying: Applying,
    command: FreezeUsers | ActivateMove | EndMove | ReclaimMove | DeleteMovedUsers,
) -> bool:
    """
    Return whether the step of a move needs no approval: a repeated one changes nothing.

    The end of a move that is known here was approved with its beginning. If a restore
    lost the end, the users to be deleted are perhaps in no other cluster; the first
    deletion that is approved gives the whole copy up.
    """
    move = _move_of(applying, command)
    if isinstance(command, DeleteMovedUsers):
        return move is None or move.state is not MoveState.LOST or not move.pieces
    if move is None:
        return False
    if isinstance(command, ReclaimMove):
        return move.state in SETTLED or move.state is MoveState.RECLAIMING
    return isinstance(command, EndMove) or move.state in (
        MoveState.LEAVING,
        MoveState.ACTIVE,
    )


def _move_of(applying: Applying, command: MoveStep) -> Move | None:
    """Return the move that a step is about, or the part of it that is taken back."""
    part = command.part if isinstance(command, ReclaimMove) else None
    return move_tables.find_part(applying.db, command.move_id, part)


def _rules(applying: Applying, name: AdministratorName) -> bool:
    administrator = administrator_tables.find_administrator(applying.db, name)
    return administrator is not None and administrator.rules


def basis_of_step(applying: Applying, command: MoveStep) -> str:
    """
    Return the state of the move that an approver of one of its steps relies on.

    For example, while a request to reclaim waits, the other cluster may prove that it
    serves the users: then the approval must not make two clusters serve them. Who
    vouches for the administrators vouches for those of the time of the request.
    """
    if isinstance(command, PrepareMove) and command.same_administrators:
        return administrator_tables.names_digest(applying.db)
    move = _move_of(applying, command)
    if move is None:
        return ""
    return f"{move.state} {move.ended_at_ms or ''}".rstrip()
