# SPDX-License-Identifier: Apache-2.0
"""Rows of the tables, and how they are written."""

import sqlite3
from typing import Any

Row = tuple[Any, ...]
"""One row, as sqlite3 gives it: its columns are what the statement names."""


def upsert(
    db: sqlite3.Connection, table: str, keys: tuple[str, ...], **columns: object
) -> None:
    """Insert a row, or replace the columns of the one with the same keys."""
    names = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns)
    # Table and column names are this module's own; values are always bound.
    db.execute(
        f"INSERT INTO {table} ({names}) VALUES ({marks}) "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}",
        tuple(columns.values()),
    )
