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
from pathlib import Path
from typing import Self, TypeVar

import aiosqlite

from sparecode_node.domain.users import fold
from sparecode_node.queries.batched_reads import BatchedReads, Query
from sparecode_node.queries.transaction import APPLIED_INDEX, ReadTransaction
from sparecode_node.statemachine.tables.schema import read_only_uri

__all__ = ["LocalState", "ReadTransaction"]

T = TypeVar("T")


class LocalState:
    """
    A few read-only connections to the state's file, lent one at a time.

    One more is shared by all who read little, see `at_once`.
    """

    def __init__(self, small_reads: BatchedReads) -> None:
        self._small_reads = small_reads
        self._idle: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
        self._size = 0
        self._returning: set[asyncio.Future[None]] = set()

    @classmethod
    async def open(cls, path: Path, *, connections: int = 4) -> Self:
        """Open *path*, which the state machine has made before."""
        state = cls(BatchedReads(await asyncio.to_thread(_open, path)))
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
        await self._small_reads.close()

    async def at_once(self, query: Query[T]) -> T:
        """
        Return what *query* finds, which looks up a few rows by their keys.

        For what every passcode needs: no connection is lent, and all who ask at a
        time share a transaction. *query* may wait for nothing but that.
        """
        return await self._small_reads.read(query)

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


def _open(path: Path) -> sqlite3.Connection:
    opened = sqlite3.connect(
        read_only_uri(path), uri=True, isolation_level=None, check_same_thread=False
    )
    opened.row_factory = sqlite3.Row
    opened.execute("PRAGMA query_only = ON")
    opened.create_function("folded", 1, _folded, deterministic=True)
    return opened


def _folded(text: str | None) -> str | None:
    """
    Fold what is searched as what is searched for is: SQLite's `lower` knows ASCII only.

    For reading alone: what decides must not hang on tables of Unicode.
    """
    return None if text is None else fold(text)


async def _connect(path: Path) -> aiosqlite.Connection:
    """
    Open one connection, which cannot write.

    SQLite opens the file before aiosqlite has a thread for it: of a file that
    cannot be opened, aiosqlite would leave a thread behind that nobody awaits,
    and that fails when the loop is closed before it has ended.
    """
    opened = await asyncio.to_thread(_open, path)
    return await aiosqlite.Connection(lambda: opened, iter_chunk_size=64)


async def _applied_index(connection: aiosqlite.Connection) -> int:
    """Read how far the state is; the first read also fixes what the rest sees."""
    rows = await connection.execute_fetchall(APPLIED_INDEX)
    row = next(iter(rows), None)
    return int(row[0]) if row else 0
