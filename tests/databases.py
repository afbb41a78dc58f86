# SPDX-License-Identifier: Apache-2.0
"""SQLite databases that are closed when their test ends, however it ends."""

import sqlite3
from pathlib import Path
from typing import Any, TypeVar

Database = TypeVar("Database", bound=sqlite3.Connection)

_opened: list[sqlite3.Connection] = []


class WithoutLog(sqlite3.Connection):
    """Gets no write-ahead log, as after an error of the disk: SQLite raises none."""

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        return super().execute(sql.removesuffix(" = WAL"), *values)


def open_database(
    path: str | Path = ":memory:", factory: type[Database] | None = None
) -> Database:
    """
    Open a database; `tests/conftest.py` closes it after the test.

    Since Python 3.13 a connection that is dropped unclosed is a warning, and
    warnings are errors.
    """
    db = sqlite3.connect(path, factory=factory or sqlite3.Connection)
    _opened.append(db)
    return db  # type: ignore[return-value]


def close_databases() -> None:
    """Close every database that is still open."""
    while _opened:
        _opened.pop().close()
