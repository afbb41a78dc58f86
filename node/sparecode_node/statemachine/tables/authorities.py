# SPDX-License-Identifier: Apache-2.0
"""Rows of the authorities' keys that members have had, and of those that are due (P6a)."""

import sqlite3
from collections.abc import Iterable

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import AuthorityKey, AuthorityKind, DueCause

AUTHORITY_TABLES = """
CREATE TABLE authority_keys (           -- members that were given them, see P6a
    node_id TEXT NOT NULL,           -- also of removed members
    authority TEXT NOT NULL,         -- members, agents
    fingerprint TEXT NOT NULL,       -- SHA-256 of the public key, hex
    since_ms INTEGER NOT NULL,
    PRIMARY KEY (node_id, authority, fingerprint)
) STRICT, WITHOUT ROWID;

CREATE TABLE due_authorities (          -- to be replaced, see P6a
    authority TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    node_id TEXT NOT NULL,           -- the removed member that has had the key
    since_ms INTEGER NOT NULL,
    cause TEXT NOT NULL,             -- policy, request
    PRIMARY KEY (authority, fingerprint, node_id)
) STRICT, WITHOUT ROWID;
"""


def keys_in(rows: Iterable[sqlite3.Row | tuple[str, str]]) -> tuple[AuthorityKey, ...]:
    """Return the keys in rows that begin with authority and fingerprint."""
    return tuple(
        AuthorityKey(authority=AuthorityKind(row[0]), fingerprint=row[1])
        for row in rows
    )


def keys_of(db: sqlite3.Connection, node_id: NodeId) -> tuple[AuthorityKey, ...]:
    """Return the keys that a member has had."""
    rows = db.execute(
        "SELECT authority, fingerprint FROM authority_keys WHERE node_id = ? "
        "ORDER BY authority DESC, fingerprint",
        (node_id,),
    )
    return keys_in(rows)


def count_keys(db: sqlite3.Connection, node_id: NodeId) -> int:
    """Return how many keys a member has had."""
    count: int = db.execute(
        "SELECT count(*) FROM authority_keys WHERE node_id = ?", (node_id,)
    ).fetchone()[0]
    return count


def save_key(
    db: sqlite3.Connection, node_id: NodeId, key: AuthorityKey, now_ms: int
) -> None:
    """Record that a member has a key; a key that is recorded keeps its time."""
    db.execute(
        "INSERT OR IGNORE INTO authority_keys "
        "(node_id, authority, fingerprint, since_ms) VALUES (?, ?, ?, ?)",
        (node_id, key.authority, key.fingerprint, now_ms),
    )


def save_due(
    db: sqlite3.Connection,
    node_id: NodeId,
    key: AuthorityKey,
    now_ms: int,
    cause: DueCause,
) -> None:
    """Record that an authority is due; it keeps its time, and a request is a new cause."""
    db.execute(
        "INSERT INTO due_authorities "
        "(authority, fingerprint, node_id, since_ms, cause) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET cause = excluded.cause "
        f"WHERE excluded.cause = '{DueCause.REQUEST}'",
        (key.authority, key.fingerprint, node_id, now_ms, cause),
    )


def due_because_of(db: sqlite3.Connection, node_id: NodeId) -> str:
    """Return in words what is due because of a member, and why."""
    rows = db.execute(
        "SELECT authority, fingerprint, cause FROM due_authorities WHERE node_id = ? "
        "ORDER BY authority DESC, fingerprint",
        (node_id,),
    )
    return ", ".join(" ".join(row) for row in rows)


def forget_due(db: sqlite3.Connection, node_id: NodeId) -> tuple[AuthorityKey, ...]:
    """Forget that authorities are due because of a member; return these."""
    rows = db.execute(
        "SELECT authority, fingerprint FROM due_authorities WHERE node_id = ? "
        "ORDER BY authority DESC, fingerprint",
        (node_id,),
    ).fetchall()
    db.execute("DELETE FROM due_authorities WHERE node_id = ?", (node_id,))
    return keys_in(rows)


def forget(db: sqlite3.Connection, key: AuthorityKey) -> tuple[NodeId, ...]:
    """Forget everything about an authority; return the members that had its key."""
    found = (key.authority, key.fingerprint)
    rows = db.execute(
        "SELECT node_id FROM authority_keys WHERE authority = ? AND fingerprint = ? "
        "UNION SELECT node_id FROM due_authorities "
        "WHERE authority = ? AND fingerprint = ? ORDER BY node_id",
        found * 2,
    ).fetchall()
    for table in ("authority_keys", "due_authorities"):
        db.execute(
            f"DELETE FROM {table} WHERE authority = ? AND fingerprint = ?", found
        )
    return tuple(NodeId(node_id) for (node_id,) in rows)
