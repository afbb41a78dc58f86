# SPDX-License-Identifier: Apache-2.0
"""Import of users."""

from collections.abc import Callable
from datetime import timedelta

from sparecode.v1 import users_pb2
from sparecode_client.admin.imports import check_size, import_rows
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.values.imports import ImportedUser


class UserImport(Caller):
    """`UserService.ImportUsers`."""

    async def import_users(
        self,
        content: bytes,
        *,
        progress: Callable[[ImportedUser, int], object] = lambda _user, _rows: None,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> tuple[ImportedUser, ...]:
        """
        Import the users in a CSV file, and return the result of each row.

        The first line names the columns: `username`, and optionally `display_name`,
        `email`, `language`, `manager_email` and `groups`. A bad row never stops the
        others. *progress* gets every result as soon as it is known, and the number of
        all rows. *within* limits the time without a result.

        Raises:
            InvalidArgument: The file cannot be read; nothing was changed.
            OutcomeUnknown, Unavailable, Overloaded: The import stopped. Call again with
                the same request id: rows with a result keep it.
        """
        check_size(content)
        request_id = request_id or new_request_id()
        return await import_rows(
            self._client,
            lambda node: node.users.ImportUsers,
            lambda row: users_pb2.ImportUsersRequest(
                request_id=request_id, content=content, from_row=row
            ),
            lambda answer: (imported_in(answer.user), answer.rows),
            progress=progress,
            request_id=request_id,
            within=within,
        )


def imported_in(user: users_pb2.ImportedUser) -> ImportedUser:
    """Convert the result of a row."""
    return ImportedUser(
        row=user.row,
        username=user.username,
        imported=user.imported,
        problem=user.problem,
        reason=user.reason,
    )
