# SPDX-License-Identifier: Apache-2.0
"""Every method of the contract, for every role and for none (P1)."""

import uuid
from dataclasses import replace

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.access.authorization import (
    CONSOLE_ONLY,
    NEEDS,
    WITH_TEMPORARY_PASSWORD,
)
from sparecode_node.services.context import Anonymous, SessionCaller
from sparecode_node.services.errors import (
    NotPermittedError,
    NotSignedInError,
    Refused,
)
from tests.rpc.contract import public
from tests.services.one_node import OneNode

pytestmark = pytest.mark.asyncio

ROLES = {
    "S": Role.SUPER_ADMIN,
    "H": Role.HELP_DESK,
    "A": Role.AUDITOR,
    "O": Role.OPERATOR,
}
WITHOUT_SESSION = {
    "AuthenticationService/Authenticate",
    "AuthenticationService/ContinueAuthentication",
    "SessionService/Login",
    "SessionService/StartBrowserLogin",
    "SessionService/CollectBrowserLogin",
}
"""An agent has its certificate instead; who signs in has no session yet."""

MATRIX = {
    "AdministratorService/Approve": "S",
    "AdministratorService/CancelReset": "S",
    "AdministratorService/ChangePassword": "SHAO",
    "AdministratorService/ConfirmSecondFactor": "SHAO",
    "AdministratorService/CreateAdministrator": "S",
    "AdministratorService/EnrollSecondFactor": "SHAO",
    "AdministratorService/ListAdministrators": "SA",
    "AdministratorService/ListApprovals": "SHA",
    "AdministratorService/Reject": "SHO",
    "AdministratorService/RemoveAdministrator": "S",
    "AdministratorService/RemoveSecondFactor": "S",
    "AdministratorService/UpdateAdministrator": "S",
    "AgentService/AllowCertificate": "S",
    "AgentService/DenyCertificate": "S",
    "AgentService/GetAgent": "SA",
    "AgentService/ListAgents": "SA",
    "AgentService/ListDeniedCertificates": "SA",
    "AgentService/RegisterAgent": "S",
    "AgentService/RegisterRadiusClient": "S",
    "AgentService/RemoveAgent": "S",
    "AgentService/RotateRadiusSecret": "S",
    "AgentService/CreateAgentKey": "S",
    "AgentService/UpdateAgent": "S",
    "AgentService/UpdateRadiusClient": "S",
    "MoveService/ActivateMove": "S",
    "MoveService/CancelMove": "S",
    "MoveService/DeleteMovedUsers": "S",
    "MoveService/EndMove": "S",
    "MoveService/ExportMovedUsers": "S",
    "MoveService/FreezeUsers": "S",
    "MoveService/GetMoveKey": "S",
    "MoveService/ImportMovedUsers": "S",
    "MoveService/ListMoves": "S",
    "MoveService/PrepareMove": "S",
    "MoveService/ReclaimMove": "S",
    "NoticeService/CreateChannel": "S",
    "NoticeService/ListChannels": "SAO",
    "NoticeService/ListNotices": "SAO",
    "NoticeService/PreviewNotices": "SAO",
    "NoticeService/RemoveChannel": "S",
    "NoticeService/SendNoticesAgain": "SO",
    "NoticeService/TestChannel": "SO",
    "NoticeService/UpdateChannel": "S",
    "AuditService/ExportAuditEvents": "SA",
    "AuditService/GetCheckpoint": "SA",
    "AuditService/ListAuditEvents": "SA",
    "AuditService/VerifyChain": "SA",
    "ClusterService/CreateBackup": "SO",
    "ClusterService/GetReview": "SAO",
    "ClusterService/GetStatus": "SAO",
    "ClusterService/OpenCluster": "SO",
    "ClusterService/AddMember": "S",
    "ClusterService/CreateJoinTicket": "S",
    "ClusterService/KeepAuthorities": "S",
    "ClusterService/ConfirmArchive": "S",
    "ClusterService/WithdrawArchive": "S",
    "ClusterService/DeclareSegmentsLost": "S",
    "ClusterService/ReplaceAuthorities": "S",
    "ClusterService/ListMembers": "SAO",
    "ClusterService/RemoveMember": "S",
    "ClusterService/RotateKeys": "S",
    "ClusterService/TransferPrimary": "SO",
    "ClusterService/WatchStatus": "SAO",
    "EmergencyAccessService/BulkIssueTokencodes": "SH",
    "EmergencyAccessService/DisableEmergencyAccess": "SH",
    "EmergencyAccessService/GenerateTokencodes": "SH",
    "EmergencyAccessService/GetEmergencyAccess": "SHA",
    "EmergencyAccessService/IssueFixedTokencode": "SH",
    "EmergencyAccessService/IssueTokencodes": "SH",
    "EmergencyAccessService/ListEmergencyAccess": "SHA",
    "EmergencyAccessService/SaveEmergencyAccess": "SH",
    "PolicyService/GetPolicy": "SHA",
    "PolicyService/UpdatePolicy": "S",
    "SessionService/EndSession": "SHAO",
    "SessionService/ListSessions": "SHAO",
    "SessionService/Logout": "SHAO",
    "SessionService/LogoutEverywhere": "SHAO",
    "SecurityConsole/ApproveBrowserLogin": "SHAO",
    "SecurityConsole/RefuseBrowserLogin": "SHAO",
    "SecurityConsole/RegisterPasskey": "SHAO",
    "SecurityConsole/RemovePasskey": "SHAO",
    "SecurityConsole/ShowActivity": "SHA",
    "SessionService/Reauthenticate": "SHAO",
    "SessionService/WhoAmI": "SHAO",
    "TokenService/AssignToken": "S",
    "TokenService/ClearPin": "SH",
    "TokenService/DeleteToken": "S",
    "TokenService/DisableToken": "S",
    "TokenService/EnableToken": "S",
    "TokenService/EnrollToken": "S",
    "TokenService/GetToken": "SHA",
    "UserService/ImportUsers": "S",
    "TokenService/ImportTokens": "S",
    "TokenService/ImportTokenFile": "S",
    "TokenService/ListTokens": "SHA",
    "TokenService/ReinstateToken": "S",
    "TokenService/ReplaceToken": "S",
    "TokenService/ResynchronizeToken": "S",
    "TokenService/SetPin": "S",
    "TokenService/UnassignToken": "S",
    "TokenService/UpdateToken": "S",
    "UserService/CreateUser": "S",
    "UserService/DeleteUser": "S",
    "UserService/ExplainUser": "SHA",
    "UserService/GetUser": "SHA",
    "UserService/ListUsers": "SHA",
    "UserService/UnlockUser": "SH",
    "UserService/UpdateUser": "S",
}
"""The roles that may call each method. Enter a new method here by hand."""


