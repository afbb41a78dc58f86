# SPDX-License-Identifier: Apache-2.0
"""Calls on administrators and their second factors."""

from datetime import timedelta

from sparecode.v1 import administrators_pb2 as pb
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import (
    commit_in,
    enum_in,
    enum_out,
    position_in,
    time_in,
)
from sparecode_client.values.administrators import (
    Administrator,
    AdministratorRole,
    EnrolledSecondFactor,
)
from sparecode_client.values.results import Commit, Page


class Administrators(Caller):
    """The calls of `AdministratorService`."""

    async def create_administrator(
        self,
        name: str,
        role: AdministratorRole,
        password: str,
        *,
        username: str | None,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Add an administrator with a temporary password.

        *username* is this person's own user, for whom they can do nothing. Pass None if
        this person is not a user.
        """
        request = pb.CreateAdministratorRequest(
            request_id=request_id or new_request_id(),
            name=name,
            role=enum_out(pb.AdministratorRole, role),
            password=password,
        )
        if username is None:
            request.no_user = True
        else:
            request.username = username
        answer = await self._client.unary(
            lambda node: node.administrators.CreateAdministrator, request, within=within
        )
        return commit_in(answer.commit)

    async def list_administrators(
        self,
        *,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> Page[Administrator]:
        """Return a page of administrators, by name."""
        request = pb.ListAdministratorsRequest(
            page_size=page_size, page_token=page_token, stale_ok=stale_ok
        )
        answer = await self._client.unary(
            lambda node: node.administrators.ListAdministrators, request, within=within
        )
        return Page(
            items=tuple(administrator_in(each) for each in answer.administrators),
            next_page_token=answer.next_page_token,
            position=position_in(answer.position),
        )

    async def update_administrator(
        self,
        name: str,
        *,
        role: AdministratorRole | None = None,
        enabled: bool | None = None,
        username: str | None = None,
        no_user: bool = False,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Change an administrator; None keeps a value.

        Changing the role or disabling the administrator ends their sessions.
        """
        if username is not None and no_user:
            raise ValueError("set username or no_user, not both")
        request = pb.UpdateAdministratorRequest(
            request_id=request_id or new_request_id(),
            name=name,
            enabled=enabled,
        )
        if role is not None:
            request.role = enum_out(pb.AdministratorRole, role)
        if no_user:
            request.no_user = True
        elif username is not None:
            request.username = username
        answer = await self._client.unary(
            lambda node: node.administrators.UpdateAdministrator, request, within=within
        )
        return commit_in(answer.commit)

    async def remove_administrator(
        self,
        name: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Remove an administrator and end their sessions."""
        request = pb.RemoveAdministratorRequest(
            request_id=request_id or new_request_id(), name=name
        )
        answer = await self._client.unary(
            lambda node: node.administrators.RemoveAdministrator, request, within=within
        )
        return commit_in(answer.commit)

    async def cancel_reset(
        self,
        name: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Cancel the reset of an administrator that root on a node has requested."""
        request = pb.CancelResetRequest(
            request_id=request_id or new_request_id(), name=name
        )
        answer = await self._client.unary(
            lambda node: node.administrators.CancelReset, request, within=within
        )
        return commit_in(answer.commit)

    async def change_password(
        self,
        new_password: str,
        *,
        old_password: str = "",
        name: str = "",
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Change your own password, or give the administrator *name* a temporary one.

        Your own password needs *old_password*, and you must sign in again. The property
        `device_cookie` then has a new one; the earlier one is void.
        """
        request = pb.ChangePasswordRequest(
            request_id=request_id or new_request_id(),
            name=name,
            old_password=old_password,
            new_password=new_password,
        )
        answer = await self._client.unary(
            lambda node: node.administrators.ChangePassword, request, within=within
        )
        if answer.device_cookie:
            self._client.device_cookie = answer.device_cookie
        return commit_in(answer.commit)

    async def enroll_second_factor(
        self, *, within: timedelta | None = None
    ) -> EnrolledSecondFactor:
        """Return a new secret for an authenticator app. Then call `confirm_second_factor`."""
        answer = await self._client.unary(
            lambda node: node.administrators.EnrollSecondFactor,
            pb.EnrollSecondFactorRequest(),
            within=within,
        )
        return EnrolledSecondFactor(
            secret=answer.secret,
            uri=answer.uri,
            draft=answer.draft,
            end_time=time_in(answer, "draft_end_time"),
        )

    async def confirm_second_factor(
        self,
        enrollment: EnrolledSecondFactor,
        code: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Require a second factor from now on. *code* is what the app shows."""
        request = pb.ConfirmSecondFactorRequest(
            request_id=request_id or new_request_id(), draft=enrollment.draft, code=code
        )
        answer = await self._client.unary(
            lambda node: node.administrators.ConfirmSecondFactor, request, within=within
        )
        return commit_in(answer.commit)

    async def remove_second_factor(
        self,
        name: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Remove the second factor of another administrator and end their sessions."""
        request = pb.RemoveSecondFactorRequest(
            request_id=request_id or new_request_id(), name=name
        )
        answer = await self._client.unary(
            lambda node: node.administrators.RemoveSecondFactor, request, within=within
        )
        return commit_in(answer.commit)


def administrator_in(administrator: pb.Administrator) -> Administrator:
    """Convert an administrator."""
    return Administrator(
        name=administrator.name,
        role=enum_in(AdministratorRole, pb.AdministratorRole, administrator.role),
        enabled=administrator.enabled,
        username=administrator.username,
        password_temporary=administrator.password_temporary,
        second_factor=administrator.second_factor,
    )
