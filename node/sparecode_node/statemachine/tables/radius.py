# SPDX-License-Identifier: Apache-2.0
"""Rows of RADIUS clients, their networks and their sealed secrets."""

import sqlite3
from collections.abc import Sequence

from sparecode_node.domain.ids import AgentIdentity, KeyId
from sparecode_node.domain.radius import (
    NO_ATTRIBUTES,
    REPLACED_SECRETS_MAX,
    AcceptAttributes,
    RadiusSettings,
)

RADIUS_TABLES = """
CREATE TABLE radius_clients (           -- agents with a shared secret
    identity TEXT PRIMARY KEY REFERENCES agents (identity) ON DELETE CASCADE,
    allow_unsigned INTEGER NOT NULL,
    allow_unsigned_proxied INTEGER NOT NULL,
    unsigned_until_signed INTEGER NOT NULL,
    repeats_with_new_authenticator INTEGER NOT NULL,
    prompts_for_passcode INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE accept_attributes (        -- of agents of every kind that have some
    identity TEXT PRIMARY KEY REFERENCES agents (identity) ON DELETE CASCADE,
    filter_id TEXT NOT NULL,
    class_attribute TEXT NOT NULL,
    session_timeout_s INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE radius_networks (
    network TEXT PRIMARY KEY,
    identity TEXT NOT NULL REFERENCES agents (identity) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX radius_networks_by_client ON radius_networks (identity);

CREATE TABLE radius_secrets (
    secret_id TEXT PRIMARY KEY,
    identity TEXT NOT NULL REFERENCES agents (identity) ON DELETE CASCADE,
    sealed BLOB NOT NULL,
    key_id INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    ends_at_ms INTEGER                  -- NULL: the current secret
) STRICT, WITHOUT ROWID;
CREATE INDEX radius_secrets_by_client ON radius_secrets (identity);
CREATE INDEX radius_secrets_by_end ON radius_secrets (ends_at_ms);
"""
"""Here, because `schema` has 500 lines already."""

COLUMNS = (
    "allow_unsigned, allow_unsigned_proxied, unsigned_until_signed, "
    "repeats_with_new_authenticator, prompts_for_passcode"
)

ATTRIBUTE_COLUMNS = "filter_id, class_attribute, session_timeout_s"


def find_settings(
    db: sqlite3.Connection, identity: AgentIdentity
) -> RadiusSettings | None:
    """Return the settings of a RADIUS client. None: no such client."""
    cursor = db.cursor()
    cursor.row_factory = sqlite3.Row
    row = cursor.execute(
        f"SELECT {COLUMNS} FROM radius_clients WHERE identity = ?", (identity,)
    ).fetchone()
    if row is None:
        return None
    networks = db.execute(
        "SELECT network FROM radius_networks WHERE identity = ? ORDER BY network",
        (identity,),
    )
    return settings_in(row, tuple(network for (network,) in networks))


def settings_in(row: sqlite3.Row, networks: tuple[str, ...]) -> RadiusSettings:
    """Return the settings in a row of `COLUMNS`."""
    return RadiusSettings(
        networks=networks,
        allow_unsigned=bool(row["allow_unsigned"]),
        allow_unsigned_proxied=bool(row["allow_unsigned_proxied"]),
        unsigned_until_signed=bool(row["unsigned_until_signed"]),
        repeats_with_new_authenticator=bool(row["repeats_with_new_authenticator"]),
        prompts_for_passcode=bool(row["prompts_for_passcode"]),
    )


def attributes_in(row: sqlite3.Row | None) -> AcceptAttributes:
    """Return the attributes in a row of `ATTRIBUTE_COLUMNS`; None: there is no row."""
    if row is None or row["filter_id"] is None:
        return NO_ATTRIBUTES
    return AcceptAttributes(
        filter_id=row["filter_id"],
        class_attribute=row["class_attribute"],
        session_timeout_s=row["session_timeout_s"],
    )


def find_attributes(
    db: sqlite3.Connection, identity: AgentIdentity
) -> AcceptAttributes:
    """Return what an Access-Accept tells an agent of any kind."""
    cursor = db.cursor()
    cursor.row_factory = sqlite3.Row
    return attributes_in(
        cursor.execute(
            f"SELECT {ATTRIBUTE_COLUMNS} FROM accept_attributes WHERE identity = ?",
            (identity,),
        ).fetchone()
    )


def save_attributes(
    db: sqlite3.Connection, identity: AgentIdentity, attributes: AcceptAttributes
) -> None:
    """Save what an Access-Accept tells an agent. An agent without any has no row."""
    db.execute("DELETE FROM accept_attributes WHERE identity = ?", (identity,))
    if attributes != NO_ATTRIBUTES:
        db.execute(
            f"INSERT INTO accept_attributes (identity, {ATTRIBUTE_COLUMNS}) "
            "VALUES (?, ?, ?, ?)",
            (
                identity,
                attributes.filter_id,
                attributes.class_attribute,
                attributes.session_timeout_s,
            ),
        )


