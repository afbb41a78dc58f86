# SPDX-License-Identifier: Apache-2.0
"""
Rows of what administrators know of tokens (I10).

They have no end: they go when the user changes the secret, when another administrator
confirms the token, or with the token or the administrator.
"""

import enum
import sqlite3

from sparecode_node.domain.ids import AdministratorName, NameKey, TokenSerial, UserId

SECRET_TABLES = """
CREATE TABLE known_secrets (            -- see I10
    serial TEXT NOT NULL REFERENCES tokens (serial) ON DELETE CASCADE,
    administrator TEXT NOT NULL REFERENCES administrators (name) ON DELETE CASCADE,
    secret TEXT NOT NULL,            -- seed, pin, assignment, first_assignment
    PRIMARY KEY (serial, administrator, secret)
) STRICT, WITHOUT ROWID;
CREATE INDEX known_secrets_by_administrator ON known_secrets (administrator);

CREATE TABLE former_names (             -- of deleted users
    name_key TEXT PRIMARY KEY,
    deleted_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE user_creators (            -- of users created from level 2 on
    user_id TEXT PRIMARY KEY REFERENCES users (user_id) ON DELETE CASCADE,
    administrator TEXT NOT NULL REFERENCES administrators (name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX user_creators_by_administrator ON user_creators (administrator);
"""


class KnownSecret(enum.StrEnum):
    """What an administrator knows or did. The values are in the state."""

    SEED = "seed"
    PIN = "pin"
    ASSIGNMENT = "assignment"
    FIRST_ASSIGNMENT = "first_assignment"
    """The first token of a new user, whose first PIN is not set yet."""
    CODES = "codes"
    """Live codes that the administrator has issued. Never a row: the sets tell."""


def add(
    db: sqlite3.Connection,
    serial: TokenSerial,
    administrator: AdministratorName,
    secret: KnownSecret,
) -> None:
    """Record what an administrator knows of a token."""
    db.execute(
        "INSERT OR IGNORE INTO known_secrets (serial, administrator, secret) "
        "VALUES (?, ?, ?)",
        (serial, administrator, secret),
    )


def of(
    db: sqlite3.Connection, serial: TokenSerial, administrator: AdministratorName
) -> frozenset[KnownSecret]:
    """Return what an administrator knows of a token."""
    rows = db.execute(
        "SELECT secret FROM known_secrets WHERE serial = ? AND administrator = ?",
        (serial, administrator),
    )
    return frozenset(KnownSecret(row[0]) for row in rows)


def carry_pin(db: sqlite3.Connection, old: TokenSerial, new: TokenSerial) -> None:
    """Record that those who know the PIN of *old* know that of *new*."""
    db.execute(
        "INSERT OR IGNORE INTO known_secrets (serial, administrator, secret) "
        "SELECT ?, administrator, secret FROM known_secrets "
        "WHERE serial = ? AND secret = ?",
        (new, old, KnownSecret.PIN),
    )


def end_first(db: sqlite3.Connection, serial: TokenSerial) -> None:
    """Treat a new user as any other: the first PIN is set."""
    db.execute(
        "UPDATE OR REPLACE known_secrets SET secret = ? "
        "WHERE serial = ? AND secret = ?",
        (KnownSecret.ASSIGNMENT, serial, KnownSecret.FIRST_ASSIGNMENT),
    )


def keep_seed(db: sqlite3.Connection, serial: TokenSerial) -> None:
    """Forget all but the seed: the user has chosen a PIN, or has the token no more."""
    db.execute(
        "DELETE FROM known_secrets WHERE serial = ? AND secret != ?",
        (serial, KnownSecret.SEED),
    )


def confirm(
    db: sqlite3.Connection,
    serial: TokenSerial,
    administrator: AdministratorName,
    *,
    keep: KnownSecret | None = None,
) -> None:
    """Forget what an administrator knows of a token; *keep* stays."""
    db.execute(
        "DELETE FROM known_secrets "
        "WHERE serial = ? AND administrator = ? AND secret IS NOT ?",
        (serial, administrator, keep),
    )


def remember_name(db: sqlite3.Connection, name: NameKey, now_ms: int) -> None:
    """Record the name of a deleted user: a user with this name is not a new one."""
    db.execute(
        "INSERT OR IGNORE INTO former_names (name_key, deleted_at_ms) VALUES (?, ?)",
        (name, now_ms),
    )


def save_creator(
    db: sqlite3.Connection, user_id: UserId, administrator: AdministratorName
) -> None:
    """Record which administrator has created a user."""
    db.execute(
        "INSERT INTO user_creators (user_id, administrator) VALUES (?, ?)",
        (user_id, administrator),
    )


def creator_of(db: sqlite3.Connection, user_id: UserId) -> str | None:
    """Return which administrator has created a user; None: it is not known."""
    row = db.execute(
        "SELECT administrator FROM user_creators WHERE user_id = ?", (user_id,)
    ).fetchone()
    return None if row is None else str(row[0])


def is_former(db: sqlite3.Connection, name: NameKey) -> bool:
    """Return whether a deleted user had this name."""
    row = db.execute("SELECT 1 FROM former_names WHERE name_key = ?", (name,))
    return row.fetchone() is not None
