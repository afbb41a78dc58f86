# SPDX-License-Identifier: Apache-2.0
"""`AdministratorService`: administrators, approvals and second factors."""

from sparecode.v1 import administrators_pb2 as pb
from sparecode.v1 import administrators_pb2_grpc as pb_grpc
from sparecode_node.domain.administrators import Role
from sparecode_node.queries.administrators import AdministratorView
from sparecode_node.queries.approvals import ApprovalView
from sparecode_node.rpc import calls, conversion
from sparecode_node.rpc.identity import Context
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.people.administrators import Administrators, Link
from sparecode_node.services.people.approvals import Approvals
from sparecode_node.services.people.second_factors import SecondFactors

ROLES = {
    pb.ADMINISTRATOR_ROLE_SUPER_ADMIN: Role.SUPER_ADMIN,
    pb.ADMINISTRATOR_ROLE_HELP_DESK: Role.HELP_DESK,
    pb.ADMINISTRATOR_ROLE_AUDITOR: Role.AUDITOR,
    pb.ADMINISTRATOR_ROLE_OPERATOR: Role.OPERATOR,
}


class AdministratorServicer(pb_grpc.AdministratorServiceServicer):
    """Translates between the wire and `Administrators`, `Approvals` and `SecondFactors`."""

    def __init__(
        self,
        node_id: str,
        administrators: Administrators,
        approvals: Approvals,
        second_factors: SecondFactors,
    ) -> None:
        self._node_id = node_id
        self._administrators = administrators
        self._approvals = approvals
        self._second_factors = second_factors

    async def EnrollSecondFactor(
        self,
        request: pb.EnrollSecondFactorRequest,  # noqa: ARG002  It has no fields.
        context: Context,
    ) -> pb.EnrollSecondFactorResponse:
        """Draw a secret for the caller's authenticator app."""
        enrolled = await self._second_factors.enroll(
            calls.session_call(context, "AdministratorService/EnrollSecondFactor")
        )
        return pb.EnrollSecondFactorResponse(
            secret=enrolled.secret,
            uri=enrolled.uri,
            draft=enrolled.draft,
            draft_end_time=conversion.timestamp(enrolled.ends_at_ms),
        )

    async def ConfirmSecondFactor(
        self, request: pb.ConfirmSecondFactorRequest, context: Context
    ) -> pb.ConfirmSecondFactorResponse:
        """Activate the secret: sign-in needs a code from now on."""
        applied = await self._second_factors.confirm(
            calls.session_call(
                context, "AdministratorService/ConfirmSecondFactor", request.request_id
            ),
            draft=request.draft,
            code=request.code,
        )
        return pb.ConfirmSecondFactorResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def RemoveSecondFactor(
        self, request: pb.RemoveSecondFactorRequest, context: Context
    ) -> pb.RemoveSecondFactorResponse:
        """Remove the second factor of another administrator."""
        applied = await self._second_factors.remove(
            calls.session_call(
                context, "AdministratorService/RemoveSecondFactor", request.request_id
            ),
            name=request.name,
        )
        return pb.RemoveSecondFactorResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def CreateAdministrator(
        self, request: pb.CreateAdministratorRequest, context: Context
    ) -> pb.CreateAdministratorResponse:
        """Add an administrator."""
        call = calls.session_call(
            context, "AdministratorService/CreateAdministrator", request.request_id
        )
        link = _link(request)
        if link is None:
            raise InvalidFieldError(
                "link", "set username, or no_user if the administrator is not a user"
            )
        applied = await self._administrators.create(
            call,
            name=request.name,
            role=conversion.enum_value("role", request.role, ROLES),
            link=link,
            password=request.password,
        )
        return pb.CreateAdministratorResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def ListAdministrators(
        self, request: pb.ListAdministratorsRequest, context: Context
    ) -> pb.ListAdministratorsResponse:
        """Return a page of administrators."""
        read = await self._administrators.list(
            calls.session_call(context, "AdministratorService/ListAdministrators"),
            page_size=request.page_size,
            page_token=request.page_token,
            stale_ok=request.stale_ok,
        )
        return pb.ListAdministratorsResponse(
            administrators=[_administrator(each) for each in read.value.items],
            next_page_token=read.value.next_page_token,
            position=conversion.position(read),
        )

    async def UpdateAdministrator(
        self, request: pb.UpdateAdministratorRequest, context: Context
    ) -> pb.UpdateAdministratorResponse:
        """Change the fields that are set of an administrator."""
        role = None
        if request.role != pb.ADMINISTRATOR_ROLE_UNSPECIFIED:
            role = conversion.enum_value("role", request.role, ROLES)
        applied = await self._administrators.update(
            calls.session_call(
                context,
                "AdministratorService/UpdateAdministrator",
                request.request_id,
                request.etag,
            ),
            name=request.name,
            role=role,
            enabled=request.enabled if request.HasField("enabled") else None,
            link=_link(request),
        )
        return pb.UpdateAdministratorResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def RemoveAdministrator(
        self, request: pb.RemoveAdministratorRequest, context: Context
    ) -> pb.RemoveAdministratorResponse:
        """Remove an administrator."""
        applied = await self._administrators.remove(
            calls.session_call(
                context, "AdministratorService/RemoveAdministrator", request.request_id
            ),
            name=request.name,
        )
        return pb.RemoveAdministratorResponse(
            commit=conversion.commit(self._node_id, applied)
        )

    async def CancelReset(
        self, request: pb.CancelResetRequest, context: Context
    ) -> pb.CancelResetResponse:
        """Cancel a requested reset of an administrator."""
        applied = await self._administrators.cancel_reset(
            calls.session_call(
                context, "AdministratorService/CancelReset", request.request_id
            ),
            name=request.name,
        )
        return pb.CancelResetResponse(commit=conversion.commit(self._node_id, applied))

    async def ChangePassword(
        self, request: pb.ChangePasswordRequest, context: Context
    ) -> pb.ChangePasswordResponse:
        """Change a password."""
        changed = await self._administrators.change_password(
            calls.session_call(
                context, "AdministratorService/ChangePassword", request.request_id
            ),
            name=request.name,
            old_password=request.old_password,
            new_password=request.new_password,
        )
        return pb.ChangePasswordResponse(
            commit=conversion.commit(self._node_id, changed.applied),
            device_cookie=changed.device_cookie,
        )

    async def ListApprovals(
        self, request: pb.ListApprovalsRequest, context: Context
    ) -> pb.ListApprovalsResponse:
        """Return a page of pending approvals and permits."""
        read = await self._approvals.list(
            calls.session_call(context, "AdministratorService/ListApprovals"),
            page_size=request.page_size,
            page_token=request.page_token,
            stale_ok=request.stale_ok,
        )
        return pb.ListApprovalsResponse(
            approvals=[_approval(each) for each in read.value.items],
            next_page_token=read.value.next_page_token,
            position=conversion.position(read),
        )

    async def Approve(
        self, request: pb.ApproveRequest, context: Context
    ) -> pb.ApproveResponse:
        """Approve another administrator's pending request."""
        applied = await self._approvals.approve(
            calls.session_call(
                context, "AdministratorService/Approve", request.request_id
            ),
            approval_id=request.approval_id,
        )
        return pb.ApproveResponse(commit=conversion.commit(self._node_id, applied))

    async def Reject(
        self, request: pb.RejectRequest, context: Context
    ) -> pb.RejectResponse:
        """Reject a pending request, or revoke a permit."""
        applied = await self._approvals.reject(
            calls.session_call(
                context, "AdministratorService/Reject", request.request_id
            ),
            approval_id=request.approval_id,
        )
        return pb.RejectResponse(commit=conversion.commit(self._node_id, applied))


