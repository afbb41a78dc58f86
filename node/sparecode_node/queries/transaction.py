# SPDX-License-Identifier: Apache-2.0
"""One read of the state: what every query of this package is handed."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

Value = str | bytes | int | None

APPLIED_INDEX = "SELECT value FROM meta WHERE name = 'applied_index'"


class Connection(Protocol):
    """As much of an aiosqlite connection as queries use."""

    async def execute_fetchall(
        self, sql: str, parameters: dict[str, Value] | None = None
    ) -> Iterable[sqlite3.Row]:
        """Return all rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTransaction:
    """The state at *applied_index*, for the queries of this package."""

    connection: Connection
    applied_index: int

    async def one(self, sql: str, **values: Value) -> sqlite3.Row | None:
        """Return the one row of a query, if there is one."""
        return next(iter(await self.all(sql, **values)), None)

    async def all(self, sql: str, **values: Value) -> list[sqlite3.Row]:
        """Return all rows of a query."""
        # Never in steps: a caller who goes away between them would leave a statement
        # that is not at its end, and SQLite keeps what that sees over a rollback. The
        # next reader of the connection would be shown it, whatever its barrier.
        return list(await self.connection.execute_fetchall(sql, values))


def applied_index(db: sqlite3.Connection) -> int:
    """Return how far the state is; the first read also fixes what the rest sees."""
    row = db.execute(APPLIED_INDEX).fetchone()
    return int(row[0]) if row else 0
