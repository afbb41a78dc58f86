# SPDX-License-Identifier: Apache-2.0
"""
May this caller do this (P1, P2).

The state machine checks session and role again when a change is applied, by the
table that is used here as well (`statemachine/commands/permissions.py`): here the answer
comes early, and reads have no other check.
"""

from dataclasses import dataclass

from sparecode_node.domain.administrators import Permission, Role, may
from sparecode_node.domain.ids import AdministratorName, SessionId
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.queries import cluster, sessions
from sparecode_node.queries.state import LocalState, ReadTransaction
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
from sparecode_node.services.secrets.sealing import session_id
from sparecode_node.statemachine import commands
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
    ),
    "ClusterService": (
        commands.OpenCluster,
        commands.CreateBackup,
        commands.TransferPrimary,
        commands.CreateJoinTicket,
        commands.AddMember,
        commands.RemoveMember,
    ),
    "AdministratorService": (
        commands.CreateAdministrator,
        commands.UpdateAdministrator,
        commands.RemoveAdministrator,
        commands.ChangePassword,
        commands.RemoveSecondFactor,
        commands.Approve,
        commands.Reject,
    ),
}
"""Methods with the name of the command that they propose."""

_UNDER_OTHER_NAMES: dict[str, type[commands.Command]] = {
    "SessionService/Logout": commands.CloseSession,
    "SessionService/LogoutEverywhere": commands.CloseSession,
    "AdministratorService/EnrollSecondFactor": commands.SetSecondFactor,
    "AdministratorService/ConfirmSecondFactor": commands.SetSecondFactor,
    "ClusterService/RotateKeys": commands.ActivateKey,
    "UserService/ImportUsers": commands.CreateUser,
    "TokenService/ImportTokens": commands.EnrollToken,
    "TokenService/ImportTokenFile": commands.EnrollToken,
    "EmergencyAccessService/GenerateTokencodes": commands.SaveEmergencyAccess,
    "EmergencyAccessService/IssueTokencodes": commands.SaveEmergencyAccess,
    "EmergencyAccessService/BulkIssueTokencodes": commands.IssueTokencodesInBulk,
}

_READS: dict[str, Permission | None] = {
    "SessionService/WhoAmI": None,
    "UserService/GetUser": Permission.READ_USERS,
    "UserService/ListUsers": Permission.READ_USERS,
    "TokenService/GetToken": Permission.READ_USERS,
    "TokenService/ListTokens": Permission.READ_USERS,
    "EmergencyAccessService/GetEmergencyAccess": Permission.READ_USERS,
    "EmergencyAccessService/ListEmergencyAccess": Permission.READ_USERS,
    "AgentService/GetAgent": Permission.READ_AGENTS,
    "AgentService/ListAgents": Permission.READ_AGENTS,
    "AgentService/ListDeniedCertificates": Permission.READ_AGENTS,
    "AdministratorService/ListAdministrators": Permission.READ_ADMINISTRATORS,
    "AdministratorService/ListApprovals": Permission.READ_APPROVALS,
    "PolicyService/GetPolicy": Permission.READ_POLICY,
    "AuditService/ListAuditEvents": Permission.READ_AUDIT,
    "AuditService/ExportAuditEvents": Permission.READ_AUDIT,
    "AuditService/GetCheckpoint": Permission.READ_AUDIT,
    "AuditService/VerifyChain": Permission.READ_AUDIT,
    "ClusterService/GetStatus": Permission.READ_CLUSTER,
    "ClusterService/GetReview": Permission.READ_CLUSTER,
    "ClusterService/WatchStatus": Permission.READ_CLUSTER,
    "ClusterService/ListMembers": Permission.READ_CLUSTER,
}

NEEDS: dict[str, Permission | None] = {
    **{
        f"{service}/{command.__name__}": PERMISSIONS[command]
        for service, proposed in _COMMANDS.items()
        for command in proposed
    },
    **{name: PERMISSIONS[command] for name, command in _UNDER_OTHER_NAMES.items()},
    **_READS,
}
"""What a method needs; None: a session. What is not here is permitted to nobody."""


WITH_TEMPORARY_PASSWORD = frozenset(
    {
        "AdministratorService/ChangePassword",
        "SessionService/Logout",
        "SessionService/LogoutEverywhere",
        "SessionService/WhoAmI",
    }
)
"""All that may be called with a password that somebody else chose."""


