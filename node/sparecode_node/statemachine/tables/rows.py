# SPDX-License-Identifier: Apache-2.0
"""Rows in general, and how they are saved."""

import sqlite3
from typing import Any

Row = tuple[Any, ...]
"""One row from sqlite3, with the columns that the statement names."""


def upsert(
    db: sqlite3.Connection, table: str, keys: tuple[str, ...], **columns: object
) -> None:
    """Insert a row, or replace the columns of the one with the same keys."""
    names = ", ".join(columns)
    marks = ", ".join("?" * len(columns))
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns)
    # Table and column names come from this package; values are always bound.
    db.execute(
        f"INSERT INTO {table} ({names}) VALUES ({marks}) "
        f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changes}",
        tuple(columns.values()),
    )
