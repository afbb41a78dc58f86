# SPDX-License-Identifier: Apache-2.0
"""Rows of keys, and the seals made with each key (T3, P5)."""

import sqlite3
from collections.abc import Sequence

from sparecode_node.domain.ids import NO_KEY, KeyId, NodeId, TokenSerial
from sparecode_node.domain.keys import KeyInUse, KeysInState, RetiredKey
from sparecode_node.statemachine.commands.keys import ReplacedSeal, SealKind
from sparecode_node.statemachine.commands.pending import (
    from_json,
    seal_of,
    sealed_in,
    to_json,
    with_seal,
)
from sparecode_node.statemachine.tables import emergency_access as code_tables
from sparecode_node.statemachine.tables import former as former_tables
from sparecode_node.statemachine.tables import meta
from sparecode_node.statemachine.tables import seed_fingerprints as fingerprint_tables
from sparecode_node.statemachine.tables.rows import Row

ROTATION_DUE = "rotation_due"
"""In `meta`: the removed member that has had the active key; absent or empty: none."""

_UPDATES = {
    SealKind.SEED: "UPDATE tokens SET sealed_seed = ?, key_id = ? "
    "WHERE serial = ? AND key_id = ? AND sealed_seed = ?",
    SealKind.PASSWORD: "UPDATE administrators SET password_verifier = ?, key_id = ? "
    "WHERE name = ? AND key_id = ? AND password_verifier = ?",
    SealKind.PENDING_RESET: "UPDATE administrator_resets "
    "SET password_verifier = ?, key_id = ? "
    "WHERE name = ? AND key_id = ? AND password_verifier = ?",
    SealKind.SECOND_FACTOR: "UPDATE administrators "
    "SET sealed_factor = ?, factor_key_id = ? "
    "WHERE name = ? AND factor_key_id = ? AND sealed_factor = ?",
    SealKind.NAME_TAG: "UPDATE users SET name_tag = ?, tag_key_id = ? "
    "WHERE user_id = ? AND tag_key_id = ? AND name_tag = ?",
    SealKind.RADIUS_SECRET: "UPDATE radius_secrets SET sealed = ?, key_id = ? "
    "WHERE secret_id = ? AND key_id = ? AND sealed = ?",
    SealKind.CHANNEL_SECRET: "UPDATE channels SET sealed_secret = ?, key_id = ? "
    "WHERE channel = ? AND key_id = ? AND sealed_secret = ?",
    SealKind.CODE_TAGS: "UPDATE former_codes SET tags = ?, key_id = ? "
    "WHERE number = ? AND key_id = ? AND tags = ?",
}
"""Statements for rows with one seal: new seal, new key, row, expected old seal."""

PIN_SEALS = 2
"""The verifier of a token's PIN, and the sealed PIN of a PINpad token."""

AGING_SEALED_INDEX = "aging_sealed_index"
"""The row of `meta` with the last entry that brought a value with an aging key."""

USERS_OF_KEY = (
    "SELECT 1 FROM tokens WHERE key_id = :key OR pin_key_id = :key",
    "SELECT 1 FROM code_sets WHERE key_id = :key",
    "SELECT 1 FROM deleted_sets WHERE key_id = :key",
    "SELECT 1 FROM administrators WHERE key_id = :key OR factor_key_id = :key",
    "SELECT 1 FROM users WHERE tag_key_id = :key",
    "SELECT 1 FROM administrator_resets WHERE key_id = :key",
    "SELECT 1 FROM seed_fingerprints WHERE key_id = :key",
    "SELECT 1 FROM former_codes WHERE key_id = :key",
    "SELECT 1 FROM radius_secrets WHERE key_id = :key",
    "SELECT 1 FROM channels WHERE key_id = :key AND length(sealed_secret) > 0",
)


KEYS = (
    "SELECT key_id, fingerprint, retire_at_ms, keep, retired FROM ring_keys "
    "ORDER BY key_id"
)


def rotation_due(db: sqlite3.Connection) -> NodeId:
    """Return the removed member because of which another key is due, or empty (P6)."""
    return NodeId(meta.read(db, ROTATION_DUE, ""))


def keys_of(db: sqlite3.Connection) -> KeysInState:
    """Return the keys that the state uses or has used."""
    return keys_in(db.execute(KEYS).fetchall())


