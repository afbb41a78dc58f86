# SPDX-License-Identifier: Apache-2.0
"""The target of each command, as named in the audit log (U1)."""

import sqlite3

from sparecode_node.domain.ids import PUBLIC_SESSION_DIGITS
from sparecode_node.domain.notices import channel_target
from sparecode_node.domain.outcomes import plural
from sparecode_node.domain.radius import radius_identity
from sparecode_node.domain.users import User
from sparecode_node.statemachine import commands
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import agents as agent_tables
from sparecode_node.statemachine.tables import browser_logins as login_tables
from sparecode_node.statemachine.tables import emergency_access as code_tables
from sparecode_node.statemachine.tables import membership as membership_tables
from sparecode_node.statemachine.tables import sealed_codes as sealed_code_tables
from sparecode_node.statemachine.tables import users as user_tables

TARGET_FIELDS = ("serial", "name_key", "name", "node_id")
"""The first of these fields that a command has is its target, unless stated below."""


def target_of(
    db: sqlite3.Connection,
    command: commands.Command,
    person: User | None = None,
) -> str:
    """
    Return the user, token, agent, administrator, member or cluster of a command.

    *person*: the user that `person_of` found. Empty: the command has no target.
    """
    match command:
        case commands.InitializeCluster() | commands.BeginEpoch():
            return command.cluster_id
        case commands.OpenSession():
            # As with users below, the text may be a password in the wrong field.
            known = administrator_tables.find_administrator(db, command.administrator)
            return known.name if known else "unknown name"
        case commands.EndSession():
            return f"session {command.session_id[:PUBLIC_SESSION_DIGITS]}"
        case commands.Reauthenticate() | commands.CollectBrowserLogin():
            return command.administrator
        case commands.ApproveBrowserLogin() | commands.RefuseBrowserLogin():
            login = login_tables.find(db, command.login_id, now_ms=0)
            return login.administrator if login else "unknown code"
        case commands.OpenSealedCodes():
            sealed = sealed_code_tables.by_opener(db, command.opener)
            found = code_tables.find_set(db, sealed.set_id) if sealed else None
            return found.serial if found else "unknown link"
        case commands.RaiseAlarm():
            user = user_tables.find_user(db, command.user_id)
            return user.name_key if user else "unknown user"
        case commands.TransferPrimary():
            return command.target or ""
        case commands.ActivateKey():
            return f"key {command.fingerprint.hex()}"
        case commands.ReplaceSeals() | commands.RetireKey():
            return f"key {command.key_id}"
        case commands.RaiseFeatureLevel():
            return f"level {command.level}"
        case commands.RetireAuthority():
            return f"{command.authority} {command.fingerprint}"
        case commands.AdmitNode():
            ticket = membership_tables.find_ticket(db, command.ticket_id)
            return ticket.node_id if ticket else "unknown ticket"
        case commands.RequestBulkIssue():
            return plural(len(command.serials), "token")
        case commands.Approve() | commands.Reject():
            return f"approval {command.approval_id}"
        case commands.UpdatePolicy():
            return "policy"
        case commands.RegisterAgent():
            return command.identity
        case (
            commands.UpdateAgent() | commands.RemoveAgent() | commands.CreateAgentKey()
        ):
            # As at its registration: all events of an agent have one target.
            agent = agent_tables.find_agent_by_name(db, command.name_key)
            return agent.identity if agent else command.name_key
        case (
            commands.RegisterRadiusClient()
            | commands.UpdateRadiusClient()
            | commands.RotateRadiusSecret()
        ):
            return radius_identity(command.name_key)
        case (
            commands.SaveChannel()
            | commands.RemoveChannel()
            | commands.AcknowledgeNotices()
            | commands.FailNotices()
            | commands.SendNoticesAgain()
        ):
            return channel_target(command.channel)
        case (
            commands.PrepareMove()
            | commands.FreezeUsers()
            | commands.ExportMovedUsers()
            | commands.ImportMovedUsers()
            | commands.ActivateMove()
            | commands.CancelMove()
            | commands.EndMove()
            | commands.ReclaimMove()
            | commands.DeleteMovedUsers()
        ):
            return f"move {command.move_id}"
        case commands.DeclareSegmentsLost():
            return f"audit segments {command.first} to {command.last}"
        case commands.ConfirmArchive():
            return f"audit segments {command.first} to {command.last}"
        case commands.WithdrawArchive():
            return f"audit archive of administrator {command.administrator}"
        case commands.RemoveSegments():
            return f"audit segments up to {command.through}"
        case commands.DenyCertificate() | commands.AllowCertificate():
            return f"{command.mark} {command.value}"
        case commands.Authenticate() | commands.ContinueAuthentication():
            return _name(command, person)
        case commands.NoteRefusedCalls():
            return command.method
        case commands.NoteSkipStatement():
            return f"entry {command.index}"
    for field in TARGET_FIELDS:
        if hasattr(command, field):
            return str(getattr(command, field))
    return ""


def person_of(db: sqlite3.Connection, command: commands.Command) -> User | None:
    """Return the user whose passcode is judged, by the typed name or the challenge."""
    match command:
        case commands.Authenticate():
            return user_tables.find_user_by_tag(db, command.name_tag)
        case commands.ContinueAuthentication(challenge=challenge) if challenge:
            return user_tables.find_user(db, challenge.user_id)
        case _:
            return None


def _name(
    command: commands.Authenticate | commands.ContinueAuthentication,
    person: User | None,
) -> str:
    if person is not None:
        return person.name_key
    if isinstance(command, commands.Authenticate):
        # People type PINs into the name field, so record unknown names as tags (A6).
        return f"unknown {command.name_tag.hex()}"
    return "unknown"
