# SPDX-License-Identifier: Apache-2.0
"""
Changes of power: credentials, roles, members, keys, what guards them (P7).

A stolen session must not be enough for them. They need a password and a second factor
that the session has shown recently.
"""

from dataclasses import fields

from sparecode_node.domain.agents import Agent, Protects
from sparecode_node.domain.approvals import ApprovalKind
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import HOUR_MS, Policy
from sparecode_node.statemachine import commands
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.pending import from_json
from sparecode_node.statemachine.tables import agents as agent_tables
from sparecode_node.statemachine.tables import allowance_counts
from sparecode_node.statemachine.tables import approvals as approval_tables
from sparecode_node.statemachine.tables import radius as radius_tables
from sparecode_node.statemachine.tables.allowance_counts import Allowance, AllowanceUse

ORDINARY_POLICY_FIELDS = {
    "codes_per_set_default": "only a proposal: who issues codes chooses their number",
    "draft_lifetime_ms": "a draft holds no code, and serves the session that drew it",
    "set_low_threshold": "decides only when a set is reported as low",
    "former_code_retention_ms": "decides only whether an old code counts as a guess",
}
"""
The fields of the policy that guard nothing, with the reason.

Every other field guards power: who may act alone, how long a session lasts, what a guess
costs. A field that is added later counts among those until it is named here.
"""

RESTRICTIONS_PER_HOUR = 10
"""
How often an administrator may restrict agents without a recent password.

Denying a certificate and disabling an agent stop an attack and must be possible at once;
but they also keep users out.
"""

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
            # Else a thief would keep out the owner whom root lets in again.
            | commands.CancelReset()
            | commands.ApproveBrowserLogin()
            | commands.CreateJoinTicket()
            | commands.AddMember()
            | commands.RemoveMember()
            | commands.KeepAuthorities()
            | commands.ReplaceAuthorities()
            | commands.FinishAuthorities()
            | commands.DeclareSegmentsLost()
            # Moving users gives their verifiers away, brings some in, stops service, or
            # deletes them.
            | commands.PrepareMove()
            | commands.FreezeUsers()
            | commands.ExportMovedUsers()
            | commands.ImportMovedUsers()
            | commands.ActivateMove()
            | commands.CancelMove()
            | commands.EndMove()
            | commands.ReclaimMove()
            | commands.DeleteMovedUsers()
            | commands.ConfirmArchive()
            # Else a thief would stop retention until the tapes are read again.
            | commands.WithdrawArchive()
            | commands.ActivateKey()
            | commands.RegisterAgent()
            | commands.AllowCertificate()
            # Disabling stops an attack as well, and can be undone.
            | commands.RemoveAgent()
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
        case commands.DenyCertificate():
            return _restricts_too_much(applying)
        case commands.UpdateAgent():
            return _gives_more(applying, command) or _restricts_too_much(applying)
        case commands.UpdatePolicy():
            return _changes_guard(applying.policy, command)
        case _:
            return False


def _restricts_too_much(applying: Applying) -> bool:
    """Return whether the administrator has used up what a session may do alone."""
    use = AllowanceUse(Allowance.RESTRICT, applying.acting_administrator.name)
    uses = allowance_counts.uses_within(applying.db, use, applying.now_ms, HOUR_MS)
    return uses >= RESTRICTIONS_PER_HOUR


def _gives_more(applying: Applying, command: commands.UpdateAgent) -> bool:
    """Return whether the agent may do more afterwards, or admits more users."""
    agent = agent_tables.find_agent_by_name(applying.db, command.name_key)
    if agent is None:
        return False  # Its handler refuses it.
    return (
        bool(command.add_users or command.add_groups)
        or (command.enabled is True and not agent.enabled)
        or (command.restricted is False and agent.restricted)
        # Through a cloud agent, emergency codes are refused (A4).
        or (command.protects not in (None, Protects.CLOUD, agent.protects))
        or _changes_attributes(applying, agent, command)
    )


def _changes_attributes(
    applying: Applying, agent: Agent, command: commands.UpdateAgent
) -> bool:
    """
    Return whether an Access-Accept says something else afterwards, or no longer.

    A gateway may choose a user's role by it, and only the gateway knows which gives more.
    """
    attributes = radius_tables.find_attributes(applying.db, agent.identity)
    return attributes != attributes.updated(
        filter_id=command.filter_id,
        class_attribute=command.class_attribute,
        session_timeout_s=command.session_timeout_s,
    )


def _changes_guard(policy: Policy, command: commands.UpdatePolicy) -> bool:
    """Return whether the command gives a field that guards power another value."""
    for field in fields(Policy):
        if field.name == "version" or field.name in ORDINARY_POLICY_FIELDS:
            continue
        present = getattr(policy, field.name)
        # A change to "no maximum" is written as 0, which the policy has as None.
        unchanged = (None, 0 if present is None else present)
        if getattr(command, field.name) not in unchanged:
            return True
    return False