def keys_in(rows: Sequence[Row]) -> KeysInState:
    """Return the keys in the rows of `KEYS`."""
    in_use = tuple(
        KeyInUse(
            key_id=KeyId(row[0]),
            fingerprint=row[1],
            retire_at_ms=row[2],
            keep=bool(row[3]),
        )
        for row in rows
        if not row[4]
    )
    active = [each.key_id for each in in_use if each.retire_at_ms is None]
    return KeysInState(
        active=active[-1] if active else NO_KEY,
        in_use=in_use,
        retired=tuple(
            RetiredKey(key_id=KeyId(row[0]), keep=bool(row[3]))
            for row in rows
            if row[4]
        ),
    )


def add_first(db: sqlite3.Connection, key_id: KeyId) -> None:
    """Add the first key of the cluster."""
    _add(db, key_id, b"", 0)


def add(db: sqlite3.Connection, fingerprint: bytes, now_ms: int) -> KeyId:
    """Add a key with the next number, which no key has had before."""
    (newest,) = db.execute("SELECT max(key_id) FROM ring_keys").fetchone()
    key_id = KeyId(newest + 1)
    _add(db, key_id, fingerprint, now_ms)
    db.execute("UPDATE meta SET value = ? WHERE name = 'key_id'", (key_id,))
    return key_id


def _add(
    db: sqlite3.Connection, key_id: KeyId, fingerprint: bytes, now_ms: int
) -> None:
    db.execute(
        "INSERT INTO ring_keys (key_id, fingerprint, activated_at_ms, retire_at_ms, "
        "keep, retired) VALUES (?, ?, ?, NULL, 0, 0)",
        (key_id, fingerprint, now_ms),
    )


def age(db: sqlite3.Connection, key: KeyInUse) -> None:
    """Save the earliest retirement of a key that is no longer active."""
    db.execute(
        "UPDATE ring_keys SET retire_at_ms = ?, keep = ? WHERE key_id = ?",
        (key.retire_at_ms, key.keep, key.key_id),
    )


def retire(db: sqlite3.Connection, key_id: KeyId) -> None:
    """Mark a key as retired."""
    db.execute("UPDATE ring_keys SET retired = 1 WHERE key_id = ?", (key_id,))


def has_key(db: sqlite3.Connection, fingerprint: bytes) -> bool:
    """Return whether the key is or was in use."""
    row = db.execute(
        "SELECT 1 FROM ring_keys WHERE fingerprint = ?", (fingerprint,)
    ).fetchone()
    return row is not None


def is_used(db: sqlite3.Connection, key_id: KeyId) -> bool:
    """Return whether anything is sealed with the key."""
    for query in USERS_OF_KEY:
        if db.execute(f"{query} LIMIT 1", {"key": key_id}).fetchone() is not None:
            return True
    return waits(db, key_id)


def waits(db: sqlite3.Connection, key_id: KeyId) -> bool:
    """Return whether a change that waits for an approval has a seal with the key."""
    waiting = db.execute("SELECT change FROM approvals WHERE change != ''")
    return any(
        (sealed := sealed_in(from_json(row[0]))) is not None and sealed.key_id == key_id
        for row in waiting
    )


def replace_seal(
    db: sqlite3.Connection, seal: ReplacedSeal, key_id: KeyId, now_ms: int
) -> bool:
    """Replace the seal of a row if it still holds the old one; return whether it did."""
    match seal.kind:
        case SealKind.CODES:
            return _replace_codes(db, seal, key_id)
        case SealKind.PIN:
            return _replace_pin(db, seal, key_id)
        case SealKind.PENDING_CHANGE | SealKind.PENDING_CHANNEL:
            return _replace_pending(db, seal, key_id)
        case SealKind.SEED_FINGERPRINT:
            return _replace_fingerprint(db, seal, key_id)
        case SealKind.FORMER_CODES:
            return _replace_former_codes(db, seal, key_id, now_ms)
        case SealKind.CODE_TAGS if not seal.new:
            return _forget_tags(db, seal)
        case _:
            pass
    if len(seal.old) != 1 or len(seal.new) != 1:
        return False
    (old,), (new,) = seal.old, seal.new
    done = db.execute(
        _UPDATES[seal.kind], (new, key_id, seal.row, seal.old_key_id, old)
    )
    return done.rowcount == 1


def _replace_fingerprint(
    db: sqlite3.Connection, seal: ReplacedSeal, key_id: KeyId
) -> bool:
    """Save the fingerprint of a seed if the token still has this seed."""
    if len(seal.old) != 1 or len(seal.new) != 1:
        return False
    token = db.execute(
        "SELECT 1 FROM tokens WHERE serial = ? AND key_id = ? AND sealed_seed = ?",
        (seal.row, seal.old_key_id, *seal.old),
    )
    if token.fetchone() is None:
        return False
    fingerprint_tables.save(db, TokenSerial(seal.row), key_id, *seal.new)
    return True


