# SPDX-License-Identifier: Apache-2.0
"""
Authorization: the caller's session, and whether its role may call a method (P1, P2).

The state machine checks session and role again when it applies a change, by the same
table (`statemachine/commands/permissions.py`). This check answers early, and it is the
only one for reads.
"""

from dataclasses import dataclass
from typing import NoReturn

from sparecode_node.domain.administrators import Permission, Role, may
from sparecode_node.domain.ids import AdministratorName, SessionId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.queries import cluster, sessions
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.replication.errors import RemovedError
from sparecode_node.replication.replicator import Replicator
from sparecode_node.services.access.refusals import NOBODY, Refusals
from sparecode_node.services.access.session_use import SessionUse
from sparecode_node.services.ambient import Clock
from sparecode_node.services.context import CallContext, Deadline, SessionCaller
from sparecode_node.services.errors import (
    NotPermittedError,
    NotSignedInError,
    Refused,
    refusal,
)
from sparecode_node.services.load.rates import Rates
from sparecode_node.services.secrets.sealing import session_id
from sparecode_node.statemachine import commands
from sparecode_node.statemachine.admission import SECOND_FACTOR_REQUIRED
from sparecode_node.statemachine.commands.permissions import PERMISSIONS

_COMMANDS: dict[str, tuple[type[commands.Command], ...]] = {
    "UserService": (
        commands.CreateUser,
        commands.UpdateUser,
        commands.DeleteUser,
        commands.UnlockUser,
    ),
    "TokenService": (
        commands.EnrollToken,
        commands.AssignToken,
        commands.UnassignToken,
        commands.EnableToken,
        commands.DisableToken,
        commands.UpdateToken,
        commands.DeleteToken,
        commands.ReplaceToken,
        commands.ResynchronizeToken,
        commands.ClearPin,
        commands.SetPin,
        commands.ReinstateToken,
    ),
    "EmergencyAccessService": (
        commands.SaveEmergencyAccess,
        commands.IssueFixedTokencode,
        commands.DisableEmergencyAccess,
    ),
    "PolicyService": (commands.UpdatePolicy,),
    "AgentService": (
        commands.RegisterAgent,
        commands.UpdateAgent,
        commands.RemoveAgent,
        commands.DenyCertificate,
        commands.AllowCertificate,
        commands.RegisterRadiusClient,
        commands.UpdateRadiusClient,
        commands.RotateRadiusSecret,
        commands.CreateAgentKey,
    ),
    "MoveService": (
        commands.PrepareMove,
        commands.FreezeUsers,
        commands.ExportMovedUsers,
        commands.ImportMovedUsers,
        commands.ActivateMove,
        commands.CancelMove,
        commands.EndMove,
        commands.ReclaimMove,
        commands.DeleteMovedUsers,
    ),
    "NoticeService": (commands.RemoveChannel, commands.SendNoticesAgain),
    "ClusterService": (
        commands.OpenCluster,
        commands.CreateBackup,
        commands.TransferPrimary,
        commands.CreateJoinTicket,
        commands.AddMember,
        commands.RemoveMember,
        commands.KeepAuthorities,
        commands.DeclareSegmentsLost,
        commands.ConfirmArchive,
        commands.WithdrawArchive,
        commands.ReplaceAuthorities,
    ),
    "AdministratorService": (
        commands.CreateAdministrator,
        commands.UpdateAdministrator,
        commands.RemoveAdministrator,
        commands.ChangePassword,
        commands.RemoveSecondFactor,
        commands.CancelReset,
        commands.Approve,
        commands.Reject,
    ),
}
"""The methods that have the name of their command."""