async def test_every_method_is_in_the_matrix() -> None:
    """(P1) A method that is not listed is permitted to no role."""
    assert set(public()) - WITHOUT_SESSION | CONSOLE_ONLY == set(MATRIX)
    assert set(NEEDS) == set(MATRIX)


async def permitted(node: OneNode, method: str) -> bool:
    proposer = node.sessions._proposer
    context = node.admin(method)
    try:
        await proposer.session(context, proposer.deadline(context))
    except NotPermittedError:
        return False
    return True


def make(node: OneNode, role: Role, *, temporary: bool = False) -> None:
    """Give the administrator another role, or a temporary password."""
    for db in (node.primary_db, node.local_db):
        db.execute(
            "UPDATE administrators SET role = ?, temporary = ?", (role, temporary)
        )


@pytest.mark.parametrize("letter", ROLES)
async def test_a_role_may_call_the_methods_of_its_column(
    node: OneNode, letter: str
) -> None:
    """(P1) Method by method."""
    make(node, ROLES[letter])
    allowed = {method for method in MATRIX if await permitted(node, method)}
    assert allowed == {method for method, roles in MATRIX.items() if letter in roles}
    assert not await permitted(node, "UserService/ForgottenMethod")


@pytest.mark.parametrize("caller", [Anonymous(), SessionCaller(bearer="x" * 43)])
@pytest.mark.parametrize("method", MATRIX)
async def test_no_method_works_without_a_session(
    node: OneNode, caller: Anonymous | SessionCaller, method: str
) -> None:
    """(P1) Every method, for a caller without a role."""
    context = replace(node.admin(method, str(uuid.uuid4())), caller=caller)
    proposer = node.sessions._proposer
    with pytest.raises(NotSignedInError):
        await proposer.session(context, proposer.deadline(context))


async def test_a_temporary_password_only_allows_changing_it(node: OneNode) -> None:
    """(P4) Whatever else the role permits."""
    make(node, Role.SUPER_ADMIN, temporary=True)
    for method in set(MATRIX) - WITH_TEMPORARY_PASSWORD:
        with pytest.raises(Refused) as raised:
            await permitted(node, method)
        assert raised.value.rejected.reason is Reason.PASSWORD_CHANGE_NEEDED
    for method in WITH_TEMPORARY_PASSWORD:
        assert await permitted(node, method)
