# SPDX-License-Identifier: Apache-2.0
"""
The state that this node has applied, opened read-only.

Each use is one SQLite read transaction. It sees the state at one index, and tells
which. To see recent commits, pass the read barrier first (`services/reading.py`).
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Self, TypeVar

import aiosqlite

from sparecode_node.queries.batched_reads import BatchedReads, Query
from sparecode_node.queries.search_index import SearchIndex
from sparecode_node.queries.search_words import matches
from sparecode_node.queries.transaction import APPLIED_INDEX, ReadTransaction
from sparecode_node.statemachine.sealed_events import open_log

__all__ = ["LocalState", "ReadTransaction"]

T = TypeVar("T")

log = logging.getLogger(__name__)


class LocalState:
    """
    Lends a few read-only connections to the state's file, one reader each.

    Batched reads share one more connection, see `at_once`.
    """

    def __init__(
        self, path: Path, small_reads: BatchedReads, search: SearchIndex
    ) -> None:
        self._path = path
        self._small_reads = small_reads
        self.search = search
        self._idle: asyncio.Queue[tuple[int, aiosqlite.Connection]] = asyncio.Queue()
        """Each with the generation of the files that it has open."""
        self._generation = 0
        self._size = 0
        self._returning: set[asyncio.Future[None]] = set()
        self.on_damage: Callable[[], object] = lambda: None
        """Called when a reader could not read one of the files."""

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        connections: int = 4,
        on_damage: Callable[[], object] = lambda: None,
    ) -> Self:
        """Open *path*, which the state machine has created; *on_damage* as the attribute."""
        search = SearchIndex(path.with_name(f"{path.stem}-search.db"))
        state = cls(path, BatchedReads(await asyncio.to_thread(_open, path)), search)
        state.on_damage = on_damage
        try:
            for _ in range(connections):
                state._idle.put_nowait((0, await _connect(path)))
                state._size += 1
        except BaseException:
            await state.close()
            raise
        return state

    async def close(self) -> None:
        """Close the connections, each after its reader has finished."""
        for _ in range(self._size):
            _, connection = await self._idle.get()
            await connection.close()
        await self._small_reads.close()
        await self.search.close()

    async def reopen(self) -> None:
        """Open the files again, because one was replaced; each connection after its reader."""
        self._generation += 1
        for _ in range(self._size):
            async with self.transaction():
                pass  # It is opened again when it comes back.

    async def at_once(self, query: Query[T]) -> T:
        """
        Return the result of *query*, which looks up a few rows by their keys.

        For the reads that every passcode needs: they do not lend a connection, and
        those that arrive together share a transaction. *query* may await nothing but
        its transaction.
        """
        return await self._small_reads.read(query)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[ReadTransaction]:
        """Lend a connection, inside a read transaction."""
        generation, connection = await self._idle.get()
        try:
            await connection.execute("BEGIN")
            yield ReadTransaction(
                connection=connection,
                applied_index=await _applied_index(connection),
                index=self.search,
                on_damage=self._note_damage,
            )
        finally:
            # The reader may be canceled above, and again here. The connection must
            # come back in any case.
            returning = asyncio.ensure_future(self._give_back(generation, connection))
            self._returning.add(returning)
            returning.add_done_callback(self._returning.discard)
            await asyncio.shield(returning)

    def _note_damage(self, cause: str) -> None:
        log.error("state_not_readable", extra={"cause": cause})
        self.on_damage()

    async def _give_back(
        self, generation: int, connection: aiosqlite.Connection
    ) -> None:
        """End the transaction, if any, and make the connection available again."""
        try:
            await connection.rollback()
            if generation != self._generation:
                generation, connection = await self._renewed(generation, connection)
        finally:
            self._idle.put_nowait((generation, connection))

    async def _renewed(
        self, generation: int, connection: aiosqlite.Connection
    ) -> tuple[int, aiosqlite.Connection]:
        newest = self._generation
        try:
            opened = await _connect(self._path)
        except (sqlite3.Error, OSError) as error:  # It is tried after the next reader.
            log.warning("state_not_opened", extra={"cause": str(error)})
            return generation, connection
        await connection.close()
        return newest, opened


def _open(path: Path) -> sqlite3.Connection:
    opened = open_log(path, any_thread=True)
    opened.row_factory = sqlite3.Row
    opened.execute("PRAGMA query_only = ON")
    opened.create_function("found", -1, _found, deterministic=True)
    return opened


def _found(query: str, *fields: str | None) -> bool:
    """Return whether the words of a query are in the fields, for display only."""
    return matches(query, (field or "" for field in fields))


async def _connect(path: Path) -> aiosqlite.Connection:
    """
    Open one read-only connection.

    Open the file before giving it to aiosqlite. If aiosqlite fails to open a file, it
    leaves a thread behind that fails once the event loop is closed.
    """
    opened = await asyncio.to_thread(_open, path)
    return await aiosqlite.Connection(lambda: opened, iter_chunk_size=64)


async def _applied_index(connection: aiosqlite.Connection) -> int:
    """Return the applied index. This first read also fixes what later reads see."""
    rows = await connection.execute_fetchall(APPLIED_INDEX)
    row = next(iter(rows), None)
    return int(row[0]) if row else 0
