# SPDX-License-Identifier: Apache-2.0
"""Rows of `meta`: single values of the state, see schema.py."""

import json
import sqlite3
from typing import Any


def read(db: sqlite3.Connection, name: str, default: Any) -> Any:  # noqa: ANN401  as SQLite has it
    """Return a value, or *default* if it is not set."""
    row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return row[0] if row else default


def clear(db: sqlite3.Connection, name: str) -> None:
    """Delete a value."""
    db.execute("DELETE FROM meta WHERE name = ?", (name,))


def write(db: sqlite3.Connection, name: str, value: int | str) -> None:
    """Write a value."""
    db.execute(
        "INSERT INTO meta (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


def former_cluster_ids(db: sqlite3.Connection) -> list[str]:
    """Return the ids that the cluster had before it was restored or recovered."""
    ids: list[str] = json.loads(read(db, _FORMER_IDS, "[]"))
    return ids


def keep_cluster_id(db: sqlite3.Connection) -> None:
    """Add the present id to the former ones."""
    ids = [*former_cluster_ids(db), str(read(db, "cluster_id", ""))]
    write(db, _FORMER_IDS, json.dumps(ids))


_FORMER_IDS = "former_cluster_ids"
