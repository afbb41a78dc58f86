# SPDX-License-Identifier: Apache-2.0
"""The people who authenticate."""

from collections.abc import Sequence
from datetime import timedelta

from sparecode.v1 import (
    users_pb2,
)
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import commit_in, position_in
from sparecode_client.values.results import Commit, Page, ReadPosition
from sparecode_client.values.users import User


class Users(Caller):
    """The calls of `UserService`. Usernames are equal after NFKC and case folding."""

    async def create_user(
        self,
        username: str,
        *,
        display_name: str = "",
        email: str = "",
        join_groups: Sequence[str] = (),
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Add a user, who is in those groups: agents may admit by them.

        Raises:
            AlreadyExists: The username is taken.
        """
        request = users_pb2.CreateUserRequest(
            request_id=request_id or new_request_id(),
            username=username,
            display_name=display_name,
            email=email,
            join_groups=join_groups,
        )
        answer = await self._client.unary(
            lambda node: node.users.CreateUser, request, within=within
        )
        return commit_in(answer.commit)

    async def get_user(
        self,
        username: str,
        *,
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> User:
        """
        Return one user.

        Raises:
            NotFound: There is none of this name.
        """
        request = users_pb2.GetUserRequest(username=username, stale_ok=stale_ok)
        answer = await self._client.unary(
            lambda node: node.users.GetUser, request, within=within
        )
        return user_in(answer.user, position_in(answer.position))

    async def list_users(
        self,
        *,
        username_prefix: str = "",
        search: str = "",
        enabled: bool | None = None,
        locked: bool | None = None,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> Page[User]:
        """
        Return a page of users, in the order of usernames; what is given must hold.

        *search* is found anywhere in the names or the e-mail; *locked* means that a
        factor is locked or waits after failures.
        """
        request = users_pb2.ListUsersRequest(
            page_size=page_size,
            page_token=page_token,
            username_prefix=username_prefix,
            search=search,
            enabled=enabled,
            locked=locked,
            stale_ok=stale_ok,
        )
        answer = await self._client.unary(
            lambda node: node.users.ListUsers, request, within=within
        )
        return Page(
            items=tuple(user_in(user) for user in answer.users),
            next_page_token=answer.next_page_token,
            position=position_in(answer.position),
        )

    async def update_user(
        self,
        username: str,
        *,
        display_name: str | None = None,
        email: str | None = None,
        enabled: bool | None = None,
        join_groups: Sequence[str] = (),
        leave_groups: Sequence[str] = (),
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Change what is given; what is None stays. Agents may admit by groups."""
        request = users_pb2.UpdateUserRequest(
            request_id=request_id or new_request_id(),
            username=username,
            display_name=display_name,
            email=email,
            enabled=enabled,
            join_groups=join_groups,
            leave_groups=leave_groups,
        )
        answer = await self._client.unary(
            lambda node: node.users.UpdateUser, request, within=within
        )
        return commit_in(answer.commit)

    async def delete_user(
        self,
        username: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Delete a user who has no token."""
        request = users_pb2.DeleteUserRequest(
            request_id=request_id or new_request_id(), username=username
        )
        answer = await self._client.unary(
            lambda node: node.users.DeleteUser, request, within=within
        )
        return commit_in(answer.commit)

    async def unlock_user(
        self,
        username: str,
        *,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """End the locks of both factors of a user."""
        request = users_pb2.UnlockUserRequest(
            request_id=request_id or new_request_id(), username=username
        )
        answer = await self._client.unary(
            lambda node: node.users.UnlockUser, request, within=within
        )
        return commit_in(answer.commit)


def user_in(user: users_pb2.User, position: ReadPosition | None = None) -> User:
    """Return a user."""
    return User(
        username=user.username,
        display_name=user.display_name,
        email=user.email,
        enabled=user.enabled,
        token_serials=tuple(user.token_serials),
        token_failures=user.token_failures,
        emergency_failures=user.emergency_failures,
        locked=user.locked,
        groups=tuple(user.groups),
        position=position,
    )
