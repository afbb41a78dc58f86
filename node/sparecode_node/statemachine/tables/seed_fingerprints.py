# SPDX-License-Identifier: Apache-2.0
"""
Rows of the fingerprints of seeds: no two tokens have the same seed (K5).

A fingerprint is compared with those of the same key alone. During a rotation a new seed
is compared under every key in use.
"""

import sqlite3
from collections.abc import Iterable

from sparecode_node.domain.ids import KeyId, TokenSerial


def save(
    db: sqlite3.Connection, serial: TokenSerial, key_id: KeyId, value: bytes
) -> None:
    """Save the fingerprint of a token's seed."""
    db.execute(
        "INSERT INTO seed_fingerprints (serial, key_id, value) VALUES (?, ?, ?) "
        "ON CONFLICT (serial) DO UPDATE SET key_id = excluded.key_id, "
        "value = excluded.value",
        (serial, key_id, value),
    )


def fingerprint_of(db: sqlite3.Connection, serial: TokenSerial) -> bytes:
    """Return the fingerprint of a token's seed; empty if it has none yet."""
    row = db.execute(
        "SELECT value FROM seed_fingerprints WHERE serial = ?", (serial,)
    ).fetchone()
    value: bytes = row[0] if row else b""
    return value


def find_serial(
    db: sqlite3.Connection, values: Iterable[bytes], *, other_than: str = ""
) -> TokenSerial | None:
    """Return the first token whose seed has one of these fingerprints."""
    serials = [
        row[0]
        for value in values
        if (
            row := db.execute(
                "SELECT min(serial) FROM seed_fingerprints "
                "WHERE value = ? AND serial != ?",
                (value, other_than),
            ).fetchone()
        )[0]
        is not None
    ]
    return TokenSerial(min(serials)) if serials else None