WITHOUT_QUORUM = frozenset(
    {
        "ClusterService/GetStatus",
        "ClusterService/WatchStatus",
        "ClusterService/ListMembers",
    }
)
"""What has to be seen most when little works: a session of the local state will do (P2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """An administrator's session, found valid."""

    session_id: SessionId
    administrator: AdministratorName
    role: Role
    ends_at_ms: int


class Authorization:
    """Finds out who holds a session, and whether their role may call a method."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        refusals: Refusals,
        session_use: SessionUse,
        clock: Clock,
    ) -> None:
        self._replicator = replicator
        self._state = state
        self._refusals = refusals
        self._session_use = session_use
        self._clock = clock

    async def find(self, context: CallContext, deadline: Deadline) -> Session:
        """
        Return the caller's session, if it may call the method.

        A session that this node does not know yet is looked for behind a
        barrier: it may have been opened a moment ago on another node.
        Raises `NotSignedInError`, `NotPermittedError`, `ProposeError`.
        """
        if isinstance(context.caller, SessionCaller):
            async with self._state.transaction() as transaction:
                found = await self._look(
                    transaction,
                    context,
                    self._clock.now_ms(),
                    stale=context.method in WITHOUT_QUORUM,
                )
            if not isinstance(found.refused, NotSignedInError):
                return self._settled(context, found)
        else:
            return self._settled(context, _Found(refused=NotSignedInError()))
        passed = await self._replicator.read_barrier(timeout_s=deadline.left_s())
        async with self._state.transaction() as transaction:
            return await self.check(transaction, context, passed.at_ms)

    async def check(
        self,
        transaction: ReadTransaction,
        context: CallContext,
        now_ms: int,
        *,
        stale: bool = False,
    ) -> Session:
        """
        Return the caller's session in a state, if it may call the method.

        *stale*: it has to work without a quorum, where nobody can say that a session
        is used. So the log's time tells how long it was not.
        Raises `NotSignedInError`, `NotPermittedError` and `Refused`
        (`PASSWORD_CHANGE_NEEDED`).
        """
        found = await self._look(transaction, context, now_ms, stale=stale)
        return self._settled(context, found)

    async def _look(
        self,
        transaction: ReadTransaction,
        context: CallContext,
        now_ms: int,
        *,
        stale: bool,
    ) -> "_Found":
        """Look a session up, and whether it may call the method."""
        if not isinstance(context.caller, SessionCaller):
            return _Found(refused=NotSignedInError())
        key = session_id(context.caller.bearer)
        found = await sessions.find(transaction, key)
        used_until_ms = await cluster.now_ms(transaction) if stale else now_ms
        if (
            found is None
            or found.ends_at_ms <= now_ms
            or found.unused_end_ms <= used_until_ms
        ):
            return _Found(
                refused=NotSignedInError("no such session, or it has ended: sign in")
            )
        self._session_use.saw(key, found.used_at_ms)
        session = Session(
            session_id=key,
            administrator=found.administrator,
            role=found.role,
            ends_at_ms=found.ends_at_ms,
        )
        if not permitted(found.role, context.method):
            refused: Refused = NotPermittedError(
                f"the role {found.role.value} may not call {context.method}"
            )
            return _Found(session=session, refused=refused)
        if found.temporary and context.method not in WITH_TEMPORARY_PASSWORD:
            refused = refusal(
                Rejected(
                    Reason.PASSWORD_CHANGE_NEEDED,
                    "the password is a temporary one: change it first",
                )
            )
            return _Found(session=session, refused=refused)
        return _Found(session=session)

    def _settled(self, context: CallContext, found: "_Found") -> Session:
        """Return the session, or raise why not, which the audit log is to say (U1)."""
        session, refused = found.session, found.refused
        if refused is not None or session is None:
            refused = refused or NotSignedInError()
            actor = f"administrator:{session.administrator}" if session else NOBODY
            reason = refused.rejected.reason.value
            self._refusals.record(context.method, reason, actor)
            raise refused
        return session


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """A session, if there is one, and why it may not call the method, if it may not."""

    session: Session | None = None
    refused: Refused | None = None


def permitted(role: Role, method: str) -> bool:
    """Say whether the role may call the method (P1)."""
    if method not in NEEDS:
        return False
    permission = NEEDS[method]
    return permission is None or may(role, permission)
