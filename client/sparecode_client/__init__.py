# SPDX-License-Identifier: Apache-2.0
"""
Client of a Sparecode cluster. Any node answers, and a retry never acts twice.

An agent that checks passcodes:

    with Agent(nodes, ca="agents-ca.pem", certificate="vpn.pem", key="vpn.key") as agent:
        if agent.authenticate("alice", passcode).accepted: ...

An administrator who issues emergency codes:

    with Admin(nodes, ca="ca.pem") as admin:
        admin.login("root", password)
        issued = admin.issue_tokencodes("000123456789", lifetime=timedelta(days=7))

`AsyncAgent` and `AsyncAdmin` offer the same to programs with an event loop.
"""

import os

# gRPC reads this variable when it is imported. Keep its INFO lines off the program's
# stderr: if they matter, the library raises an error.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

from sparecode_client.admin import AsyncAdmin
from sparecode_client.agent import AsyncAgent
from sparecode_client.blocking import Admin, Agent, RoutedAgent
from sparecode_client.clusters.agent import AsyncRoutedAgent
from sparecode_client.clusters.slots import SlotTable, SlotTableError, slot_of
from sparecode_client.errors import (
    AlreadyExists,
    ApprovalNeeded,
    InvalidArgument,
    NodeFailed,
    NotFound,
    NotPermitted,
    NotSignedIn,
    OutcomeUnknown,
    Overloaded,
    Refused,
    SparecodeError,
    Unavailable,
)
from sparecode_client.values.administrators import (
    Administrator,
    AdministratorRole,
    EnrolledSecondFactor,
)
from sparecode_client.values.agents import (
    AcceptAttributes,
    AgentKeys,
    AgentProtects,
    DeniedCertificate,
    NewAgentKey,
    NewRadiusSecret,
    RadiusActivity,
    RadiusSettings,
    RegisteredAgent,
    certificate_fingerprint,
)
from sparecode_client.values.approvals import Approval
from sparecode_client.values.audit import (
    AuditEvent,
    AuditExport,
    AuditExportFormat,
    AuditFilter,
    AuditPage,
    ChainVerdict,
    Checkpoint,
)
from sparecode_client.values.authentication import Authentication, Decision
from sparecode_client.values.backups import Backup
from sparecode_client.values.bulk_issue import BulkIssueResult, BulkIssueRow
from sparecode_client.values.cluster import (
    AuditArchive,
    AuditRetention,
    ClusterStatus,
    Member,
    MemberRole,
)
from sparecode_client.values.emergency_access import (
    EmergencyAccess,
    GeneratedTokencodes,
    IssuedFixedTokencode,
    IssuedTokencodes,
    RecoveryPolicy,
    SavedTokencodes,
    Tokencode,
    TokencodeRecord,
    TokencodeSet,
    TokencodeState,
)
from sparecode_client.values.imports import ImportedToken, ImportedUser, TokenFileFormat
from sparecode_client.values.membership import JoinTicket, ListedMember, MemberStanding
from sparecode_client.values.moves import (
    Move,
    MoveFileError,
    MoveKey,
    MoveReceipt,
    MoveState,
    MoveTicket,
)
from sparecode_client.values.policy import Policy, UpdatedPolicy
from sparecode_client.values.results import Commit, Page, ReadPosition
from sparecode_client.values.review import (
    ClusterReview,
    ReviewedAdministrator,
    ReviewedAgent,
    ReviewedCertificate,
    ReviewedRadiusClient,
)
from sparecode_client.values.rotation import RotationPhase, RotationProgress
from sparecode_client.values.sessions import BrowserLogin, OpenSession, Session
from sparecode_client.values.tokens import (
    NewToken,
    PinRule,
    Token,
    TokenAlgorithm,
    TokenFilter,
    TokenHash,
)
from sparecode_client.values.users import Attempt, Blocker, User, UserExplanation

__all__ = [
    "AcceptAttributes",
    "Admin",
    "Administrator",
    "AdministratorRole",
    "Agent",
    "AgentKeys",
    "AgentProtects",
    "AlreadyExists",
    "Approval",
    "ApprovalNeeded",
    "AsyncAdmin",
    "AsyncAgent",
    "AsyncRoutedAgent",
    "Attempt",
    "AuditArchive",
    "AuditEvent",
    "AuditExport",
    "AuditExportFormat",
    "AuditFilter",
    "AuditPage",
    "AuditRetention",
    "Authentication",
    "Backup",
    "Blocker",
    "BrowserLogin",
    "BulkIssueResult",
    "BulkIssueRow",
    "ChainVerdict",
    "Checkpoint",
    "ClusterReview",
    "ClusterStatus",
    "Commit",
    "Decision",
    "DeniedCertificate",
    "EmergencyAccess",
    "EnrolledSecondFactor",
    "GeneratedTokencodes",
    "ImportedToken",
    "ImportedUser",
    "InvalidArgument",
    "IssuedFixedTokencode",
    "IssuedTokencodes",
    "JoinTicket",
    "ListedMember",
    "Member",
    "MemberRole",
    "MemberStanding",
    "Move",
    "MoveFileError",
    "MoveKey",
    "MoveReceipt",
    "MoveState",
    "MoveTicket",
    "NewAgentKey",
    "NewRadiusSecret",
    "NewToken",
    "NodeFailed",
    "NotFound",
    "NotPermitted",
    "NotSignedIn",
    "OpenSession",
    "OutcomeUnknown",
    "Overloaded",
    "Page",
    "PinRule",
    "Policy",
    "RadiusActivity",
    "RadiusSettings",
    "ReadPosition",
    "RecoveryPolicy",
    "Refused",
    "RegisteredAgent",
    "ReviewedAdministrator",
    "ReviewedAgent",
    "ReviewedCertificate",
    "ReviewedRadiusClient",
    "RotationPhase",
    "RotationProgress",
    "RoutedAgent",
    "SavedTokencodes",
    "Session",
    "SlotTable",
    "SlotTableError",
    "SparecodeError",
    "Token",
    "TokenAlgorithm",
    "TokenFileFormat",
    "TokenFilter",
    "TokenHash",
    "Tokencode",
    "TokencodeRecord",
    "TokencodeSet",
    "TokencodeState",
    "Unavailable",
    "UpdatedPolicy",
    "User",
    "UserExplanation",
    "certificate_fingerprint",
    "slot_of",
]