REGISTER_PASSKEY = "SecurityConsole/RegisterPasskey"
REMOVE_PASSKEY = "SecurityConsole/RemovePasskey"
APPROVE_BROWSER_LOGIN = "SecurityConsole/ApproveBrowserLogin"
REFUSE_BROWSER_LOGIN = "SecurityConsole/RefuseBrowserLogin"
SHOW_ACTIVITY = "SecurityConsole/ShowActivity"
CONSOLE_ONLY = frozenset(
    {
        REGISTER_PASSKEY,
        REMOVE_PASSKEY,
        APPROVE_BROWSER_LOGIN,
        REFUSE_BROWSER_LOGIN,
        SHOW_ACTIVITY,
    }
)
"""
No calls by gRPC: a passkey works in a browser, and an approval belongs there.

Programs have the metrics for what the charts show.
"""

_UNDER_OTHER_NAMES: dict[str, type[commands.Command]] = {
    "SessionService/Logout": commands.CloseSession,
    "SessionService/LogoutEverywhere": commands.CloseSession,
    "SessionService/Reauthenticate": commands.Reauthenticate,
    "SessionService/EndSession": commands.EndSession,
    "AdministratorService/EnrollSecondFactor": commands.SetSecondFactor,
    "AdministratorService/ConfirmSecondFactor": commands.SetSecondFactor,
    REGISTER_PASSKEY: commands.RegisterPasskey,
    REMOVE_PASSKEY: commands.RemovePasskey,
    APPROVE_BROWSER_LOGIN: commands.ApproveBrowserLogin,
    REFUSE_BROWSER_LOGIN: commands.RefuseBrowserLogin,
    "NoticeService/CreateChannel": commands.SaveChannel,
    "NoticeService/UpdateChannel": commands.SaveChannel,
    "ClusterService/RotateKeys": commands.ActivateKey,
    "UserService/ImportUsers": commands.CreateUser,
    "TokenService/ImportTokens": commands.EnrollToken,
    "TokenService/ImportTokenFile": commands.EnrollToken,
    "EmergencyAccessService/GenerateTokencodes": commands.SaveEmergencyAccess,
    "EmergencyAccessService/IssueTokencodes": commands.SaveEmergencyAccess,
    "EmergencyAccessService/BulkIssueTokencodes": commands.IssueTokencodesInBulk,
}

_READS: dict[str, Permission] = {
    "SessionService/WhoAmI": Permission.USE_OWN_ACCOUNT,
    "SessionService/ListSessions": Permission.USE_OWN_ACCOUNT,
    "UserService/GetUser": Permission.READ_USERS,
    "UserService/ListUsers": Permission.READ_USERS,
    "UserService/ExplainUser": Permission.EXPLAIN_USERS,
    "TokenService/GetToken": Permission.READ_USERS,
    "TokenService/ListTokens": Permission.READ_USERS,
    "EmergencyAccessService/GetEmergencyAccess": Permission.READ_USERS,
    "EmergencyAccessService/ListEmergencyAccess": Permission.READ_USERS,
    "AgentService/GetAgent": Permission.READ_AGENTS,
    "AgentService/ListAgents": Permission.READ_AGENTS,
    "AgentService/ListDeniedCertificates": Permission.READ_AGENTS,
    "MoveService/ListMoves": Permission.MOVE_USERS,
    "MoveService/GetMoveKey": Permission.MOVE_USERS,
    "NoticeService/ListChannels": Permission.READ_NOTICES,
    "NoticeService/ListNotices": Permission.READ_NOTICES,
    "NoticeService/PreviewNotices": Permission.READ_NOTICES,
    "NoticeService/TestChannel": Permission.SEND_NOTICES,
    "AdministratorService/ListAdministrators": Permission.READ_ADMINISTRATORS,
    "AdministratorService/ListApprovals": Permission.READ_APPROVALS,
    "PolicyService/GetPolicy": Permission.READ_POLICY,
    "AuditService/ListAuditEvents": Permission.READ_AUDIT,
    "AuditService/ExportAuditEvents": Permission.READ_AUDIT,
    "AuditService/GetCheckpoint": Permission.READ_AUDIT,
    "AuditService/VerifyChain": Permission.READ_AUDIT,
    SHOW_ACTIVITY: Permission.READ_USERS,
    "ClusterService/GetStatus": Permission.READ_CLUSTER,
    "ClusterService/GetReview": Permission.READ_CLUSTER,
    "ClusterService/WatchStatus": Permission.READ_CLUSTER,
    "ClusterService/ListMembers": Permission.READ_CLUSTER,
}

