# SPDX-License-Identifier: Apache-2.0
"""
The state that this node has applied, open for reading only.

Each use of it is one SQLite read transaction: what it sees is the state at one
index, and it says which. To see what was committed lately, pass the barrier
first (`services/reading.py`).
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import aiosqlite

Value = str | bytes | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTransaction:
    """The state at *applied_index*, for the queries of this package."""

    connection: aiosqlite.Connection
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


class LocalState:
    """A few read-only connections to the state's file, lent one at a time."""

    def __init__(self, connections: "asyncio.Queue[aiosqlite.Connection]") -> None:
        self._idle = connections
        self._size = connections.qsize()
        self._returning: set[asyncio.Future[None]] = set()

    @classmethod
    async def open(cls, path: Path, *, connections: int = 4) -> Self:
        """Open *path*, which the state machine has made before."""
        state = cls(asyncio.Queue())
        try:
            for _ in range(connections):
                state._idle.put_nowait(await _connect(path))
                state._size += 1
        except BaseException:
            await state.close()
            raise
        return state

    async def close(self) -> None:
        """Close the connections, each when its reader is done."""
        for _ in range(self._size):
            connection = await self._idle.get()
            await connection.close()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[ReadTransaction]:
        """Lend a connection, inside a read transaction."""
        connection = await self._idle.get()
        try:
            await connection.execute("BEGIN")
            yield ReadTransaction(
                connection=connection, applied_index=await _applied_index(connection)
            )
        finally:
            # Whoever reads may be cancelled anywhere above, and here again; the
            # connection comes back all the same.
            returning = asyncio.ensure_future(self._give_back(connection))
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
            await asyncio.shield(returning)

    async def _give_back(self, connection: aiosqlite.Connection) -> None:
        """End the transaction, if it was begun, and let the next one have it."""
        try:
            await connection.rollback()
        finally:
            self._idle.put_nowait(connection)


def read_only_uri(path: Path) -> str:
    """Return the URI by which SQLite opens *path* and never writes."""
    return f"{path.absolute().as_uri()}?mode=ro"


async def _connect(path: Path) -> aiosqlite.Connection:
    """
    Open one connection, which cannot write.

    SQLite opens the file before aiosqlite has a thread for it: of a file that
    cannot be opened, aiosqlite would leave a thread behind that nobody awaits,
    and that fails when the loop is closed before it has ended.
    """

    def connect() -> sqlite3.Connection:
        opened = sqlite3.connect(
            read_only_uri(path), uri=True, isolation_level=None, check_same_thread=False
        )
        opened.row_factory = sqlite3.Row
        opened.execute("PRAGMA query_only = ON")
        return opened

    opened = await asyncio.to_thread(connect)
    return await aiosqlite.Connection(lambda: opened, iter_chunk_size=64)


async def _applied_index(connection: aiosqlite.Connection) -> int:
    """Read how far the state is; the first read also fixes what the rest sees."""
    rows = await connection.execute_fetchall(
        "SELECT value FROM meta WHERE name = 'applied_index'"
    )
    row = next(iter(rows), None)
    return int(row[0]) if row else 0
