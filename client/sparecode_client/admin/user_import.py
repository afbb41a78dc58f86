# SPDX-License-Identifier: Apache-2.0
"""The users of a file."""

from collections.abc import Callable
from datetime import timedelta

from sparecode.v1 import users_pb2
from sparecode_client.admin.imports import check_size, import_rows
from sparecode_client.connection.client import Caller, new_request_id
from sparecode_client.values.imports import ImportedUser


class UserImport(Caller):
    """Imports of `UserService`."""

    async def import_users(
        self,
        content: bytes,
        *,
        progress: Callable[[ImportedUser, int], object] = lambda _user, _rows: None,
        request_id: str | None = None,
        within: timedelta | None = None,
    ) -> tuple[ImportedUser, ...]:
        """
        Add the users of a CSV file, and return what became of each.

        Its first line names the columns: `username`; if wanted also `display_name`
        and `email`. A bad row never stops or half-applies the rest. *progress* is
        handed every result as soon as it is known, and the number of all rows.
        *within* is for how long nothing may come.

        Raises:
            InvalidArgument: The file as a whole cannot be read; nothing was changed.
            OutcomeUnknown, Unavailable, Overloaded: It went no further. Call again
                with the same request id: rows that were decided stay so.
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
    """Return what became of a row."""
    return ImportedUser(
        row=user.row,
        username=user.username,
        imported=user.imported,
        problem=user.problem,
        reason=user.reason,
    )
