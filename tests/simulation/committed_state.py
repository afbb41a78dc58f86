# SPDX-License-Identifier: Apache-2.0
"""The state of a simulated machine, as the product's queries read it."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

from sparecode_node.queries.transaction import ReadTransaction, applied_index
from tests.simulation.sealed import add_sealed
from tests.simulation.sqlite_store import SqliteStore


class _Rows:
    """A connection to a copy of what a node has committed."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    async def execute_fetchall(
        self, sql: str, parameters: Any = None
    ) -> list[sqlite3.Row]:
        return self._db.execute(sql, parameters or {}).fetchall()


class CommittedState:
    """The state of a node, as its readers see it: committed, at one index."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._image: bytes | None = None
        self._db: sqlite3.Connection | None = None

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[ReadTransaction]:
        """Lend a copy."""
        image = self._store.committed()
        if image is not self._image or self._db is None:
            self.close()
            self._db = sqlite3.connect(":memory:", isolation_level=None)
            self._db.deserialize(image)
            self._db.row_factory = sqlite3.Row
            add_sealed(self._db, self._store.sealed)
            self._image = image
        yield ReadTransaction(
            connection=_Rows(self._db), applied_index=applied_index(self._db)
        )

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
