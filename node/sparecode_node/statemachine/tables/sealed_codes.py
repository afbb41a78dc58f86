# SPDX-License-Identifier: Apache-2.0
"""Rows of codes that were sent as a sealed message, and wait to be opened (I13)."""

import sqlite3

from sparecode_node.domain.ids import SetId
from sparecode_node.domain.sealed_codes import SealedCodes
from sparecode_node.statemachine.tables.rows import upsert

SEALED_CODE_TABLES = """
CREATE TABLE sealed_codes (             -- encrypted for a link that was mailed, see I13
    set_id TEXT PRIMARY KEY REFERENCES code_sets (set_id) ON DELETE CASCADE,
    opener TEXT NOT NULL UNIQUE,     -- SHA-256 of what the link's page sends, hex
    ciphertext BLOB NOT NULL,        -- no key of the cluster opens it
    recipient TEXT NOT NULL,         -- the address that the link was mailed to
    ends_at_ms INTEGER NOT NULL,
    page TEXT NOT NULL,              -- SHA-256, hex: which page opened it; empty: none
    to_manager INTEGER NOT NULL      -- whether the recipient is the user's manager
) STRICT, WITHOUT ROWID;
CREATE INDEX sealed_codes_by_end ON sealed_codes (ends_at_ms);
"""

_COLUMNS = "set_id, opener, ciphertext, recipient, ends_at_ms, page, to_manager"


def save(db: sqlite3.Connection, sealed: SealedCodes) -> None:
    """Save sealed codes."""
    upsert(
        db,
        "sealed_codes",
        ("set_id",),
        set_id=sealed.set_id,
        opener=sealed.opener,
        ciphertext=sealed.ciphertext,
        recipient=sealed.recipient,
        ends_at_ms=sealed.ends_at_ms,
        page=sealed.page,
        to_manager=sealed.to_manager,
    )


def by_opener(db: sqlite3.Connection, opener: str) -> SealedCodes | None:
    """Return the codes that a link opens."""
    return _find(db, "opener = ?", opener)


def of_set(db: sqlite3.Connection, set_id: SetId) -> SealedCodes | None:
    """Return the sealed codes of a set."""
    return _find(db, "set_id = ?", set_id)


def ended(db: sqlite3.Connection, now_ms: int) -> list[SealedCodes]:
    """Return those whose time has passed, the oldest first."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM sealed_codes WHERE ends_at_ms <= ? "
        "ORDER BY ends_at_ms, set_id",
        (now_ms,),
    ).fetchall()
    return [_sealed(row) for row in rows]


def delete(db: sqlite3.Connection, set_id: SetId) -> None:
    """Delete the sealed codes of a set."""
    db.execute("DELETE FROM sealed_codes WHERE set_id = ?", (set_id,))


def _find(db: sqlite3.Connection, where: str, value: str) -> SealedCodes | None:
    row = db.execute(
        f"SELECT {_COLUMNS} FROM sealed_codes WHERE {where}", (value,)
    ).fetchone()
    return _sealed(row) if row else None


def _sealed(row: tuple[str, str, bytes, str, int, str, int]) -> SealedCodes:
    return SealedCodes(
        set_id=SetId(row[0]),
        opener=row[1],
        ciphertext=row[2],
        recipient=row[3],
        ends_at_ms=row[4],
        page=row[5],
        to_manager=bool(row[6]),
    )
