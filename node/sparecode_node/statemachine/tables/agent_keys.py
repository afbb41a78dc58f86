# SPDX-License-Identifier: Apache-2.0
"""Rows of the bearer keys of agents. A key itself is in no row."""

import json
import sqlite3
from collections.abc import Sequence

from sparecode_node.domain.agents import REPLACED_KEYS_MAX
from sparecode_node.domain.ids import AgentIdentity
from sparecode_node.domain.policy import TIME_MS_MAX

AGENT_KEY_TABLES = """
CREATE TABLE agent_keys (               -- bearer keys of agents that call by HTTP
    bearer_id TEXT PRIMARY KEY,
    identity TEXT NOT NULL REFERENCES agents (identity) ON DELETE CASCADE,
    digest BLOB NOT NULL UNIQUE,        -- SHA-256 of the key, which is random
    networks TEXT NOT NULL,             -- JSON; empty: from any address
    created_at_ms INTEGER NOT NULL,
    ends_at_ms INTEGER                  -- NULL: the current key
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_keys_by_agent ON agent_keys (identity);
CREATE INDEX agent_keys_by_end ON agent_keys (ends_at_ms);
"""
"""Here, because `schema` has 500 lines already."""


def add_key(
    db: sqlite3.Connection,
    identity: AgentIdentity,
    *,
    bearer_id: str,
    digest: bytes,
    networks: Sequence[str],
    created_at_ms: int,
) -> None:
    """Add the key that an agent uses from now on."""
    db.execute(
        "INSERT INTO agent_keys "
        "(bearer_id, identity, digest, networks, created_at_ms, ends_at_ms) "
        "VALUES (?, ?, ?, ?, ?, NULL)",
        (bearer_id, identity, digest, json.dumps(list(networks)), created_at_ms),
    )


def has_key(db: sqlite3.Connection, bearer_id: str, digest: bytes) -> bool:
    """Return whether an agent has a key of this id, or of this digest."""
    return bool(
        db.execute(
            "SELECT 1 FROM agent_keys WHERE bearer_id = ? OR digest = ?",
            (bearer_id, digest),
        ).fetchone()
    )


def key_works(
    db: sqlite3.Connection, identity: AgentIdentity, bearer_id: str, now_ms: int
) -> bool:
    """Return whether an agent may still use the key of this id."""
    return bool(
        db.execute(
            "SELECT 1 FROM agent_keys WHERE bearer_id = ? AND identity = ? "
            "AND (ends_at_ms IS NULL OR ends_at_ms > ?)",
            (bearer_id, identity, now_ms),
        ).fetchone()
    )


def end_keys(
    db: sqlite3.Connection, identity: AgentIdentity, *, now_ms: int, overlap_ms: int
) -> None:
    """
    Let the current key of an agent end.

    Those replaced earlier keep their ends, because a copy of the program may still have
    one of them. Without an overlap all are deleted: one may have leaked.
    """
    if not overlap_ms:
        db.execute("DELETE FROM agent_keys WHERE identity = ?", (identity,))
        return
    db.execute(
        "UPDATE agent_keys SET ends_at_ms = ? "
        "WHERE identity = ? AND ends_at_ms IS NULL",
        (min(now_ms + overlap_ms, TIME_MS_MAX), identity),
    )
    db.execute(
        """
        DELETE FROM agent_keys WHERE identity = ?1 AND bearer_id NOT IN (
            SELECT bearer_id FROM agent_keys WHERE identity = ?1
            ORDER BY created_at_ms DESC, bearer_id LIMIT ?2)
        """,
        (identity, REPLACED_KEYS_MAX),
    )


def delete_replaced_keys(db: sqlite3.Connection) -> None:
    """Delete the replaced keys of all agents, before they end."""
    db.execute("DELETE FROM agent_keys WHERE ends_at_ms IS NOT NULL")
