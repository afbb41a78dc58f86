# SPDX-License-Identifier: Apache-2.0
"""Use case: the users of a CSV file, each decided on its own (K4)."""

from dataclasses import dataclass

from sparecode_node.domain.ids import GroupKey
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.users import fold
from sparecode_node.queries import users
from sparecode_node.queries.state import LocalState
from sparecode_node.services import fields
from sparecode_node.services.ambient import Entropy
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files.file_reader import FileReader
from sparecode_node.services.files.user_csv import UserFileRow, UserRow
from sparecode_node.services.load.pacing import Pace
from sparecode_node.services.people.users import check_new, creation
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.tokens.row_import import (
    Import,
    RowProposer,
    in_batches,
    rows_from,
)
from sparecode_node.statemachine.commands.users import CreateUser

SHOWN_MAX = 128
BETWEEN_GROUPS = ";"
"""A comma would need quotes around the cell, which people forget."""
TAKEN = "there is a user of this name"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFile:
    """An uploaded file of users."""

    content: bytes
    """
    CSV in UTF-8 with a column `username`; `display_name`, `email`, `groups`,
    `language` and `manager_email` are optional.
    """
    from_row: int = 0
    """Rows before it are skipped: a retry starts where the import stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedUser:
    """The result of one row of a file of users."""

    row: int
    """Its position in the file, from 1."""
    username: str
    imported: bool
    problem: str = ""
    """Why the row was not imported, in words."""
    reason: str = ""
    """The same as a `Reason`; empty if the row itself cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedUser:
    """One row of a file, before the import."""

    row: int
    user: UserRow
    problem: str = ""
    """Why it would not be imported now; empty: it would."""


class UserImport:
    """Adds the users of a file. A bad row never stops or half-applies the rest."""

    def __init__(
        self,
        *,
        proposer: Proposer,
        state: LocalState,
        file_reader: FileReader,
        sealing: Sealing,
        entropy: Entropy,
        pace: Pace,
    ) -> None:
        self._proposer = proposer
        self._state = state
        self._file_reader = file_reader
        self._sealing = sealing
        self._entropy = entropy
        self._pace = pace

    async def preview(
        self, context: CallContext, content: bytes
    ) -> tuple[PreviewedUser, ...]:
        """
        Read a file and change nothing. The state may change before the import.

        Raises as `begin`.
        """
        deadline = self._proposer.deadline(context)
        await self._proposer.session(context, deadline)
        rows = await self._file_reader.users(content, timeout_s=deadline.left_s())
        problems = {row.row: _problem(row) for row in rows}
        # A name that has been checked is short enough to fold.
        keys = {
            row.row: fold(row.user.username) for row in rows if not problems[row.row]
        }
        async with self._state.transaction() as transaction:
            taken = await users.existing(transaction, list(keys.values()))
        return tuple(
            PreviewedUser(
                row=row.row,
                user=row.user,
                problem=TAKEN if keys.get(row.row) in taken else problems[row.row],
            )
            for row in rows
        )

    async def begin(self, context: CallContext, file: UserFile) -> Import[ImportedUser]:
        """
        Read a file. Its users are added while the results are read.

        Raises `InvalidFieldError` on `content` if the file as a whole cannot be read;
        then nothing is changed. After any other exception, here or from the results, a
        retry with the same request id continues where the import stopped.
        """
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        rows = await self._file_reader.users(file.content, timeout_s=deadline.left_s())
        proposer = RowProposer(self._proposer, context, session, deadline)
        return Import(
            rows=len(rows),
            results=in_batches(
                rows_from(rows, file.from_row),
                lambda row: self._import(proposer, row),
                self._pace,
            ),
        )

    async def _import(self, proposer: RowProposer, row: UserFileRow) -> ImportedUser:
        """Create the user of one row."""
        number, user = row.row, row.user
        username = user.username[:SHOWN_MAX]
        problem, reason = row.problem, ""
        if not problem and row.first != number:
            problem = f"row {row.first} of this file has the same username"
            reason = Reason.USER_EXISTS.value
        if problem:
            return ImportedUser(
                row=number,
                username=username,
                imported=False,
                problem=problem,
                reason=reason,
            )

        async def command() -> CreateUser:
            return creation(
                self._sealing,
                self._entropy,
                username=user.username,
                display_name=user.display_name,
                email=user.email,
                groups=_groups(user.groups),
                language=user.language,
                manager_email=user.manager_email,
            )

        outcome = await proposer.propose(number, command, user)
        return ImportedUser(
            row=number,
            username=username,
            imported=outcome.applied,
            problem=outcome.problem,
            reason=outcome.reason,
        )


def _problem(row: UserFileRow) -> str:
    """Return why a row cannot be imported whatever the state; empty: it can."""
    user = row.user
    if row.problem:
        return row.problem
    if row.first != row.row:
        return f"row {row.first} of this file has the same username"
    try:
        check_new(
            user.username,
            user.display_name,
            user.email,
            user.language,
            user.manager_email,
        )
        _groups(user.groups)
    except InvalidFieldError as error:
        return str(error)
    return ""


def _groups(cell: str) -> tuple[GroupKey, ...]:
    """Return the folded names of the groups in a cell. Raises `InvalidFieldError`."""
    names = [name.strip() for name in cell.split(BETWEEN_GROUPS)] if cell else []
    return fields.groups("groups", names)
