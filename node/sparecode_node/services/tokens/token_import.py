# SPDX-License-Identifier: Apache-2.0
"""Use case: the tokens of a file (K4). A seed goes in and never comes out."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.tokencodes import significant
from sparecode_node.services import fields
from sparecode_node.services.ambient import Clock
from sparecode_node.services.context import CallContext
from sparecode_node.services.files.file_reader import FileReader
from sparecode_node.services.files.token_files import (
    FileRow,
    FileToken,
    TokenFile,
)
from sparecode_node.services.load.pacing import Pace
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.tokens.enrollment import Enrollment
from sparecode_node.services.tokens.row_import import (
    Import,
    RowProposer,
    in_batches,
    rows_from,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRow:
    """The result of one row of a token file (K4)."""

    row: int
    """Its position in the file, from 1."""
    serial: str
    """Empty if it cannot be read."""
    imported: bool
    problem: str = ""
    """Why the row was not imported, in words."""
    reason: str = ""
    """The same as a `Reason`; empty if the row itself cannot be read."""


class _EarlierRows:
    """Finds rows of a file that repeat the serial or the seed of an earlier row."""

    def __init__(self, rows: Sequence[FileRow]) -> None:
        self._serials: dict[str, int] = {}
        self._seeds: dict[bytes, int] = {}
        for row in rows:
            self._serials.setdefault(row.serial, row.row)
            if row.token is not None and self._serials[row.serial] == row.row:
                self._seeds.setdefault(significant(row.token.seed), row.row)

    def refusal(self, row: int, token: FileToken) -> Rejected | None:
        """Return why a row is not imported; None: no earlier row is in the way."""
        first = self._serials[token.serial]
        if first != row:
            return Rejected(
                Reason.TOKEN_EXISTS, f"row {first} of this file has the same serial"
            )
        first = self._seeds[significant(token.seed)]
        if first != row:
            return Rejected(
                Reason.SEED_EXISTS, f"row {first} of this file has the same seed"
            )
        return None


class TokenImport:
    """Adds the tokens of a file. A bad row never stops or half-applies the rest (K4)."""

    def __init__(
        self,
        *,
        proposer: Proposer,
        file_reader: FileReader,
        enrollment: Enrollment,
        clock: Clock,
        pace: Pace,
    ) -> None:
        self._proposer = proposer
        self._file_reader = file_reader
        self._enrollment = enrollment
        self._clock = clock
        self._pace = pace

    async def begin(self, context: CallContext, file: TokenFile) -> Import[ImportedRow]:
        """
        Read a file. Its tokens are added while the results are read.

        Raises `InvalidFieldError` on `content`, `password` or `key` if the file as a
        whole cannot be read; then nothing is changed. After any other exception, here
        or from the results, a retry with the same request id continues where the
        import stopped.
        """
        deadline = self._proposer.deadline(context)
        session = await self._proposer.begin(context, deadline)
        fields.secret("password", file.password, at_most=fields.PASSWORD_MAX)
        rows = await self._file_reader.tokens(
            file, now_ms=self._clock.now_ms(), timeout_s=deadline.left_s()
        )
        await self._enrollment.begin()
        proposer = RowProposer(self._proposer, context, session, deadline)
        return Import(
            rows=len(rows), results=self._results(proposer, rows, file.from_row)
        )

    def _results(
        self, proposer: RowProposer, rows: Sequence[FileRow], from_row: int
    ) -> AsyncGenerator[ImportedRow, None]:
        earlier = _EarlierRows(rows)
        return in_batches(
            rows_from(rows, from_row),
            lambda row: self._import(proposer, row, earlier),
            self._pace,
        )

    async def _import(
        self, proposer: RowProposer, row: FileRow, earlier: "_EarlierRows"
    ) -> ImportedRow:
        """Enroll the token of one row, if no earlier row has its serial or seed."""
        token = row.token
        if token is None:
            return ImportedRow(
                row=row.row, serial=row.serial, imported=False, problem=row.problem
            )
        known = earlier.refusal(row.row, token)
        if known is not None:
            return ImportedRow(
                row=row.row,
                serial=row.serial,
                imported=False,
                problem=known.detail,
                reason=known.reason.value,
            )
        outcome = await proposer.propose(
            row.row, lambda: self._enrollment.command(token), token
        )
        return ImportedRow(
            row=row.row,
            serial=row.serial,
            imported=outcome.applied,
            problem=outcome.problem,
            reason=outcome.reason,
        )
