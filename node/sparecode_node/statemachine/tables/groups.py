# SPDX-License-Identifier: Apache-2.0
"""Rows of groups: their users, and the agents that admit them (A4)."""

import sqlite3
from collections.abc import Sequence

from sparecode_node.domain.ids import AgentIdentity, GroupKey, UserId


def change_memberships(
    db: sqlite3.Connection,
    user_id: UserId,
    *,
    joined: Sequence[GroupKey],
    left: Sequence[GroupKey],
) -> int:
    """Add a user to groups and remove them from others; return the number of groups."""
    db.executemany(
        "INSERT OR IGNORE INTO user_groups (user_id, group_key) VALUES (?, ?)",
        [(user_id, group) for group in joined],
    )
    db.executemany(
        "DELETE FROM user_groups WHERE user_id = ? AND group_key = ?",
        [(user_id, group) for group in left],
    )
    (count,) = db.execute(
        "SELECT count(*) FROM user_groups WHERE user_id = ?", (user_id,)
    ).fetchone()
    return int(count)


def change_allowed(
    db: sqlite3.Connection,
    identity: AgentIdentity,
    *,
    added: Sequence[GroupKey],
    removed: Sequence[GroupKey],
) -> int:
    """Add groups to an agent's allow list and remove others; return their number."""
    db.executemany(
        "INSERT OR IGNORE INTO agent_groups (identity, group_key) VALUES (?, ?)",
        [(identity, group) for group in added],
    )
    db.executemany(
        "DELETE FROM agent_groups WHERE identity = ? AND group_key = ?",
        [(identity, group) for group in removed],
    )
    (count,) = db.execute(
        "SELECT count(*) FROM agent_groups WHERE identity = ?", (identity,)
    ).fetchone()
    return int(count)
