# SPDX-License-Identifier: Apache-2.0
"""Rows of the ends of sets that are not told yet: once told, a row is deleted (N6)."""

import sqlite3

from sparecode_node.domain.ids import SetId
from sparecode_node.statemachine.tables.rows import upsert

SET_END_TABLES = """
CREATE TABLE set_ends (                 -- ends of sets by time that are not told yet
    set_id TEXT PRIMARY KEY REFERENCES code_sets (set_id) ON DELETE CASCADE,
    end_ms INTEGER NOT NULL,         -- of the set, or of its token
    due_ms INTEGER NOT NULL          -- it is judged then: later, while its user moves
) STRICT, WITHOUT ROWID;
CREATE INDEX set_ends_by_time ON set_ends (due_ms, set_id);
"""


def save(db: sqlite3.Connection, set_id: SetId, end_ms: int) -> None:
    """Save the end of a set: it will be told then."""
    upsert(db, "set_ends", ("set_id",), set_id=set_id, end_ms=end_ms, due_ms=end_ms)


def put_off(db: sqlite3.Connection, set_id: SetId, due_ms: int) -> None:
    """Save when a set is judged again. Its end stays: an old one is no news."""
    db.execute("UPDATE set_ends SET due_ms = ? WHERE set_id = ?", (due_ms, set_id))


def due(db: sqlite3.Connection, now_ms: int, *, most: int) -> list[tuple[SetId, int]]:
    """Return sets that are due, each with its end, the first due first: *most* at most."""
    rows = db.execute(
        "SELECT set_id, end_ms FROM set_ends WHERE due_ms <= ? "
        "ORDER BY due_ms, set_id LIMIT ?",
        (now_ms, most),
    )
    return [(SetId(set_id), end_ms) for set_id, end_ms in rows.fetchall()]


def delete(db: sqlite3.Connection, set_id: SetId) -> None:
    """Delete the end of a set: it is told, or never will be."""
    db.execute("DELETE FROM set_ends WHERE set_id = ?", (set_id,))
