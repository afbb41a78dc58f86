# SPDX-License-Identifier: Apache-2.0
"""
Every replicated command: one frozen value each, named in the imperative.

A command carries all that its decision needs and no clear secret: candidates
and verifiers instead of PINs, codes and passwords, sealed seeds instead of
seeds (T1-T3). Class names, field names and their meanings are on disk: never
change them. A new meaning is a new field, with a default that keeps the decision
on older entries. `replication/codec.py` maps them to protobuf by name.

Import this package and write `commands.AssignToken`. A new command is added to
`Command` here, to `dispatch.py`, and to `permissions.py` if administrators call it.
"""

from dataclasses import dataclass

from sparecode_node.domain.ids import NO_SESSION, NodeId, RequestId, SessionId
from sparecode_node.statemachine.commands.administrators import (
    ChangePassword,
    CreateAdministrator,
    RemoveAdministrator,
    UpdateAdministrator,
)
from sparecode_node.statemachine.commands.agents import (
    AllowCertificate,
    CreateAgentKey,
    DenyCertificate,
    RegisterAgent,
    RemoveAgent,
    UpdateAgent,
)
from sparecode_node.statemachine.commands.alarms import RaiseAlarm
from sparecode_node.statemachine.commands.approvals import (
    Approve,
    Reject,
)
from sparecode_node.statemachine.commands.authentication import (
    Authenticate,
    ContinueAuthentication,
)
from sparecode_node.statemachine.commands.browser_logins import (
    ApproveBrowserLogin,
    CollectBrowserLogin,
    RefuseBrowserLogin,
    StartBrowserLogin,
)
from sparecode_node.statemachine.commands.cluster import (
    CreateBackup,
    InitializeCluster,
    NoteBackup,
    NoteRefusedCalls,
    NoteSkipStatement,
    PassBarrier,
    RaiseFeatureLevel,
    TransferPrimary,
)
from sparecode_node.statemachine.commands.emergency_access import (
    DisableEmergencyAccess,
    IssueFixedTokencode,
    IssueTokencodesInBulk,
    NoteEndedSets,
    NoteSealedCodes,
    OpenSealedCodes,
    ReinstateToken,
    RequestBulkIssue,
    SaveEmergencyAccess,
)
from sparecode_node.statemachine.commands.epochs import BeginEpoch, OpenCluster
from sparecode_node.statemachine.commands.keys import (
    ActivateDueKey,
    ActivateKey,
    ReplaceSeals,
    RetireKey,
)
from sparecode_node.statemachine.commands.membership import (
    AddMember,
    AdmitNode,
    AnnounceAuthority,
    CreateJoinTicket,
    FinishAuthorities,
    KeepAuthorities,
    NoteAuthorityKeys,
    NoteMemberKey,
    RemoveMember,
    RenewCertificate,
    ReplaceAuthorities,
    RetireAuthority,
)
from sparecode_node.statemachine.commands.moves import (
    ActivateMove,
    CancelMove,
    DeleteMovedUsers,
    EndMove,
    ExportMovedUsers,
    FreezeUsers,
    ImportMovedUsers,
    PrepareMove,
    ReclaimMove,
)
from sparecode_node.statemachine.commands.notices import (
    AcknowledgeNotices,
    FailNotices,
    RemoveChannel,
    SaveChannel,
    SendNoticesAgain,
)
from sparecode_node.statemachine.commands.policy import UpdatePolicy
from sparecode_node.statemachine.commands.radius import (
    RegisterRadiusClient,
    RotateRadiusSecret,
    UpdateRadiusClient,
)
from sparecode_node.statemachine.commands.resets import CancelReset, ResetAdministrator
from sparecode_node.statemachine.commands.second_factors import (
    RegisterPasskey,
    RemovePasskey,
    RemoveSecondFactor,
    SetSecondFactor,
)
from sparecode_node.statemachine.commands.segments import (
    ConfirmArchive,
    DeclareSegmentsLost,
    NoteArchive,
    NoteSegments,
    RemoveSegments,
    WithdrawArchive,
)
from sparecode_node.statemachine.commands.sessions import (
    CloseSession,
    EndSession,
    OpenSession,
    Reauthenticate,
    TouchSessions,
)
from sparecode_node.statemachine.commands.tokens import (
    AssignToken,
    ClearPin,
    DeleteToken,
    DisableToken,
    EnableToken,
    EnrollToken,
    ReplaceToken,
    ResynchronizeToken,
    SetPin,
    UnassignToken,
    UpdateToken,
)
from sparecode_node.statemachine.commands.users import (
    CreateUser,
    DeleteUser,
    UnlockUser,
    UpdateUser,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """Identifies one request of one caller (Q1)."""

    caller: str
    """`agent:IDENTITY`, `administrator:NAME` or `node:ID`, as authenticated."""
    method: str
    """For example `EmergencyAccessService/IssueTokencodes`."""
    request_id: RequestId
    tag: int
    """32-bit keyed tag of the request's fields. A known id with another tag is refused."""
    other_tags: tuple[int, ...] = ()
    """The tags under earlier keys, so that retries across a rotation are recognized."""


Command = (
    InitializeCluster
    | BeginEpoch
    | OpenCluster
    | RaiseFeatureLevel
    | TransferPrimary
    | CreateJoinTicket
    | AdmitNode
    | AddMember
    | RemoveMember
    | RenewCertificate
    | NoteAuthorityKeys
    | NoteMemberKey
    | RetireAuthority
    | KeepAuthorities
    | ReplaceAuthorities
    | AnnounceAuthority
    | FinishAuthorities
    | PrepareMove
    | FreezeUsers
    | ExportMovedUsers
    | ImportMovedUsers
    | ActivateMove
    | CancelMove
    | EndMove
    | ReclaimMove
    | DeleteMovedUsers
    | NoteSegments
    | DeclareSegmentsLost
    | NoteArchive
    | ConfirmArchive
    | WithdrawArchive
    | RemoveSegments
    | CreateBackup
    | NoteBackup
    | NoteRefusedCalls
    | NoteSkipStatement
    | PassBarrier
    | OpenSession
    | Reauthenticate
    | EndSession
    | CloseSession
    | TouchSessions
    | StartBrowserLogin
    | ApproveBrowserLogin
    | RefuseBrowserLogin
    | CollectBrowserLogin
    | CreateUser
    | UpdateUser
    | DeleteUser
    | UnlockUser
    | EnrollToken
    | AssignToken
    | UnassignToken
    | EnableToken
    | DisableToken
    | UpdateToken
    | DeleteToken
    | ReplaceToken
    | ResynchronizeToken
    | SetPin
    | ClearPin
    | ReinstateToken
    | SaveEmergencyAccess
    | IssueFixedTokencode
    | IssueTokencodesInBulk
    | RequestBulkIssue
    | DisableEmergencyAccess
    | OpenSealedCodes
    | NoteSealedCodes
    | NoteEndedSets
    | RaiseAlarm
    | Authenticate
    | ContinueAuthentication
    | RegisterAgent
    | UpdateAgent
    | RemoveAgent
    | DenyCertificate
    | AllowCertificate
    | RegisterRadiusClient
    | UpdateRadiusClient
    | RotateRadiusSecret
    | CreateAgentKey
    | SaveChannel
    | RemoveChannel
    | AcknowledgeNotices
    | FailNotices
    | SendNoticesAgain
    | CreateAdministrator
    | UpdateAdministrator
    | RemoveAdministrator
    | ChangePassword
    | SetSecondFactor
    | RemoveSecondFactor
    | RegisterPasskey
    | RemovePasskey
    | ResetAdministrator
    | CancelReset
    | Approve
    | Reject
    | UpdatePolicy
    | ActivateDueKey
    | ActivateKey
    | ReplaceSeals
    | RetireKey
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One caller's command as it enters the log: the request, the node, and the time."""

    command: Command
    request: RequestKey
    node_id: NodeId
    """The node that was called."""
    session_id: SessionId
    """The administrator's session; empty for agents and nodes."""
    at_ms: int
    """The primary's time (T1)."""
    monotonic_ms: int = 0
    """
    The primary's monotonic time, on one scale for all primaries: what the state had
    reached, and the time since then (Q3). 0: unknown. From feature level 2 on.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class UnstampedCall:
    """
    One caller's command on its way to the primary.

    It has no time, and its command has no matches of tokencodes: the primary alone
    adds both (T1).
    """

    command: Command
    request: RequestKey
    node_id: NodeId
    """The node that was called."""
    session_id: SessionId = NO_SESSION
    """The administrator's session; empty for agents and nodes."""

    @classmethod
    def of_node(
        cls, node_id: NodeId, command: Command, request_id: RequestId
    ) -> "UnstampedCall":
        """Return the call of a node on its own behalf. Its id alone identifies it."""
        return cls(
            command=command,
            request=RequestKey(
                caller=f"node:{node_id}",
                method=type(command).__name__,
                request_id=request_id,
                tag=0,
            ),
            node_id=node_id,
        )

    def stamped(
        self, at_ms: int, command: Command | None = None, *, monotonic_ms: int = 0
    ) -> Call:
        """Return the call at the primary's time; *command*: with its matches."""
        return Call(
            command=self.command if command is None else command,
            request=self.request,
            node_id=self.node_id,
            session_id=self.session_id,
            at_ms=at_ms,
            monotonic_ms=monotonic_ms,
        )
