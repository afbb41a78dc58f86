# SPDX-License-Identifier: Apache-2.0
"""
The import of files: each row becomes a command and is decided on its own (K4).

Rows are proposed in batches that share commits, at a pace that leaves most of the time
to people who sign in. Results are returned as soon as they are known. Each row has its
own request id, derived from the file's: a retry of the import finds the results of the
decided rows, and continues with the rest (Q1).
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from sparecode_node.services.access.authorization import Session
from sparecode_node.services.context import CallContext, Deadline
from sparecode_node.services.errors import (
    REFUSES_ALL_ROWS,
    InvalidFieldError,
    NotPermittedError,
    NotSignedInError,
    Refused,
)
from sparecode_node.services.idempotency import row_context
from sparecode_node.services.load.pacing import Pace
from sparecode_node.services.proposing import Proposer
from sparecode_node.statemachine.commands import Command

R = TypeVar("R")
S = TypeVar("S")

ROWS_AT_ONCE = 32
"""Rows of a file that are proposed together, and share commits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Import(Generic[R]):
    """An import. Reading the results drives it."""

    rows: int
    results: AsyncGenerator[R, None]
    """In the order of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOutcome:
    """The result of the command of one row."""

    applied: bool
    problem: str = ""
    """Why the row was not imported, in words."""
    reason: str = ""
    """The same as a `Reason`; empty if a field of the row is out of bounds."""


class RowProposer:
    """Proposes the commands of one file's rows."""

    def __init__(
        self,
        proposer: Proposer,
        context: CallContext,
        session: Session,
        deadline: Deadline,
    ) -> None:
        self._proposer = proposer
        self._context = context
        self._session = session
        self._deadline = deadline

    async def propose(
        self,
        row: int,
        command: Callable[[], Awaitable[Command]],
        fields: object,
    ) -> RowOutcome:
        """
        Return the result of a row.

        *command* builds its command, and may raise `InvalidFieldError`; *fields* are
        the row's, for the request's tag (Q1). Raises `ProposeError`, and what does not
        concern the row alone.
        """
        context = row_context(self._context, row, fields)
        try:
            await self._proposer.propose_fresh(
                context, self._session, self._deadline, command
            )
        except InvalidFieldError as error:
            return RowOutcome(applied=False, problem=str(error))
        except (NotSignedInError, NotPermittedError):
            raise
        except Refused as refused:
            reason, detail = refused.rejected.reason, refused.rejected.detail
            if reason in REFUSES_ALL_ROWS:
                raise
            return RowOutcome(applied=False, problem=detail, reason=reason.value)
        return RowOutcome(applied=True)


def rows_from(rows: Sequence[S], from_row: int) -> Sequence[S]:
    """Return the rows from row number *from_row*; 0: all of them."""
    if not 0 <= from_row <= len(rows):
        raise InvalidFieldError("from_row", f"must be 1 to {len(rows)} (0: all)")
    return rows[max(from_row, 1) - 1 :]


async def in_batches(
    rows: Sequence[S], decide: Callable[[S], Awaitable[R]], pace: Pace
) -> AsyncGenerator[R, None]:
    """Yield the result of *decide* for each row. A started batch is always completed."""
    for at in range(0, len(rows), ROWS_AT_ONCE):
        async with pace.turn():
            results = await asyncio.gather(
                *(decide(row) for row in rows[at : at + ROWS_AT_ONCE]),
                return_exceptions=True,
            )
        for each in results:
            if isinstance(each, BaseException):
                raise each
            yield each
