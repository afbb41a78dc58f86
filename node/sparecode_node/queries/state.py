# SPDX-License-Identifier: Apache-2.0
"""
The state that this node has applied, open for reading only.

Each use of it is one SQLite read transaction: what it sees is the state at one
index, and it says which. To see what was committed lately, pass the barrier
first (`services/reading.py`).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import aiosqlite


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadTransaction:
    """The state at *applied_index*, for the queries of this package."""

    connection: aiosqlite.Connection
    applied_index: int


class LocalState:
    """A few read-only connections to the state's file, lent one at a time."""

    def __init__(self, connections: "asyncio.Queue[aiosqlite.Connection]") -> None:
        self._idle = connections
        self._size = connections.qsize()

    @classmethod
    async def open(cls, path: Path, *, connections: int = 4) -> Self:
        """Open *path*, which the state machine has made before."""
        idle: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
        for _ in range(connections):
            connection = await aiosqlite.connect(
                read_only_uri(path), uri=True, isolation_level=None
            )
            await connection.execute("PRAGMA query_only = ON")
            idle.put_nowait(connection)
        return cls(idle)

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
            try:
                yield ReadTransaction(
                    connection=connection,
                    applied_index=await _applied_index(connection),
                )
            finally:
                await connection.execute("ROLLBACK")
        finally:
            self._idle.put_nowait(connection)


def read_only_uri(path: Path) -> str:
    """Return the URI by which SQLite opens *path* and never writes."""
    return f"{path.absolute().as_uri()}?mode=ro"


async def _applied_index(connection: aiosqlite.Connection) -> int:
    """Read how far the state is."""
    raise NotImplementedError
