# SPDX-License-Identifier: Apache-2.0
"""Calls on users."""

from collections.abc import Sequence
from datetime import timedelta

from sparecode.v1 import (
    users_pb2,
)
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.connection.wire import commit_in, position_in, time_in
from sparecode_client.values.results import Commit, Page, ReadPosition
from sparecode_client.values.users import Attempt, Blocker, User, UserExplanation


class Users(Caller):
    """The calls of `UserService`. Usernames are equal after NFKC and case folding."""

    async def create_user(
        self,
        username: str,
        *,
        display_name: str = "",
        email: str = "",
        join_groups: Sequence[str] = (),
        language: str = "",
        manager_email: str = "",
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """
        Add a user. Agents can admit users by group, see *join_groups*.

        *language*: of what is written for the user, a tag of BCP 47 such as `de`.
        *manager_email*: the user's manager, who hears of some notices, too.

        Raises:
            AlreadyExists: The username is taken.
        """
        request = users_pb2.CreateUserRequest(
            request_id=request_id or new_request_id(),
            username=username,
            display_name=display_name,
            email=email,
            join_groups=join_groups,
            language=language,
            manager_email=manager_email,
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
        Return a user.

        Raises:
            NotFound: No user has this name.
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
        Return a page of the users that match every filter, by username.

        *search* matches anywhere in the names or the email address. *locked*: a factor
        is locked, or waits after failures.
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

    async def update_user(  # noqa: PLR0913 - One argument per field.
        self,
        username: str,
        *,
        display_name: str | None = None,
        email: str | None = None,
        enabled: bool | None = None,
        join_groups: Sequence[str] = (),
        leave_groups: Sequence[str] = (),
        language: str | None = None,
        manager_email: str | None = None,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> Commit:
        """Change a user; None keeps a value. Agents can admit users by group."""
        request = users_pb2.UpdateUserRequest(
            request_id=request_id or new_request_id(),
            username=username,
            display_name=display_name,
            email=email,
            enabled=enabled,
            join_groups=join_groups,
            leave_groups=leave_groups,
            language=language,
            manager_email=manager_email,
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
        """Delete a user who has no tokens."""
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
        """Unlock both factors of a user."""
        request = users_pb2.UnlockUserRequest(
            request_id=request_id or new_request_id(), username=username
        )
        answer = await self._client.unary(
            lambda node: node.users.UnlockUser, request, within=within
        )
        return commit_in(answer.commit)

    async def explain_user(
        self,
        username: str,
        *,
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> UserExplanation:
        """
        Return what stands in the way of a user's passcodes, and the latest attempts.

        Raises:
            NotFound: No user has this name.
        """
        request = users_pb2.ExplainUserRequest(username=username, stale_ok=stale_ok)
        answer = await self._client.unary(
            lambda node: node.users.ExplainUser, request, within=within
        )
        return UserExplanation(
            username=answer.username,
            blockers=tuple(_blocker_in(each) for each in answer.blockers),
            attempts=tuple(_attempt_in(each) for each in answer.attempts),
            position=position_in(answer.position),
            older_attempts_missing=answer.older_attempts_missing,
        )


def _blocker_in(blocker: users_pb2.Blocker) -> Blocker:
    return Blocker(
        reason=blocker.reason,
        words=blocker.words,
        next_step=blocker.next_step,
        serial=blocker.serial,
        factor=blocker.factor,
        end_time=time_in(blocker, "end_time"),
        failures=blocker.failures,
        agents=tuple(blocker.agents),
    )


def _attempt_in(attempt: users_pb2.Attempt) -> Attempt:
    return Attempt(
        time=time_in(attempt, "time"),
        agent=attempt.agent,
        node_id=attempt.node_id,
        client_address=attempt.client_address,
        resource=attempt.resource,
        serial=attempt.serial,
        outcome=attempt.outcome,
        reason=attempt.reason,
        words=attempt.words,
        next_step=attempt.next_step,
        authentication_id=attempt.authentication_id,
    )


def user_in(user: users_pb2.User, position: ReadPosition | None = None) -> User:
    """Convert a user."""
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
        language=user.language,
        manager_email=user.manager_email,
        position=position,
    )
