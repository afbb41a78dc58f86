# SPDX-License-Identifier: Apache-2.0
"""Rows of requested resets of administrators (P4)."""

import sqlite3

from sparecode_node.domain.ids import AdministratorName, KeyId, NodeId
from sparecode_node.domain.resets import Reset

_COLUMNS = (
    "name, password_salt, password_verifier, key_id, second_factor, node_id, uid, "
    "asked_at_ms, due_at_ms"
)


def _reset(row: tuple[str, bytes, bytes, int, int, str, int, int, int]) -> Reset:
    return Reset(
        name=AdministratorName(row[0]),
        password_salt=row[1],
        password_verifier=row[2],
        key_id=KeyId(row[3]),
        second_factor=bool(row[4]),
        node_id=NodeId(row[5]),
        uid=row[6],
        asked_at_ms=row[7],
        due_at_ms=row[8],
    )


def find(db: sqlite3.Connection, name: AdministratorName) -> Reset | None:
    """Return the requested reset of an administrator."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM administrator_resets WHERE name = ?", (name,)
    ).fetchone()
    return _reset(row) if row else None


def all_of(db: sqlite3.Connection) -> list[Reset]:
    """Return all requested resets, by name."""
    rows = db.execute(f"SELECT {_COLUMNS} FROM administrator_resets ORDER BY name")
    return [_reset(row) for row in rows]


def due(db: sqlite3.Connection, now_ms: int) -> list[Reset]:
    """Return the resets that are due, in the order in which they became due."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM administrator_resets WHERE due_at_ms <= ? "
        "ORDER BY due_at_ms, name",
        (now_ms,),
    )
    return [_reset(row) for row in rows]


def add(db: sqlite3.Connection, reset: Reset) -> None:
    """Add a requested reset."""
    db.execute(
        f"INSERT INTO administrator_resets ({_COLUMNS}) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            reset.name,
            reset.password_salt,
            reset.password_verifier,
            reset.key_id,
            reset.second_factor,
            reset.node_id,
            reset.uid,
            reset.asked_at_ms,
            reset.due_at_ms,
        ),
    )


def delete(db: sqlite3.Connection, name: AdministratorName) -> None:
    """Delete the requested reset of an administrator."""
    db.execute("DELETE FROM administrator_resets WHERE name = ?", (name,))
