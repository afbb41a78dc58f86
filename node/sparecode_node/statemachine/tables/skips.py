# SPDX-License-Identifier: Apache-2.0
"""Rows of skipped entries, and of the members' statements about them."""

import sqlite3

SKIP_TABLES = """
CREATE TABLE skipped_entries (
    entry INTEGER PRIMARY KEY,       -- its index
    term INTEGER NOT NULL,
    digest TEXT NOT NULL,            -- SHA-256 of its bytes, hex
    cluster_id TEXT NOT NULL,        -- the cluster whose members decided it
    at_ms INTEGER NOT NULL           -- the state's time then
) STRICT;

CREATE TABLE skip_statements (
    entry INTEGER NOT NULL REFERENCES skipped_entries (entry),
    member TEXT NOT NULL,            -- whose key signed it
    operator TEXT NOT NULL,
    reason TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    statement TEXT NOT NULL,         -- whole, with its signature
    PRIMARY KEY (entry, member)
) STRICT, WITHOUT ROWID;
"""


def add_entry(
    db: sqlite3.Connection,
    index: int,
    term: int,
    digest: str,
    *,
    cluster_id: str,
    at_ms: int,
) -> None:
    """Add a skipped entry."""
    db.execute(
        "INSERT INTO skipped_entries (entry, term, digest, cluster_id, at_ms) "
        "VALUES (?, ?, ?, ?, ?)",
        (index, term, digest, cluster_id, at_ms),
    )


def skipped_entries(db: sqlite3.Connection) -> tuple[tuple[int, int, str, str], ...]:
    """Return index, term, digest and cluster of all skipped entries, oldest first."""
    return tuple(
        db.execute(
            "SELECT entry, term, digest, cluster_id FROM skipped_entries ORDER BY entry"
        )
    )


def add_statement(
    db: sqlite3.Connection,
    index: int,
    digest: str,
    member: str,
    *,
    operator: str,
    reason: str,
    at_ms: int,
    statement: str,
) -> bool:
    """Add a member's statement, the first counts; return False if the entry was not skipped."""
    row = db.execute(
        "SELECT 1 FROM skipped_entries WHERE entry = ? AND digest = ?", (index, digest)
    ).fetchone()
    if row is None:
        return False
    db.execute(
        "INSERT OR IGNORE INTO skip_statements "
        "(entry, member, operator, reason, at_ms, statement) VALUES (?, ?, ?, ?, ?, ?)",
        (index, member, operator, reason, at_ms, statement),
    )
    return True