def _replace_pin(db: sqlite3.Connection, seal: ReplacedSeal, key_id: KeyId) -> bool:
    """Replace a PIN's verifier and the sealed PIN of a PINpad token."""
    if len(seal.old) != PIN_SEALS or len(seal.new) != PIN_SEALS:
        return False
    done = db.execute(
        "UPDATE tokens SET pin_verifier = ?, sealed_pin = ?, pin_key_id = ? "
        "WHERE serial = ? AND pin_key_id = ? AND pin_verifier = ? AND sealed_pin = ?",
        (*seal.new, key_id, seal.row, seal.old_key_id, *seal.old),
    )
    return done.rowcount == 1


def _replace_codes(db: sqlite3.Connection, seal: ReplacedSeal, key_id: KeyId) -> bool:
    """
    Replace all verifiers of a set, which share one key. The token may be deleted.

    Without new verifiers, delete the set if none of its codes is live. Its codes are then
    no longer recognized as those of a user.
    """
    if code_tables.has_set(db, seal.row):
        sets, codes_of = "code_sets", "codes"
    else:
        sets, codes_of = "deleted_sets", "deleted_codes"
    known = db.execute(
        f"SELECT key_id FROM {sets} WHERE set_id = ?", (seal.row,)
    ).fetchone()
    codes = db.execute(
        f"SELECT ordinal, verifier FROM {codes_of} WHERE set_id = ? ORDER BY ordinal",
        (seal.row,),
    ).fetchall()
    if (
        known is None
        or known[0] != seal.old_key_id
        or tuple(verifier for _, verifier in codes) != seal.old
    ):
        return False
    if not seal.new and not _has_live_code(db, seal.row):
        db.execute(f"DELETE FROM {sets} WHERE set_id = ?", (seal.row,))
        return True
    if len(seal.new) != len(codes):
        return False
    db.executemany(
        f"UPDATE {codes_of} SET verifier = ? WHERE set_id = ? AND ordinal = ?",
        [
            (new, seal.row, ordinal)
            for (ordinal, _), new in zip(codes, seal.new, strict=True)
        ],
    )
    db.execute(f"UPDATE {sets} SET key_id = ? WHERE set_id = ?", (key_id, seal.row))
    return True


def _replace_former_codes(
    db: sqlite3.Connection, seal: ReplacedSeal, key_id: KeyId, now_ms: int
) -> bool:
    """Replace a former set by the tags of its codes (A5); without tags, delete it."""
    known = db.execute(
        "SELECT key_id FROM deleted_sets WHERE set_id = ?", (seal.row,)
    ).fetchone()
    codes = db.execute(
        "SELECT verifier FROM deleted_codes WHERE set_id = ? ORDER BY ordinal",
        (seal.row,),
    ).fetchall()
    if (
        known is None
        or known[0] != seal.old_key_id
        or tuple(verifier for (verifier,) in codes) != seal.old
        or len(seal.new) not in (0, len(codes))
    ):
        return False
    former_tables.tag_set(db, seal.row, seal.new, key_id=key_id, now_ms=now_ms)
    return True


def _forget_tags(db: sqlite3.Connection, seal: ReplacedSeal) -> bool:
    """Delete the tags of a former set, which do not open with their key."""
    done = db.execute(
        "DELETE FROM former_codes WHERE number = ? AND key_id = ? AND tags = ?",
        (seal.row, seal.old_key_id, *seal.old[:1]),
    )
    return done.rowcount == 1


def _has_live_code(db: sqlite3.Connection, set_id: str) -> bool:
    rows = db.execute(
        "SELECT 1 FROM codes WHERE set_id = ? AND state = 'live'", (set_id,)
    )
    return rows.fetchone() is not None


def _replace_pending(db: sqlite3.Connection, seal: ReplacedSeal, key_id: KeyId) -> bool:
    """Replace the verifier in a change that waits for a second approver (P3)."""
    row = db.execute(
        "SELECT change FROM approvals WHERE approval_id = ? AND change != ''",
        (seal.row,),
    ).fetchone()
    sealed = sealed_in(from_json(row[0])) if row else None
    if (
        sealed is None
        or (sealed.key_id, (seal_of(sealed),)) != (seal.old_key_id, seal.old)
        or len(seal.new) != 1
    ):
        return False
    db.execute(
        "UPDATE approvals SET change = ? WHERE approval_id = ?",
        (to_json(with_seal(sealed, seal.new[0], key_id)), seal.row),
    )
    return True
