# SPDX-License-Identifier: Apache-2.0
"""Rows of administrators' passkeys (P8), and of answered challenges."""

import sqlite3

from sparecode_node.domain.ids import AdministratorName
from sparecode_node.domain.passkeys import Passkey, PasskeyAnswer
from sparecode_node.statemachine.tables.rows import upsert


def find(db: sqlite3.Connection, credential_id: bytes) -> Passkey | None:
    """Return a passkey."""
    row = db.execute(
        "SELECT administrator, label, public_key, sign_count, added_at_ms, used_at_ms "
        "FROM passkeys WHERE credential_id = ?",
        (credential_id,),
    ).fetchone()
    if row is None:
        return None
    return Passkey(
        credential_id=credential_id,
        administrator=AdministratorName(row[0]),
        label=row[1],
        public_key=row[2],
        sign_count=row[3],
        added_at_ms=row[4],
        used_at_ms=row[5],
    )


def count(db: sqlite3.Connection) -> int:
    """Return the number of passkeys of all administrators."""
    (number,) = db.execute("SELECT count(*) FROM passkeys").fetchone()
    return int(number)


def save(db: sqlite3.Connection, passkey: Passkey) -> None:
    """Save a passkey."""
    upsert(
        db,
        "passkeys",
        ("credential_id",),
        credential_id=passkey.credential_id,
        administrator=passkey.administrator,
        label=passkey.label,
        public_key=passkey.public_key,
        sign_count=passkey.sign_count,
        added_at_ms=passkey.added_at_ms,
        used_at_ms=passkey.used_at_ms,
    )


def delete(db: sqlite3.Connection, credential_id: bytes) -> None:
    """Delete a passkey."""
    db.execute("DELETE FROM passkeys WHERE credential_id = ?", (credential_id,))


def delete_all(db: sqlite3.Connection, administrator: AdministratorName) -> None:
    """Delete every passkey of an administrator."""
    db.execute("DELETE FROM passkeys WHERE administrator = ?", (administrator,))


def consume_challenge(
    db: sqlite3.Connection, answer: PasskeyAnswer, now_ms: int
) -> bool:
    """Consume the challenge of an answer; False if it has ended or was answered."""
    if now_ms >= answer.challenge_ends_at_ms:
        return False
    inserted = db.execute(
        "INSERT INTO consumed_challenges (challenge_id, ends_at_ms) VALUES (?, ?) "
        "ON CONFLICT DO NOTHING",
        (answer.challenge_id, answer.challenge_ends_at_ms),
    )
    return inserted.rowcount == 1
