# SPDX-License-Identifier: Apache-2.0
"""`UserService`: users, the people who authenticate."""

from collections.abc import AsyncIterator
from contextlib import aclosing

from sparecode.v1 import users_pb2 as pb
from sparecode.v1 import users_pb2_grpc as pb_grpc
from sparecode_node.queries.views import UserView
from sparecode_node.rpc import calls, conversion
from sparecode_node.rpc.identity import Context
from sparecode_node.rpc.uploads import Uploads
from sparecode_node.services.people.explanations import (
    METHOD,
    ExplainedAttempt,
    ExplainedBlocker,
    Explanations,
)
from sparecode_node.services.people.users import Users
from sparecode_node.services.tokens.user_import import (
    ImportedUser,
    UserFile,
    UserImport,
)


class UserServicer(pb_grpc.UserServiceServicer):
    """Translates between the wire and `Users`, `UserImport` and `Explanations`."""

    def __init__(
        self,
        node_id: str,
        users: Users,
        user_import: UserImport,
        explanations: Explanations,
    ) -> None:
        self._node_id = node_id
        self._users = users
        self._explanations = explanations
        self._user_import = user_import
        self._imports = Uploads()

    async def CreateUser(
        self, request: pb.CreateUserRequest, context: Context
    ) -> pb.CreateUserResponse:
        """Add a user."""
        applied = await self._users.create(
            calls.session_call(context, "UserService/CreateUser", request.request_id),
            username=request.username,
            display_name=request.display_name,
            email=request.email,
            join_groups=tuple(request.join_groups),
            language=request.language,
            manager_email=request.manager_email,
        )
        return pb.CreateUserResponse(commit=conversion.commit(self._node_id, applied))

    async def ImportUsers(
        self, request: pb.ImportUsersRequest, context: Context
    ) -> AsyncIterator[pb.ImportUsersResponse]:
        """Add the users of a file, and stream a result per row."""
        with self._imports.one():
            user_import = await self._user_import.begin(
                calls.session_call(
                    context, "UserService/ImportUsers", request.request_id
                ),
                UserFile(content=request.content, from_row=request.from_row),
            )
            async with aclosing(user_import.results) as results:
                async for row in results:
                    yield pb.ImportUsersResponse(
                        rows=user_import.rows, user=_imported(row)
                    )

    async def GetUser(
        self, request: pb.GetUserRequest, context: Context
    ) -> pb.GetUserResponse:
        """Return one user."""
        read = await self._users.get(
            calls.session_call(context, "UserService/GetUser"),
            request.username,
            stale_ok=request.stale_ok,
        )
        return pb.GetUserResponse(
            user=_user(read.value), position=conversion.position(read)
        )

    async def ListUsers(
        self, request: pb.ListUsersRequest, context: Context
    ) -> pb.ListUsersResponse:
        """Return a page of users."""
        read = await self._users.list(
            calls.session_call(context, "UserService/ListUsers"),
            page_size=request.page_size,
            page_token=request.page_token,
            username_prefix=request.username_prefix,
            search=request.search,
            enabled=request.enabled if request.HasField("enabled") else None,
            locked=request.locked if request.HasField("locked") else None,
            stale_ok=request.stale_ok,
        )
        return pb.ListUsersResponse(
            users=[_user(user) for user in read.value.items],
            next_page_token=read.value.next_page_token,
            position=conversion.position(read),
        )

    async def UpdateUser(
        self, request: pb.UpdateUserRequest, context: Context
    ) -> pb.UpdateUserResponse:
        """Change the fields that are set of a user."""
        applied = await self._users.update(
            calls.session_call(
                context, "UserService/UpdateUser", request.request_id, request.etag
            ),
            username=request.username,
            display_name=(
                request.display_name if request.HasField("display_name") else None
            ),
            email=request.email if request.HasField("email") else None,
            enabled=request.enabled if request.HasField("enabled") else None,
            join_groups=tuple(request.join_groups),
            leave_groups=tuple(request.leave_groups),
            language=request.language if request.HasField("language") else None,
            manager_email=(
                request.manager_email if request.HasField("manager_email") else None
            ),
        )
        return pb.UpdateUserResponse(commit=conversion.commit(self._node_id, applied))

    async def DeleteUser(
        self, request: pb.DeleteUserRequest, context: Context
    ) -> pb.DeleteUserResponse:
        """Delete a user."""
        applied = await self._users.delete(
            calls.session_call(context, "UserService/DeleteUser", request.request_id),
            username=request.username,
        )
        return pb.DeleteUserResponse(commit=conversion.commit(self._node_id, applied))

    async def UnlockUser(
        self, request: pb.UnlockUserRequest, context: Context
    ) -> pb.UnlockUserResponse:
        """Unlock a user."""
        applied = await self._users.unlock(
            calls.session_call(context, "UserService/UnlockUser", request.request_id),
            username=request.username,
        )
        return pb.UnlockUserResponse(commit=conversion.commit(self._node_id, applied))

    async def ExplainUser(
        self, request: pb.ExplainUserRequest, context: Context
    ) -> pb.ExplainUserResponse:
        """Return why a user is, or was, refused."""
        read = await self._explanations.explain(
            calls.session_call(context, METHOD),
            request.username,
            stale_ok=request.stale_ok,
        )
        return pb.ExplainUserResponse(
            username=read.value.username,
            blockers=[_blocker(each) for each in read.value.blockers],
            attempts=[_attempt(each) for each in read.value.attempts],
            older_attempts_missing=read.value.older_attempts_missing,
            position=conversion.position(read),
        )


def _blocker(blocker: ExplainedBlocker) -> pb.Blocker:
    return pb.Blocker(
        reason=blocker.reason,
        words=blocker.words,
        next_step=blocker.next_step,
        serial=blocker.serial,
        factor=blocker.factor,
        end_time=conversion.timestamp(blocker.ends_at_ms),
        failures=blocker.failures,
        agents=blocker.agents,
    )


def _attempt(attempt: ExplainedAttempt) -> pb.Attempt:
    return pb.Attempt(
        time=conversion.timestamp(attempt.at_ms),
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


def _imported(row: ImportedUser) -> pb.ImportedUser:
    return pb.ImportedUser(
        row=row.row,
        username=row.username,
        imported=row.imported,
        problem=row.problem,
        reason=row.reason.upper(),
    )


def _user(user: UserView) -> pb.User:
    return pb.User(
        username=user.username,
        display_name=user.display_name,
        email=user.email,
        enabled=user.enabled,
        token_serials=user.token_serials,
        token_failures=user.token_failures,
        emergency_failures=user.emergency_failures,
        locked=user.locked,
        groups=user.groups,
        language=user.language,
        manager_email=user.manager_email,
        etag=user.etag,
    )
