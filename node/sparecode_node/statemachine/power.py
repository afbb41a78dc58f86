# SPDX-License-Identifier: Apache-2.0
"""
Changes of power: credentials, roles, members, keys, backup recipients (P7).

A stolen session must not be enough for them. They need a password and a second factor
that the session has shown recently.
"""

from sparecode_node.domain.approvals import ApprovalKind
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine import commands
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.pending import from_json
from sparecode_node.statemachine.tables import approvals as approval_tables

POLICY_FIELDS = (
    "backup_recipients",
    "administrators_second_factor",
    "passkey_domain",
    # What follows a removal: a thief must not leave keys in force.
    "rotate_after_removal",
    "authorities_due_after_removal",
    "replace_authorities_after_removal",
)
"""The fields of the policy whose change is a change of power."""

REAUTHENTICATION_NEEDED = Rejected(
    Reason.REAUTHENTICATION_NEEDED,
    "this needs your password, and your second factor if you have one, within the last "
    "five minutes: confirm that it is you",
)


def changes_power(applying: Applying) -> bool:
    """Return whether the command, or the request that it approves, changes power."""
    command = applying.call.command
    if not isinstance(command, commands.Approve):
        return _changes_power(applying, command)
    approval = approval_tables.find(applying.db, command.approval_id)
    if approval is None:
        return False
    if approval.kind is ApprovalKind.CHANGE:
        return _changes_power(applying, from_json(approval.change))
    return approval.kind is ApprovalKind.TICKET


def _changes_power(applying: Applying, command: commands.Command) -> bool:
    match command:
        case (
            commands.CreateAdministrator()
            | commands.UpdateAdministrator()
            | commands.RemoveAdministrator()
            | commands.ChangePassword()
            | commands.SetSecondFactor()
            | commands.RemoveSecondFactor()
            | commands.RegisterPasskey()
            | commands.RemovePasskey()
            | commands.ApproveBrowserLogin()
            | commands.CreateJoinTicket()
            | commands.AddMember()
            | commands.RemoveMember()
            | commands.KeepAuthorities()
            | commands.ReplaceAuthorities()
            | commands.FinishAuthorities()
            | commands.ActivateKey()
            # A secret or a key, and who may use it, open the door of agents.
            | commands.RegisterRadiusClient()
            | commands.UpdateRadiusClient()
            | commands.RotateRadiusSecret()
            | commands.CreateAgentKey()
            # A channel tells other systems who signs in, and warns of a thief.
            | commands.SaveChannel()
            | commands.RemoveChannel()
        ):
            return True
        case commands.CloseSession():
            # Else a thief would end the owner's sessions with those.
            return command.everywhere
        case commands.EndSession():
            # Else a thief could keep ending the owner's sessions (ASVS 5.0, V7.5.2).
            return command.session_id != applying.call.session_id
        case commands.UpdatePolicy():
            return any(
                getattr(command, field) not in (None, getattr(applying.policy, field))
                for field in POLICY_FIELDS
            )
        case _:
            return False
