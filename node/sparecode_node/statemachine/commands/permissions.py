# SPDX-License-Identifier: Apache-2.0
"""
What an administrator needs for each command: the one table of it (P1).

Apply asks it; services derive from it what each method needs. Which role has
which permission is `domain/administrators.py`.
"""

from sparecode_node.domain.administrators import Permission
from sparecode_node.statemachine.commands import (
    AssignToken,
    CloseSession,
    Command,
    CreateUser,
    DeleteUser,
    DisableEmergencyAccess,
    EnrollToken,
    IssueFixedTokencode,
    RegisterAgent,
    ReinstateToken,
    SaveEmergencyAccess,
    UnlockUser,
    UpdateUser,
)
from sparecode_node.statemachine.commands.administrators import (
    ChangePassword,
    CreateAdministrator,
    RemoveAdministrator,
    RemoveSecondFactor,
    SetSecondFactor,
    UpdateAdministrator,
)
from sparecode_node.statemachine.commands.agents import (
    AllowCertificate,
    DenyCertificate,
    RemoveAgent,
    UpdateAgent,
)
from sparecode_node.statemachine.commands.approvals import Approve, Reject
from sparecode_node.statemachine.commands.backups import CreateBackup
from sparecode_node.statemachine.commands.bulk import (
    IssueTokencodesInBulk,
    RequestBulkIssue,
)
from sparecode_node.statemachine.commands.cluster import (
    AddMember,
    CreateJoinTicket,
    RemoveMember,
    TransferPrimary,
)
from sparecode_node.statemachine.commands.epochs import OpenCluster
from sparecode_node.statemachine.commands.keys import ActivateKey
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from sparecode_node.statemachine.commands.tokens import (
    ClearPin,
    DeleteToken,
    DisableToken,
    EnableToken,
    ReplaceToken,
    ResynchronizeToken,
    SetPin,
    UnassignToken,
    UpdateToken,
)

PERMISSIONS: dict[type[Command], Permission | None] = {
    CloseSession: None,  # Anybody may end their own session.
    CreateUser: Permission.CHANGE_USERS,
    UpdateUser: Permission.CHANGE_USERS,
    DeleteUser: Permission.CHANGE_USERS,
    UnlockUser: Permission.UNLOCK_USERS,
    EnrollToken: Permission.CHANGE_TOKENS,
    AssignToken: Permission.CHANGE_TOKENS,
    UnassignToken: Permission.CHANGE_TOKENS,
    EnableToken: Permission.CHANGE_TOKENS,
    DisableToken: Permission.CHANGE_TOKENS,
    UpdateToken: Permission.CHANGE_TOKENS,
    DeleteToken: Permission.CHANGE_TOKENS,
    ReplaceToken: Permission.CHANGE_TOKENS,
    ResynchronizeToken: Permission.CHANGE_TOKENS,
    ClearPin: Permission.CLEAR_PINS,
    SetPin: Permission.CHANGE_TOKENS,
    ReinstateToken: Permission.CHANGE_TOKENS,
    SaveEmergencyAccess: Permission.ISSUE_EMERGENCY_ACCESS,
    IssueFixedTokencode: Permission.ISSUE_EMERGENCY_ACCESS,
    IssueTokencodesInBulk: Permission.ISSUE_EMERGENCY_ACCESS,
    RequestBulkIssue: Permission.ISSUE_EMERGENCY_ACCESS,
    DisableEmergencyAccess: Permission.ISSUE_EMERGENCY_ACCESS,
    UpdatePolicy: Permission.CHANGE_POLICY,
    RegisterAgent: Permission.CHANGE_AGENTS,
    UpdateAgent: Permission.CHANGE_AGENTS,
    RemoveAgent: Permission.CHANGE_AGENTS,
    DenyCertificate: Permission.CHANGE_AGENTS,
    AllowCertificate: Permission.CHANGE_AGENTS,
    TransferPrimary: Permission.CHANGE_CLUSTER,
    OpenCluster: Permission.CHANGE_CLUSTER,
    ActivateKey: Permission.CHANGE_CLUSTER,
    CreateBackup: Permission.CREATE_BACKUPS,
    CreateJoinTicket: Permission.CHANGE_CLUSTER,
    AddMember: Permission.CHANGE_CLUSTER,
    RemoveMember: Permission.CHANGE_CLUSTER,
    CreateAdministrator: Permission.CHANGE_ADMINISTRATORS,
    UpdateAdministrator: Permission.CHANGE_ADMINISTRATORS,
    RemoveAdministrator: Permission.CHANGE_ADMINISTRATORS,
    RemoveSecondFactor: Permission.CHANGE_ADMINISTRATORS,
    SetSecondFactor: None,  # One's own.
    Approve: Permission.APPROVE,
    Reject: None,  # One's own; of others, apply asks for more.
    ChangePassword: None,  # One's own; of another, apply asks for more.
}
"""The administrators' commands, and what each needs (P1)."""
