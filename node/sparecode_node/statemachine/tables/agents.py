# SPDX-License-Identifier: Apache-2.0
"""Rows of agents, allow lists and denied certificates."""

import sqlite3
from collections.abc import Sequence

from sparecode_node.domain.agents import Agent, Certificate, CertificateMark, Protects
from sparecode_node.domain.ids import AgentIdentity, NameKey, UserId

AGENT_COLUMNS = (
    "name, identity, protects, enabled, restricted, EXISTS "
    "(SELECT 1 FROM radius_clients WHERE radius_clients.identity = agents.identity)"
)


def _find_agent(db: sqlite3.Connection, where: str, value: object) -> Agent | None:
    row = db.execute(
        f"SELECT {AGENT_COLUMNS} FROM agents WHERE {where} = ?", (value,)
    ).fetchone()
    if row is None:
        return None
    return Agent(
        name=row[0],
        identity=row[1],
        protects=Protects(row[2]),
        enabled=bool(row[3]),
        restricted=bool(row[4]),
        by_radius=bool(row[5]),
    )


def find_agent(db: sqlite3.Connection, identity: AgentIdentity) -> Agent | None:
    """Return the agent with this certificate identity."""
    return _find_agent(db, "identity", identity)


def find_agent_by_name(db: sqlite3.Connection, name_key: NameKey) -> Agent | None:
    """Return the agent with this folded name."""
    return _find_agent(db, "name_key", name_key)


def save_agent(db: sqlite3.Connection, agent: Agent, name_key: NameKey) -> None:
    """Save an agent."""
    db.execute(
        "INSERT INTO agents (identity, name, name_key, protects, enabled, restricted) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (identity) DO UPDATE SET "
        "name = excluded.name, name_key = excluded.name_key, "
        "protects = excluded.protects, enabled = excluded.enabled, "
        "restricted = excluded.restricted",
        (
            agent.identity,
            agent.name,
            name_key,
            agent.protects,
            agent.enabled,
            agent.restricted,
        ),
    )


def delete_agent(db: sqlite3.Connection, identity: AgentIdentity) -> None:
    """Delete an agent and its allow list."""
    db.execute("DELETE FROM agents WHERE identity = ?", (identity,))


# --- Allow lists -------------------------------------------------------------


def allow_users(
    db: sqlite3.Connection, identity: AgentIdentity, users: Sequence[UserId]
) -> None:
    """Add users to the allow list of an agent."""
    db.executemany(
        "INSERT OR IGNORE INTO agent_users (identity, user_id) VALUES (?, ?)",
        [(identity, user_id) for user_id in users],
    )


def disallow_users(
    db: sqlite3.Connection, identity: AgentIdentity, users: Sequence[UserId]
) -> None:
    """Remove users from the allow list of an agent."""
    db.executemany(
        "DELETE FROM agent_users WHERE identity = ? AND user_id = ?",
        [(identity, user_id) for user_id in users],
    )


def count_allowed_users(db: sqlite3.Connection, identity: AgentIdentity) -> int:
    """Return the number of users on the allow list of an agent."""
    (count,) = db.execute(
        "SELECT count(*) FROM agent_users WHERE identity = ?", (identity,)
    ).fetchone()
    return int(count)


def lists_user(
    db: sqlite3.Connection, identity: AgentIdentity, user_id: UserId
) -> bool:
    """Return whether a user or one of their groups is on an agent's allow list."""
    matches = db.execute(
        "SELECT 1 FROM agent_users WHERE identity = :identity AND user_id = :user_id "
        "UNION ALL "
        "SELECT 1 FROM agent_groups JOIN user_groups USING (group_key) "
        "WHERE identity = :identity AND user_id = :user_id LIMIT 1",
        {"identity": identity, "user_id": user_id},
    )
    return matches.fetchone() is not None


# --- Denied certificates -----------------------------------------------------


def deny_certificate(
    db: sqlite3.Connection,
    mark: CertificateMark,
    value: str,
    *,
    at_ms: int,
    by: str,
    note: str,
) -> bool:
    """Deny a certificate; return False if it was already denied."""
    changed = db.execute(
        "INSERT OR IGNORE INTO denied_certificates "
        "(mark, value, denied_at_ms, denied_by, note) VALUES (?, ?, ?, ?, ?)",
        (mark, value, at_ms, by, note),
    )
    return changed.rowcount > 0


def allow_certificate(
    db: sqlite3.Connection, mark: CertificateMark, value: str
) -> bool:
    """Remove a certificate from the deny list; return whether it was on it."""
    changed = db.execute(
        "DELETE FROM denied_certificates WHERE mark = ? AND value = ?", (mark, value)
    )
    return changed.rowcount > 0


def certificate_denied(db: sqlite3.Connection, certificate: Certificate) -> bool:
    """Return whether a certificate is denied by one of its marks."""
    matches = db.execute(
        "SELECT 1 FROM denied_certificates "
        "WHERE (mark = ? AND value = ?) OR (mark = ? AND value = ?)",
        (
            CertificateMark.FINGERPRINT,
            certificate.fingerprint,
            CertificateMark.SERIAL_NUMBER,
            certificate.serial_number,
        ),
    )
    return matches.fetchone() is not None
