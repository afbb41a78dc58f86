# SPDX-License-Identifier: Apache-2.0
"""The read transaction that every query of this package takes."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

Value = str | bytes | int | None

APPLIED_INDEX = "SELECT value FROM meta WHERE name = 'applied_index'"


class Connection(Protocol):
    """The part of an aiosqlite connection that queries use."""

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
        """Return the first row of a query, or None."""
        return next(iter(await self.all(sql, **values)), None)

    async def all(self, sql: str, **values: Value) -> list[sqlite3.Row]:
        """Return all rows of a query."""
        # Fetch all rows at once. A caller canceled between two fetches would leave an
        # unfinished statement, and SQLite keeps its snapshot even after a rollback. The
        # connection's next reader would then see old data, whatever its barrier.
        return list(await self.connection.execute_fetchall(sql, values))


def applied_index(db: sqlite3.Connection) -> int:
    """Return the applied index. This first read also fixes what later reads see."""
    row = db.execute(APPLIED_INDEX).fetchone()
    return int(row[0]) if row else 0
