# SPDX-License-Identifier: Apache-2.0
"""The read transaction that every query of this package takes."""

import enum
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from sparecode_node.statemachine.sealed_events import is_of_rot

Value = str | bytes | int | None

APPLIED_INDEX = "SELECT value FROM meta WHERE name = 'applied_index'"


class Connection(Protocol):
    """The part of an aiosqlite connection that queries use."""

    async def execute_fetchall(
        self, sql: str, parameters: dict[str, Value] | None = None
    ) -> Iterable[sqlite3.Row]:
        """Return all rows."""


class Kind(enum.StrEnum):
    """What a search finds."""

    USER = "user"
    TOKEN = "token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """What the search index knows about a query."""

    keys: tuple[str, ...] | None
    """Name keys or serials of all matches; None: too many, or there is no index."""
    by_prefix: bool = False
    """Whether only names or serials that begin with the query can be found now."""


class Index(Protocol):
    """Finds users and tokens without reading all of them."""

    async def find(
        self, transaction: "ReadTransaction", kind: Kind, query: str
    ) -> Candidates:
        """Return the users or tokens with the words of a query."""

    async def sounding(
        self, transaction: "ReadTransaction", query: str
    ) -> tuple[str, ...]:
        """Return the name keys of users whose names sound like a query."""


class DamagedFileError(sqlite3.OperationalError):
    """A page of the state, or of the file with sealed audit events, cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTransaction:
    """
    The state at *applied_index*, for the queries of this package.

    Each raises `DamagedFileError` for a page that cannot be read, and `sqlite3.Error`.
    """

    connection: Connection
    applied_index: int
    index: Index | None = None
    on_damage: Callable[[str], object] = lambda _: None
    """Called with the cause when a page could not be read."""

    async def find(self, kind: Kind, query: str) -> Candidates:
        """Return the users or tokens with the words of a query."""
        if self.index is None or not query:
            return Candidates(keys=None)
        return await self.index.find(self, kind, query)

    async def sounding(self, query: str) -> tuple[str, ...]:
        """Return the name keys of users whose names sound like a query."""
        if self.index is None or not query:
            return ()
        return await self.index.sounding(self, query)

    async def one(self, sql: str, **values: Value) -> sqlite3.Row | None:
        """Return the first row of a query, or None."""
        return next(iter(await self.all(sql, **values)), None)

    async def all(self, sql: str, **values: Value) -> list[sqlite3.Row]:
        """Return all rows of a query."""
        # Fetch all rows at once. A caller canceled between two fetches would leave an
        # unfinished statement, and SQLite keeps its snapshot even after a rollback. The
        # connection's next reader would then see old data, whatever its barrier.
        try:
            return list(await self.connection.execute_fetchall(sql, values))
        except sqlite3.DatabaseError as error:
            if not is_of_rot(error):
                raise
            self.on_damage(str(error))
            raise DamagedFileError(str(error)) from error


def applied_index(db: sqlite3.Connection) -> int:
    """Return the applied index. This first read also fixes what later reads see."""
    row = db.execute(APPLIED_INDEX).fetchone()
    return int(row[0]) if row else 0