NEEDS: dict[str, Permission] = {
    **{
        f"{service}/{command.__name__}": PERMISSIONS[command]
        for service, proposed in _COMMANDS.items()
        for command in proposed
    },
    **{name: PERMISSIONS[command] for name, command in _UNDER_OTHER_NAMES.items()},
    **_READS,
}
"""The permission of each method. A method not listed is never allowed."""


WITH_TEMPORARY_PASSWORD = frozenset(
    {
        "AdministratorService/ChangePassword",
        "SessionService/Logout",
        "SessionService/LogoutEverywhere",
        "SessionService/Reauthenticate",
        "SessionService/WhoAmI",
    }
)
"""The methods that may be called with a temporary password."""


WITHOUT_REQUIRED_FACTOR = WITH_TEMPORARY_PASSWORD | {
    "AdministratorService/EnrollSecondFactor",
    "AdministratorService/ConfirmSecondFactor",
    REGISTER_PASSKEY,
}
"""The methods without the second factor that the policy requires (P8)."""


WITHOUT_QUORUM = frozenset(
    {
        "ClusterService/GetStatus",
        "ClusterService/WatchStatus",
        "ClusterService/ListMembers",
    }
)
"""Operators need these most during an outage: a session in the local state suffices (P2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An administrator's valid session."""

    session_id: SessionId
    administrator: AdministratorName
    role: Role
    ends_at_ms: int
    idle_ms: int
    """It ends when it was not used for this long."""
    temporary: bool
    """Whether the administrator has to change a temporary password first."""
    lacks_factor: bool
    """Whether it has not shown the second factor that the policy requires (P8)."""