def _approval(approval: ApprovalView) -> pb.Approval:
    return pb.Approval(
        approval_id=approval.approval_id,
        author=approval.author,
        action=approval.action,
        target=approval.target,
        description=approval.description,
        serials=approval.serials,
        usernames=approval.usernames,
        recipient=approval.recipient,
        ask_time=conversion.timestamp(approval.asked_at_ms),
        end_time=conversion.timestamp(approval.ends_at_ms),
        approver=approval.approver,
    )


def _link(
    request: pb.CreateAdministratorRequest | pb.UpdateAdministratorRequest,
) -> Link | None:
    """Return the link to a user, or None if the request sets none."""
    if request.WhichOneof("link") is None:
        return None
    if request.WhichOneof("link") == "no_user":
        if not request.no_user:
            raise InvalidFieldError("no_user", "must be true if it is set")
        return Link("")
    if not request.username:
        raise InvalidFieldError(
            "username",
            "must not be empty; set no_user to unlink the administrator from a user",
        )
    return Link(request.username)


def _administrator(administrator: AdministratorView) -> pb.Administrator:
    return pb.Administrator(
        name=administrator.name,
        role=conversion.enum_number(administrator.role, ROLES),
        enabled=administrator.enabled,
        username=administrator.username,
        password_temporary=administrator.temporary,
        second_factor=administrator.second_factor,
        etag=administrator.etag,
    )