def save_settings(
    db: sqlite3.Connection, identity: AgentIdentity, settings: RadiusSettings
) -> None:
    """Save the settings of a RADIUS client."""
    db.execute(
        f"INSERT OR REPLACE INTO radius_clients (identity, {COLUMNS}) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (
            identity,
            settings.allow_unsigned,
            settings.allow_unsigned_proxied,
            settings.unsigned_until_signed,
            settings.repeats_with_new_authenticator,
            settings.prompts_for_passcode,
        ),
    )
    db.execute("DELETE FROM radius_networks WHERE identity = ?", (identity,))
    db.executemany(
        "INSERT INTO radius_networks (network, identity) VALUES (?, ?)",
        [(network, identity) for network in settings.networks],
    )


def require_signatures(db: sqlite3.Connection, identity: AgentIdentity) -> bool:
    """
    Require the signature of a client that may leave it out only until it has sent one.

    Return whether that is new.
    """
    cursor = db.execute(
        "UPDATE radius_clients SET allow_unsigned = 0, allow_unsigned_proxied = 0, "
        "unsigned_until_signed = 0 WHERE identity = ? AND unsigned_until_signed",
        (identity,),
    )
    return bool(cursor.rowcount)


def other_owner(
    db: sqlite3.Connection, identity: AgentIdentity, networks: Sequence[str]
) -> tuple[str, str] | None:
    """Return a network of another client among *networks*, and the client's name."""
    for network in networks:
        row = db.execute(
            "SELECT network, name FROM radius_networks JOIN agents USING (identity) "
            "WHERE network = ? AND identity != ?",
            (network, identity),
        ).fetchone()
        if row is not None:
            return row[0], row[1]
    return None


def add_secret(
    db: sqlite3.Connection,
    identity: AgentIdentity,
    *,
    secret_id: str,
    sealed: bytes,
    key_id: KeyId,
    created_at_ms: int,
) -> None:
    """Add the secret that a client uses from now on."""
    db.execute(
        "INSERT INTO radius_secrets "
        "(secret_id, identity, sealed, key_id, created_at_ms, ends_at_ms) "
        "VALUES (?, ?, ?, ?, ?, NULL)",
        (secret_id, identity, sealed, key_id, created_at_ms),
    )


def has_secret(db: sqlite3.Connection, secret_id: str) -> bool:
    """Return whether a client has the secret of this id."""
    return bool(
        db.execute(
            "SELECT 1 FROM radius_secrets WHERE secret_id = ?", (secret_id,)
        ).fetchone()
    )


def secret_works(
    db: sqlite3.Connection, identity: AgentIdentity, secret_id: str, now_ms: int
) -> bool:
    """Return whether a client may still use the secret of this id."""
    return bool(
        db.execute(
            "SELECT 1 FROM radius_secrets WHERE secret_id = ? AND identity = ? "
            "AND (ends_at_ms IS NULL OR ends_at_ms > ?)",
            (secret_id, identity, now_ms),
        ).fetchone()
    )


def end_secrets(
    db: sqlite3.Connection, identity: AgentIdentity, *, now_ms: int, overlap_ms: int
) -> int:
    """
    Let the current secret of a client end, and return how many earlier ones still work.

    Those replaced earlier keep their ends, because the client may still have one of
    them. Without an overlap they are deleted: one may have leaked.
    """
    if not overlap_ms:
        db.execute(
            "DELETE FROM radius_secrets WHERE identity = ? AND ends_at_ms IS NOT NULL",
            (identity,),
        )
    db.execute(
        "UPDATE radius_secrets SET ends_at_ms = ? "
        "WHERE identity = ? AND ends_at_ms IS NULL",
        (now_ms + overlap_ms, identity),
    )
    db.execute(
        """
        DELETE FROM radius_secrets WHERE identity = ?1 AND secret_id NOT IN (
            SELECT secret_id FROM radius_secrets WHERE identity = ?1
            ORDER BY created_at_ms DESC, secret_id LIMIT ?2)
        """,
        (identity, REPLACED_SECRETS_MAX),
    )
    (working,) = db.execute(
        "SELECT count(*) FROM radius_secrets WHERE identity = ? AND ends_at_ms > ?",
        (identity, now_ms),
    ).fetchone()
    return int(working) - bool(overlap_ms)


def delete_replaced_secrets(db: sqlite3.Connection) -> None:
    """Delete the replaced secrets of all clients, before they end."""
    db.execute("DELETE FROM radius_secrets WHERE ends_at_ms IS NOT NULL")