class Authorization:
    """Finds the session of a caller, and checks that its role may call a method."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        refusals: Refusals,
        session_use: SessionUse,
        rates: Rates,
        clock: Clock,
    ) -> None:
        self._replicator = replicator
        self._state = state
        self._refusals = refusals
        self._session_use = session_use
        self._rates = rates
        self._clock = clock

    async def find(self, context: CallContext, deadline: Deadline) -> Session:
        """
        Return the caller's session, if it may call the method.

        A session that this node does not know is looked up again behind a barrier: it
        may have been opened a moment ago on another node.
        Every call takes from the rate of its session, or of its address if this node
        does not know the session (Q3).
        Raises `NotSignedInError`, `NotPermittedError`, `RateError`, `ProposeError`.
        """
        if isinstance(context.caller, SessionCaller):
            async with self._state.transaction() as transaction:
                lookup = await self._look(
                    transaction,
                    context,
                    self._clock.now_ms(),
                    stale=context.method in WITHOUT_QUORUM,
                )
            if lookup.session is not None:
                return self._permitted(context, lookup)
            self._rates.stranger(context.peer)
        else:
            return self._permitted(context, _Lookup(refused=NotSignedInError()))
        passed = await self._replicator.read_barrier(timeout_s=deadline.left_s())
        async with self._state.transaction() as transaction:
            return await self.check(transaction, context, passed.at_ms)

    def need(
        self, context: CallContext, session: Session, permission: Permission, what: str
    ) -> None:
        """
        Refuse a session without a permission that depends on the content of the call (P1).

        *what* the role may not do. Apply checks it again; checked here first, a refused
        caller costs no hash. Raises `NotPermittedError`.
        """
        if not may(session.role, permission):
            words = f"the role {session.role.value} may not {what}"
            self.refuse(context, session, NotPermittedError(words))

    def refuse(
        self, context: CallContext, session: Session, refused: Refused
    ) -> NoReturn:
        """Refuse a call before its command exists, and record it for the audit log (U1)."""
        self._permitted(context, _Lookup(session=session, refused=refused))
        raise refused

    async def check(
        self,
        transaction: ReadTransaction,
        context: CallContext,
        now_ms: int,
        *,
        stale: bool = False,
        counted: bool = False,
    ) -> Session:
        """
        Return the caller's session in a state, if it may call the method.

        *counted*: this is a further read of a call that was counted already.
        *stale*: the call must work without a quorum, and then no use of a session can
        be recorded. So the log's time decides how long the session was unused.
        Raises `NotSignedInError`, `NotPermittedError`, `RateError` and `Refused`
        (`PASSWORD_CHANGE_NEEDED`).
        """
        lookup = await self._look(transaction, context, now_ms, stale=stale)
        if counted and lookup.session is not None and lookup.refused is None:
            return lookup.session
        return self._permitted(context, lookup)

    async def _look(
        self,
        transaction: ReadTransaction,
        context: CallContext,
        now_ms: int,
        *,
        stale: bool,
    ) -> "_Lookup":
        """
        Look up the session, and check that it may call the method.

        Raises `RemovedError` on a removed node: its state ends with the removal.
        """
        if self._replicator.removed:
            raise RemovedError(self._replicator.node_id)
        if not isinstance(context.caller, SessionCaller):
            return _Lookup(refused=NotSignedInError())
        key = session_id(context.caller.bearer, context.client_certificate)
        record = await sessions.find(transaction, key)
        used_until_ms = await cluster.now_ms(transaction) if stale else now_ms
        if (
            record is None
            or record.ends_at_ms <= now_ms
            or record.used_at_ms + record.idle_ms <= used_until_ms
        ):
            return _Lookup(
                refused=NotSignedInError("no such session, or it has ended: sign in")
            )
        self._session_use.record(key, record.used_at_ms)
        session = Session(
            session_id=key,
            administrator=record.administrator,
            role=record.role,
            ends_at_ms=record.ends_at_ms,
            idle_ms=record.idle_ms,
            temporary=record.temporary,
            lacks_factor=record.lacks_factor,
        )
        if not permitted(record.role, context.method):
            refused: Refused = NotPermittedError(
                f"the role {record.role.value} may not call {context.method}"
            )
            return _Lookup(session=session, refused=refused)
        if record.temporary and context.method not in WITH_TEMPORARY_PASSWORD:
            refused = refusal(
                Rejected(
                    Reason.PASSWORD_CHANGE_NEEDED,
                    "the password is temporary: change it first",
                )
            )
            return _Lookup(session=session, refused=refused)
        if record.lacks_factor and context.method not in WITHOUT_REQUIRED_FACTOR:
            refused = refusal(SECOND_FACTOR_REQUIRED)
            return _Lookup(session=session, refused=refused)
        return _Lookup(session=session)

    def _permitted(self, context: CallContext, lookup: "_Lookup") -> Session:
        """
        Return the session, or raise the refusal and record it for the audit log (U1).

        Both take from the rate of the session (Q3).
        """
        session, refused = lookup.session, lookup.refused
        if session is not None:
            self._rates.session(session.session_id)
        if refused is not None or session is None:
            refused = refused or NotSignedInError()
            actor = f"administrator:{session.administrator}" if session else NOBODY
            reason = refused.rejected.reason.value
            self._refusals.record(context.method, reason, actor)
            raise refused
        return session


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lookup:
    """The session, if there is one, and the refusal, if it may not call the method."""

    session: Session | None = None
    refused: Refused | None = None


def permitted(role: Role, method: str) -> bool:
    """Return whether the role may call the method (P1)."""
    return method in NEEDS and may(role, NEEDS[method])
