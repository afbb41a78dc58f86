# SPDX-License-Identifier: Apache-2.0
"""What each command is about, as the audit log names it (U1)."""

import sqlite3
from typing import assert_never

from sparecode_node.domain.users import User
from sparecode_node.statemachine import tables
from sparecode_node.statemachine.commands import (
    AssignToken,
    Authenticate,
    CloseSession,
    Command,
    CreateUser,
    DeleteUser,
    DisableEmergencyAccess,
    EnrollToken,
    InitializeCluster,
    IssueFixedTokencode,
    OpenSession,
    PassBarrier,
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
from sparecode_node.statemachine.commands.authentication import (
    ContinueAuthentication,
)
from sparecode_node.statemachine.commands.backups import (
    CreateBackup,
    NoteBackup,
)
from sparecode_node.statemachine.commands.bulk import (
    IssueTokencodesInBulk,
    RequestBulkIssue,
)
from sparecode_node.statemachine.commands.cluster import (
    AddMember,
    AdmitNode,
    CreateJoinTicket,
    RaiseFeatureLevel,
    RemoveMember,
    TransferPrimary,
)
from sparecode_node.statemachine.commands.epochs import BeginEpoch, OpenCluster
from sparecode_node.statemachine.commands.keys import (
    ActivateKey,
    ReplaceSeals,
    RetireKey,
)
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from sparecode_node.statemachine.commands.refusals import NoteRefusedCalls
from sparecode_node.statemachine.commands.reset import ResetAdministrator
from sparecode_node.statemachine.commands.sessions import TouchSessions
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
from sparecode_node.statemachine.feature_level import tokens_said
from sparecode_node.statemachine.tables import agents as agent_tables
from sparecode_node.statemachine.tables import membership as membership_tables


def target_of(
    db: sqlite3.Connection,
    command: Command,
    level: int,
    person: User | None = None,
) -> str:
    """
    Return the user, token, agent, administrator or cluster that it is about.

    *level*: the feature level. *person*: whom `person_of` has found for it.
    """
    match command:
        case InitializeCluster() | BeginEpoch():
            return command.cluster_id
        case OpenSession():
            # As with users below: what was typed may be a password.
            known = tables.find_administrator(db, command.administrator)
            return known.name if known else "unknown name"
        case CreateUser() | UpdateUser() | DeleteUser() | UnlockUser():
            return command.name_key
        case (
            EnrollToken()
            | AssignToken()
            | UnassignToken()
            | EnableToken()
            | DisableToken()
            | UpdateToken()
            | DeleteToken()
            | ReplaceToken()
            | ResynchronizeToken()
            | ClearPin()
            | SetPin()
            | ReinstateToken()
            | SaveEmergencyAccess()
            | IssueFixedTokencode()
            | IssueTokencodesInBulk()
            | DisableEmergencyAccess()
        ):
            return command.serial
        case (
            CreateAdministrator()
            | UpdateAdministrator()
            | RemoveAdministrator()
            | ChangePassword()
            | SetSecondFactor()
            | RemoveSecondFactor()
            | ResetAdministrator()
        ):
            return command.name
        case TransferPrimary():
            return command.target or ""
        case ActivateKey():
            return f"key {command.fingerprint.hex()}"
        case ReplaceSeals() | RetireKey():
            return f"key {command.key_id}"
        case RaiseFeatureLevel():
            return f"level {command.level}"
        case AdmitNode():
            ticket = membership_tables.find_ticket(db, command.ticket_id)
            return ticket.node_id if ticket else "unknown ticket"
        case CreateJoinTicket() | AddMember() | RemoveMember():
            return command.node_id
        case RequestBulkIssue():
            return tokens_said(len(command.serials), level)
        case Approve() | Reject():
            return f"approval {command.approval_id}"
        case UpdatePolicy():
            return "policy"
        case RegisterAgent():
            return command.identity
        case UpdateAgent() | RemoveAgent():
            # As when it was registered: what is of one agent has one name.
            agent = agent_tables.find_agent_by_name(db, command.name_key)
            return agent.identity if agent else command.name_key
        case DenyCertificate() | AllowCertificate():
            return f"{command.mark} {command.value}"
        case Authenticate() | ContinueAuthentication():
            return _name(command, person)
        case NoteRefusedCalls():
            return command.method
        case (
            CloseSession()
            | TouchSessions()
            | PassBarrier()
            | OpenCluster()
            | CreateBackup()
            | NoteBackup()
        ):
            return ""
        case _ as never:
            assert_never(never)


def person_of(db: sqlite3.Connection, command: Command) -> User | None:
    """Return whose passcode is judged: by the name typed, or by the challenge."""
    match command:
        case Authenticate():
            return tables.find_user_by_tag(db, command.name_tag)
        case ContinueAuthentication(challenge=challenge) if challenge:
            return tables.find_user(db, challenge.user_id)
        case _:
            return None


def _name(command: Authenticate | ContinueAuthentication, person: User | None) -> str:
    if person is not None:
        return person.name_key
    if isinstance(command, Authenticate):
        # People type PINs into the name field: an unknown name is its hash (A6).
        return f"unknown {command.name_tag.hex()}"
    return "unknown"
