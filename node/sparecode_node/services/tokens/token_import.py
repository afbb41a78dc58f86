# SPDX-License-Identifier: Apache-2.0
"""
Use case: the tokens of a file (K4). A seed goes in and never comes out.

A file whose rows are shown first is sealed for the import: the page holds no seed.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace

from sparecode_node.domain.ids import AdministratorName
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import MINUTE_MS
from sparecode_node.domain.tokencodes import significant
from sparecode_node.queries import tokens
from sparecode_node.queries.state import LocalState
from sparecode_node.services import fields
from sparecode_node.services.ambient import Clock
from sparecode_node.services.context import CallContext
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.files.file_reader import FileReader
from sparecode_node.services.files.token_files import (
    FileRow,
    FileToken,
    TokenFile,
    TokenFileFormat,
)
from sparecode_node.services.load.pacing import Pace
from sparecode_node.services.proposing import Proposer
from sparecode_node.services.secrets.sealed_values import TokenFileDraft
from sparecode_node.services.secrets.sealing import BrokenSealError, Sealing
from sparecode_node.services.tokens.enrollment import Enrollment
from sparecode_node.services.tokens.row_import import (
    Import,
    RowProposer,
    in_batches,
    rows_from,
)

DRAFT_MS = 15 * MINUTE_MS
TAKEN = "there is a token of this serial"
STALE = Rejected(
    Reason.DRAFT_STALE,
    "the rows were shown too long ago, or to another administrator; "
    "choose the file again",
    "draft",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedToken:
    """One row of a file, before the import; its seed is not in here."""

    row: int
    serial: str
    token: FileToken | None = field(repr=False)
    """Without its seed. None: the row cannot be read."""
    problem: str = ""
    """Why it would not be imported now; empty: it would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPreview:
    """The rows of a file, and the file itself, sealed."""

    rows: tuple[PreviewedToken, ...]
    draft: bytes = field(repr=False)
    ends_at_ms: int


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
        state: LocalState,
        sealing: Sealing,
        file_reader: FileReader,
        enrollment: Enrollment,
        clock: Clock,
        pace: Pace,
    ) -> None:
        self._proposer = proposer
        self._state = state
        self._sealing = sealing
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

    async def preview(self, context: CallContext, file: TokenFile) -> TokenPreview:
        """
        Read a file and change nothing. The state may change before the import.

        A seed that another token has is refused by the import only. Raises as `begin`.
        """
        deadline = self._proposer.deadline(context)
        session = await self._proposer.session(context, deadline)
        fields.secret("password", file.password, at_most=fields.PASSWORD_MAX)
        now_ms = self._clock.now_ms()
        rows = await self._file_reader.tokens(
            file, now_ms=now_ms, timeout_s=deadline.left_s()
        )
        earlier = _EarlierRows(rows)
        shown = [await self._previewed(row, earlier) for row in rows]
        good = [each.serial for each in shown if not each.problem]
        async with self._state.transaction() as transaction:
            taken = await tokens.existing(transaction, good)
        draft = TokenFileDraft(
            administrator=session.administrator,
            form=file.format.value,
            content=file.content.decode(errors="replace"),
            password=file.password,
            key=file.key.hex(),
            pin_rule=file.default_pin_rule.value if file.default_pin_rule else "",
            ends_at_ms=now_ms + DRAFT_MS,
        )
        return TokenPreview(
            rows=tuple(
                replace(each, problem=TAKEN)
                if not each.problem and each.serial in taken
                else each
                for each in shown
            ),
            draft=self._sealing.seal_token_file(draft),
            ends_at_ms=draft.ends_at_ms,
        )

    async def _previewed(self, row: FileRow, earlier: "_EarlierRows") -> PreviewedToken:
        token, problem = row.token, row.problem
        if token is not None:
            refused = earlier.refusal(row.row, token)
            try:
                await self._enrollment.command(token)
            except InvalidFieldError as error:
                problem = str(error)
            else:
                problem = refused.detail if refused else ""
            token = replace(token, seed=b"")
        return PreviewedToken(
            row=row.row, serial=row.serial, token=token, problem=problem
        )

    async def begin_previewed(
        self, context: CallContext, draft: bytes
    ) -> Import[ImportedRow]:
        """
        Import the file of a preview, as `begin` does.

        Raises `Refused` (`DRAFT_STALE`) if it was previewed too long ago or by another
        administrator, too.
        """
        deadline = self._proposer.deadline(context)
        session = await self._proposer.session(context, deadline)
        opened = self._opened(draft, session.administrator)
        file = TokenFile(
            format=TokenFileFormat(opened.form),
            content=opened.content.encode(),
            password=opened.password,
            key=bytes.fromhex(opened.key),
            default_pin_rule=PinRule(opened.pin_rule) if opened.pin_rule else None,
        )
        return await self.begin(context, file)

    def _opened(self, draft: bytes, name: AdministratorName) -> TokenFileDraft:
        try:
            opened = self._sealing.unseal_token_file(draft)
        except BrokenSealError:
            raise Refused(STALE) from None
        if opened.administrator != name or opened.ends_at_ms <= self._clock.now_ms():
            raise Refused(STALE)
        return opened

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
