# SPDX-License-Identifier: Apache-2.0
"""Rows of the authorities' keys that members have had, and of those that are due (P6a)."""

import sqlite3
from collections.abc import Iterable
from typing import Any

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import (
    AuthorityKey,
    AuthorityKind,
    DueCause,
    Successor,
)

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
    started INTEGER NOT NULL,        -- a member is to make a successor
    PRIMARY KEY (authority, fingerprint, node_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE authority_successors (  -- each node checks the proof, see P6a
    authority TEXT NOT NULL,
    replaces TEXT NOT NULL,          -- fingerprint of the authority that was due
    node_id TEXT NOT NULL,           -- the member that has made it
    fingerprint TEXT NOT NULL,
    certificate BLOB NOT NULL,       -- DER
    proof BLOB NOT NULL,             -- signature by the key of the replaced one
    since_ms INTEGER NOT NULL,
    sole INTEGER NOT NULL,           -- the replaced one is trusted no longer
    PRIMARY KEY (authority, replaces, node_id)
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
    *,
    started: bool,
) -> None:
    """
    Record that an authority is due, and whether its replacement is started.

    It keeps its time, a request is a new cause, and what is started stays so.
    """
    db.execute(
        "INSERT INTO due_authorities "
        "(authority, fingerprint, node_id, since_ms, cause, started) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        f"cause = CASE excluded.cause WHEN '{DueCause.REQUEST}' "
        "THEN excluded.cause ELSE cause END, "
        "started = max(started, excluded.started)",
        (key.authority, key.fingerprint, node_id, now_ms, cause, int(started)),
    )


def start(db: sqlite3.Connection, node_id: NodeId) -> tuple[AuthorityKey, ...]:
    """Start to replace what is due because of a member; return these authorities."""
    db.execute("UPDATE due_authorities SET started = 1 WHERE node_id = ?", (node_id,))
    return due_keys(db, node_id)


def is_started(db: sqlite3.Connection, key: AuthorityKey) -> bool:
    """Return whether an authority is due and its replacement is started."""
    row = db.execute(
        "SELECT 1 FROM due_authorities "
        "WHERE authority = ? AND fingerprint = ? AND started",
        (key.authority, key.fingerprint),
    ).fetchone()
    return row is not None


def is_due(db: sqlite3.Connection, key: AuthorityKey) -> bool:
    """Return whether an authority is due because of any removed member."""
    row = db.execute(
        "SELECT 1 FROM due_authorities WHERE authority = ? AND fingerprint = ?",
        (key.authority, key.fingerprint),
    ).fetchone()
    return row is not None


def successors(db: sqlite3.Connection) -> tuple[Successor, ...]:
    """Return the announced successors, the earliest first."""
    return successors_in(db.execute(ALL_SUCCESSORS))


ALL_SUCCESSORS = (
    "SELECT authority, replaces, node_id, fingerprint, certificate, proof, since_ms, "
    "sole FROM authority_successors ORDER BY since_ms, node_id, authority, replaces"
)


def successors_in(
    rows: Iterable[sqlite3.Row | tuple[Any, ...]],
) -> tuple[Successor, ...]:
    """Return the successors in rows of `ALL_SUCCESSORS`."""
    return tuple(
        Successor(
            authority=AuthorityKind(row[0]),
            replaces=row[1],
            node_id=NodeId(row[2]),
            fingerprint=row[3],
            certificate=row[4],
            proof=row[5],
            since_ms=row[6],
            sole=bool(row[7]),
        )
        for row in rows
    )


def save_successor(db: sqlite3.Connection, successor: Successor) -> None:
    """Save a successor, in place of an earlier one that its maker announced."""
    db.execute(
        "INSERT OR REPLACE INTO authority_successors (authority, replaces, node_id, "
        "fingerprint, certificate, proof, since_ms, sole) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            successor.authority,
            successor.replaces,
            successor.node_id,
            successor.fingerprint,
            successor.certificate,
            successor.proof,
            successor.since_ms,
            int(successor.sole),
        ),
    )


def forget_successors(db: sqlite3.Connection, replaced: AuthorityKey) -> None:
    """Forget the successors of an authority that are not in its place yet."""
    db.execute(
        "DELETE FROM authority_successors "
        "WHERE authority = ? AND replaces = ? AND NOT sole",
        (replaced.authority, replaced.fingerprint),
    )


def due_because_of(db: sqlite3.Connection, node_id: NodeId) -> str:
    """Return in words what is due because of a member, and why."""
    rows = db.execute(
        "SELECT authority, fingerprint, cause FROM due_authorities WHERE node_id = ? "
        "ORDER BY authority DESC, fingerprint",
        (node_id,),
    )
    return ", ".join(" ".join(row) for row in rows)


def due_keys(db: sqlite3.Connection, node_id: NodeId) -> tuple[AuthorityKey, ...]:
    """Return the authorities that are due because of a member."""
    rows = db.execute(
        "SELECT authority, fingerprint FROM due_authorities WHERE node_id = ? "
        "ORDER BY authority DESC, fingerprint",
        (node_id,),
    )
    return keys_in(rows)


def forget_due(db: sqlite3.Connection, node_id: NodeId) -> tuple[AuthorityKey, ...]:
    """Forget that authorities are due because of a member; return these."""
    keys = due_keys(db, node_id)
    db.execute("DELETE FROM due_authorities WHERE node_id = ?", (node_id,))
    return keys


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
