# SPDX-License-Identifier: Apache-2.0
"""
The permission that each administrator command needs: the only table of them (P1).

Apply checks it, and services derive the permission of each method from it. See
`domain/administrators.py` for the permissions of each role.
"""

from sparecode_node.domain.administrators import Permission
from sparecode_node.statemachine import commands

PERMISSIONS: dict[type[commands.Command], Permission] = {
    commands.CloseSession: Permission.USE_OWN_ACCOUNT,
    commands.Reauthenticate: Permission.USE_OWN_ACCOUNT,
    commands.EndSession: Permission.USE_OWN_ACCOUNT,
    commands.ApproveBrowserLogin: Permission.USE_OWN_ACCOUNT,
    commands.RefuseBrowserLogin: Permission.USE_OWN_ACCOUNT,
    commands.CreateUser: Permission.CHANGE_USERS,
    commands.UpdateUser: Permission.CHANGE_USERS,
    commands.DeleteUser: Permission.CHANGE_USERS,
    commands.UnlockUser: Permission.UNLOCK_USERS,
    commands.EnrollToken: Permission.CHANGE_TOKENS,
    commands.AssignToken: Permission.CHANGE_TOKENS,
    commands.UnassignToken: Permission.CHANGE_TOKENS,
    commands.EnableToken: Permission.CHANGE_TOKENS,
    commands.DisableToken: Permission.CHANGE_TOKENS,
    commands.UpdateToken: Permission.CHANGE_TOKENS,
    commands.DeleteToken: Permission.CHANGE_TOKENS,
    commands.ReplaceToken: Permission.CHANGE_TOKENS,
    commands.ResynchronizeToken: Permission.CHANGE_TOKENS,
    commands.ClearPin: Permission.CLEAR_PINS,
    commands.SetPin: Permission.CHANGE_TOKENS,
    commands.ReinstateToken: Permission.CHANGE_TOKENS,
    commands.SaveEmergencyAccess: Permission.ISSUE_EMERGENCY_ACCESS,
    commands.IssueFixedTokencode: Permission.ISSUE_EMERGENCY_ACCESS,
    commands.IssueTokencodesInBulk: Permission.ISSUE_EMERGENCY_ACCESS,
    commands.RequestBulkIssue: Permission.ISSUE_EMERGENCY_ACCESS,
    commands.DisableEmergencyAccess: Permission.ISSUE_EMERGENCY_ACCESS,
    commands.UpdatePolicy: Permission.CHANGE_POLICY,
    commands.RegisterAgent: Permission.CHANGE_AGENTS,
    commands.UpdateAgent: Permission.CHANGE_AGENTS,
    commands.RemoveAgent: Permission.CHANGE_AGENTS,
    commands.DenyCertificate: Permission.CHANGE_AGENTS,
    commands.AllowCertificate: Permission.CHANGE_AGENTS,
    commands.RegisterRadiusClient: Permission.CHANGE_AGENTS,
    commands.UpdateRadiusClient: Permission.CHANGE_AGENTS,
    commands.RotateRadiusSecret: Permission.CHANGE_AGENTS,
    commands.CreateAgentKey: Permission.CHANGE_AGENTS,
    commands.SaveChannel: Permission.CHANGE_CHANNELS,
    commands.RemoveChannel: Permission.CHANGE_CHANNELS,
    commands.SendNoticesAgain: Permission.SEND_NOTICES,
    commands.TransferPrimary: Permission.CHANGE_CLUSTER,
    commands.OpenCluster: Permission.CHANGE_CLUSTER,
    commands.ActivateKey: Permission.ROTATE_KEYS,
    commands.CreateBackup: Permission.CREATE_BACKUPS,
    commands.CreateJoinTicket: Permission.ADMIT_MEMBERS,
    commands.AddMember: Permission.ADMIT_MEMBERS,
    commands.RemoveMember: Permission.REMOVE_MEMBERS,
    commands.KeepAuthorities: Permission.ROTATE_KEYS,
    commands.ReplaceAuthorities: Permission.ROTATE_KEYS,
    commands.FinishAuthorities: Permission.ROTATE_KEYS,
    commands.DeclareSegmentsLost: Permission.REMOVE_MEMBERS,
    commands.CreateAdministrator: Permission.CHANGE_ADMINISTRATORS,
    commands.UpdateAdministrator: Permission.CHANGE_ADMINISTRATORS,
    commands.RemoveAdministrator: Permission.CHANGE_ADMINISTRATORS,
    commands.CancelReset: Permission.CHANGE_ADMINISTRATORS,
    commands.RemoveSecondFactor: Permission.CHANGE_ADMINISTRATORS,
    commands.SetSecondFactor: Permission.USE_OWN_ACCOUNT,
    commands.RegisterPasskey: Permission.USE_OWN_ACCOUNT,
    commands.RemovePasskey: Permission.USE_OWN_ACCOUNT,
    commands.Approve: Permission.APPROVE,
    commands.Reject: Permission.REJECT,  # Apply checks more for others' requests.
    commands.ChangePassword: Permission.USE_OWN_ACCOUNT,  # More for another's: apply.
}
"""The commands of administrators, each with the permission that it needs (P1)."""
