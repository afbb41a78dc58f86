# SPDX-License-Identifier: Apache-2.0
"""Rows that outlive the assignment of a token, or the token itself."""

import hashlib
import sqlite3
from collections.abc import Sequence

from sparecode_node.domain.emergency_access import FormerSet
from sparecode_node.domain.ids import KeyId, Moment, TokenSerial, UserId
from sparecode_node.domain.tokencodes import TokencodeParameters
from sparecode_node.domain.tokens import NOTHING_SPENT, Token
from sparecode_node.statemachine.tables import emergency_access as code_tables
from sparecode_node.statemachine.tables import seed_fingerprints as fingerprint_tables

FORMER_SETS_MAX = 16
"""
Maximum sets of a user's unassigned tokens, and as many of deleted tokens. The newest
count; codes of older sets are treated as guesses.
"""

FORMER_SETS = """
SELECT set_id, code_sets.key_id AS key_id, code_length FROM former_sets
JOIN code_sets USING (set_id) JOIN tokens USING (serial)
WHERE former_sets.user_id = :user_id AND tokens.user_id IS NOT :user_id
ORDER BY number DESC LIMIT :most
"""


DELETED_SETS = """
SELECT set_id, key_id, code_length FROM deleted_sets
WHERE user_id = :user_id ORDER BY number DESC LIMIT :most
"""


def remember_sets(db: sqlite3.Connection, serial: TokenSerial, user_id: UserId) -> None:
    """
    Record the user of a token's sets before the token is unassigned.

    If that user types one of the codes later, it does not count as a guess (A5).
    """
    # Sets from earlier users have a row already: a set belongs to its first user.
    db.execute(
        "INSERT OR IGNORE INTO former_sets (set_id, user_id) "
        "SELECT set_id, ? FROM code_sets WHERE serial = ?",
        (user_id, serial),
    )


def keep_sets(db: sqlite3.Connection, token: Token) -> None:
    """Keep the codes of a token that is about to be deleted, with the user of each set."""
    rows = db.execute(
        "SELECT set_id, coalesce(former_sets.user_id, :user_id) AS owner, key_id, "
        "code_length FROM code_sets LEFT JOIN former_sets USING (set_id) "
        "WHERE serial = :serial ORDER BY number",
        {"serial": token.serial, "user_id": token.user_id},
    ).fetchall()
    for set_id, owner, key_id, code_length in rows:
        if owner is None:
            continue  # The user of its codes has been deleted.
        db.execute(
            "INSERT OR IGNORE INTO deleted_sets "
            "(set_id, serial, user_id, key_id, code_length) VALUES (?, ?, ?, ?, ?)",
            (set_id, token.serial, owner, key_id, code_length),
        )
        db.execute(
            "INSERT OR IGNORE INTO deleted_codes (set_id, ordinal, verifier) "
            "SELECT set_id, ordinal, verifier FROM codes WHERE set_id = ?",
            (set_id,),
        )
        db.execute(
            "DELETE FROM deleted_sets WHERE user_id = :user_id AND number NOT IN "
            "(SELECT number FROM deleted_sets WHERE user_id = :user_id "
            "ORDER BY number DESC LIMIT :most)",
            {"user_id": owner, "most": FORMER_SETS_MAX},
        )


def find_former_sets(db: sqlite3.Connection, user_id: UserId) -> tuple[FormerSet, ...]:
    """Return the sets of the user's former tokens: unassigned, reassigned or deleted."""
    values = {"user_id": user_id, "most": FORMER_SETS_MAX}
    sets = (
        code_tables.find_set(db, row[0])
        for row in db.execute(FORMER_SETS, values).fetchall()
    )
    taken_away = tuple(
        FormerSet(
            set_id=each.set_id,
            serial=each.serial,
            key_id=each.key_id,
            verifiers=tuple(code.verifier for code in each.codes),
        )
        for each in sets
        if each is not None
    )
    return taken_away + _deleted_sets(db, values)


def _deleted_sets(
    db: sqlite3.Connection, values: dict[str, object]
) -> tuple[FormerSet, ...]:
    rows = db.execute(
        "SELECT set_id, serial, key_id FROM deleted_sets "
        "WHERE user_id = :user_id ORDER BY number DESC LIMIT :most",
        values,
    ).fetchall()
    return tuple(
        FormerSet(
            set_id=set_id,
            serial=serial,
            key_id=key_id,
            verifiers=tuple(
                verifier
                for (verifier,) in db.execute(
                    "SELECT verifier FROM deleted_codes WHERE set_id = ? "
                    "ORDER BY ordinal",
                    (set_id,),
                )
            ),
        )
        for set_id, serial, key_id in rows
    )


def remember_spent(db: sqlite3.Connection, token: Token) -> None:
    """Record what a deleted token has spent, in case it is enrolled again (K1)."""
    db.execute(
        "INSERT INTO former_tokens "
        "(serial, kind, seed_mark, key_id, spent, fingerprint) "
        "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET spent = excluded.spent, "
        "fingerprint = excluded.fingerprint",
        (
            token.serial,
            _kind(token.parameters),
            _mark(token.sealed_seed),
            token.key_id,
            token.spent,
            fingerprint_tables.fingerprint_of(db, token.serial),
        ),
    )


def spent_before(
    db: sqlite3.Connection,
    parameters: TokencodeParameters,
    *,
    serial: TokenSerial,
    sealed_seed: bytes,
    key_id: KeyId,
    fingerprints: Sequence[bytes] = (),
) -> Moment:
    """
    Return the last moment that this seed spent before its token was deleted (K1).

    The seal identifies the seed: the same seed has the same seal under the same key.
    Seals under different keys cannot be compared. In that case the seed counts as the
    same. *fingerprints* also find the seed in tokens of other serials (K5).
    """
    kind = _kind(parameters)
    (spent,) = db.execute(
        "SELECT max(spent) FROM former_tokens WHERE serial = ? AND kind = ? "
        "AND (seed_mark = ? OR key_id != ?)",
        (serial, kind, _mark(sealed_seed), key_id),
    ).fetchone()
    moments = [spent] + [
        db.execute(
            "SELECT max(spent) FROM former_tokens WHERE fingerprint = ? AND kind = ?",
            (each, kind),
        ).fetchone()[0]
        for each in fingerprints
    ]
    return Moment(max([NOTHING_SPENT, *(each for each in moments if each is not None)]))


def _kind(parameters: TokencodeParameters) -> str:
    """Return the unit of the token's moments: algorithm and period."""
    return f"{parameters.algorithm.value} {parameters.period_s}"


def _mark(sealed_seed: bytes) -> bytes:
    """Return a hash that identifies a seal without containing it."""
    return hashlib.sha256(sealed_seed).digest()
