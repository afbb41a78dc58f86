# SPDX-License-Identifier: Apache-2.0
"""
Rows of what administrators know of tokens (I10).

They have no end: they go when the user changes the secret, when another administrator
confirms the token, or with the token or the administrator.

What is known in another cluster arrives with the token, without a name: equal names are
no proof that two administrators are one person, and other names none that they are two.
So it counts for every administrator whom no approval has confirmed for the token.
"""

import enum
import sqlite3
from typing import Final

from sparecode_node.domain.ids import (
    AdministratorName,
    NameKey,
    SetId,
    TokenSerial,
    UserId,
)

SECRET_TABLES = """
CREATE TABLE known_secrets (            -- see I10
    serial TEXT NOT NULL REFERENCES tokens (serial) ON DELETE CASCADE,
    administrator TEXT NOT NULL REFERENCES administrators (name) ON DELETE CASCADE,
    secret TEXT NOT NULL,            -- or confirmed
    PRIMARY KEY (serial, administrator, secret)
) STRICT, WITHOUT ROWID;
CREATE INDEX known_secrets_by_administrator ON known_secrets (administrator);

CREATE TABLE secrets_known_elsewhere (  -- by administrators of another cluster
    serial TEXT NOT NULL REFERENCES tokens (serial) ON DELETE CASCADE,
    secret TEXT NOT NULL,            -- seed, pin, assignment
    PRIMARY KEY (serial, secret)
) STRICT, WITHOUT ROWID;

CREATE TABLE sets_issued_elsewhere (    -- their issuers' names are of another cluster
    set_id TEXT PRIMARY KEY REFERENCES code_sets (set_id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

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
    CONFIRMED = "confirmed"
    """What is known elsewhere does not count for the administrator. Knows nothing."""


ARRIVING: Final = {
    KnownSecret.SEED: KnownSecret.SEED,
    KnownSecret.PIN: KnownSecret.PIN,
    KnownSecret.ASSIGNMENT: KnownSecret.ASSIGNMENT,
    # Who assigned it may set the first PIN alone. Here that would be anyone.
    KnownSecret.FIRST_ASSIGNMENT: KnownSecret.ASSIGNMENT,
}
"""What may arrive from another cluster, and as what it counts here."""


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
    """Return what an administrator is known to know of a token."""
    rows = db.execute(
        "SELECT secret FROM known_secrets "
        "WHERE serial = ? AND administrator = ? AND secret != ?",
        (serial, administrator, KnownSecret.CONFIRMED),
    )
    return frozenset(KnownSecret(row[0]) for row in rows)


def add_elsewhere(
    db: sqlite3.Connection, serial: TokenSerial, secret: KnownSecret
) -> None:
    """Record what an administrator of another cluster knows of a token."""
    db.execute(
        "INSERT OR IGNORE INTO secrets_known_elsewhere (serial, secret) VALUES (?, ?)",
        (serial, ARRIVING[secret]),
    )


def elsewhere(
    db: sqlite3.Connection, serial: TokenSerial, administrator: AdministratorName
) -> frozenset[KnownSecret]:
    """
    Return what an administrator may know of a token from another cluster.

    Nothing for one whom an approval has confirmed for the token.
    """
    rows = db.execute(
        "SELECT secret FROM secrets_known_elsewhere WHERE serial = ?1 AND NOT EXISTS ("
        "SELECT 1 FROM known_secrets AS known WHERE known.serial = ?1 "
        "AND known.administrator = ?2 AND known.secret = ?3)",
        (serial, administrator, KnownSecret.CONFIRMED),
    )
    return frozenset(KnownSecret(row[0]) for row in rows)


def add_set_elsewhere(db: sqlite3.Connection, set_id: SetId) -> None:
    """Record that an administrator of another cluster has issued a set of codes."""
    db.execute("INSERT INTO sets_issued_elsewhere (set_id) VALUES (?)", (set_id,))


def issued_elsewhere(db: sqlite3.Connection, set_id: SetId) -> bool:
    """Return whether an administrator of another cluster has issued a set of codes."""
    row = db.execute(
        "SELECT 1 FROM sets_issued_elsewhere WHERE set_id = ?", (set_id,)
    ).fetchone()
    return row is not None


def carry_pin(db: sqlite3.Connection, old: TokenSerial, new: TokenSerial) -> None:
    """Record that those who know the PIN of *old* know that of *new*."""
    db.execute(
        "INSERT OR IGNORE INTO known_secrets (serial, administrator, secret) "
        "SELECT ?, administrator, secret FROM known_secrets "
        "WHERE serial = ? AND secret = ?",
        (new, old, KnownSecret.PIN),
    )
    db.execute(
        "INSERT OR IGNORE INTO secrets_known_elsewhere (serial, secret) "
        "SELECT ?, secret FROM secrets_known_elsewhere WHERE serial = ? AND secret = ?",
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
    for table in ("known_secrets", "secrets_known_elsewhere"):
        db.execute(
            f"DELETE FROM {table} WHERE serial = ? AND secret NOT IN (?, ?)",
            (serial, KnownSecret.SEED, KnownSecret.CONFIRMED),
        )


def confirm(
    db: sqlite3.Connection,
    serial: TokenSerial,
    administrator: AdministratorName,
    *,
    keep: KnownSecret | None = None,
) -> None:
    """
    Forget what an administrator knows of a token; *keep* stays.

    What is known elsewhere counts for this administrator no longer.
    """
    db.execute(
        "DELETE FROM known_secrets "
        "WHERE serial = ? AND administrator = ? AND secret IS NOT ?",
        (serial, administrator, keep),
    )
    db.execute(
        "INSERT OR IGNORE INTO known_secrets (serial, administrator, secret) "
        "SELECT DISTINCT serial, ?, ? FROM secrets_known_elsewhere WHERE serial = ?",
        (administrator, KnownSecret.CONFIRMED, serial),
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
