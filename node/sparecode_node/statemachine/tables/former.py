# SPDX-License-Identifier: Apache-2.0
"""
Rows that outlive the assignment of a token, or the token itself.

From feature level 2 on, the codes of a former set are kept in two steps. Apply moves the
verifiers of an old set to `deleted_sets`. The primary makes tags of them, which needs
the ring (`services/keys/resealing.py`), and they replace the set in `former_codes`.
"""

import hashlib
import sqlite3
from collections.abc import Sequence

from sparecode_node.domain.emergency_access import FormerCode, FormerSet
from sparecode_node.domain.ids import KeyId, Moment, SetId, TokenSerial, UserId
from sparecode_node.domain.tokencodes import TokencodeParameters
from sparecode_node.domain.tokens import NOTHING_SPENT, Token
from sparecode_node.statemachine.tables import emergency_access as code_tables
from sparecode_node.statemachine.tables import seed_fingerprints as fingerprint_tables

FORMER_SETS_MAX = 16
"""
Maximum sets of a user's unassigned tokens that are stored in full.

From feature level 2 on, older ones become tags. Below, the codes of older sets are
treated as guesses, and as many sets of deleted tokens are kept.
"""

WAITING_SETS_MAX = 256
"""Maximum sets of each kind that are compared: those that wait to become tags count."""

TAGGED_SETS_MAX = 1_000
"""Maximum former sets of a user that are kept as tags. The newest stay."""

FORGOTTEN_PER_CALL_MAX = 32
"""Maximum former sets that one call forgets. A call issued each, so the rest is soon due."""

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
    # Their ends are no news: the user hears of the token, and the next user has no part.
    db.execute(
        "DELETE FROM set_ends WHERE set_id IN "
        "(SELECT set_id FROM code_sets WHERE serial = ?)",
        (serial,),
    )


def keep_sets(db: sqlite3.Connection, token: Token, *, tagged: bool) -> None:
    """
    Keep the codes of a token that is about to be deleted, with the user of each set.

    *tagged*: the codes become tags, so they need no bound; from feature level 2 on.
    """
    rows = db.execute(
        "SELECT set_id, coalesce(former_sets.user_id, :user_id) AS owner, key_id, "
        "code_length FROM code_sets LEFT JOIN former_sets USING (set_id) "
        "WHERE serial = :serial ORDER BY number",
        {"serial": token.serial, "user_id": token.user_id},
    ).fetchall()
    for set_id, owner, key_id, code_length in rows:
        if owner is None:
            continue  # The user of its codes has been deleted.
        _keep_set(db, (set_id, token.serial, owner, key_id, code_length))
        if tagged:
            continue
        db.execute(
            "DELETE FROM deleted_sets WHERE user_id = :user_id AND number NOT IN "
            "(SELECT number FROM deleted_sets WHERE user_id = :user_id "
            "ORDER BY number DESC LIMIT :most)",
            {"user_id": owner, "most": FORMER_SETS_MAX},
        )


def _keep_set(db: sqlite3.Connection, columns: tuple[object, ...]) -> None:
    """Copy a set with its verifiers: its id, serial, user, key and code length."""
    db.execute(
        "INSERT OR IGNORE INTO deleted_sets "
        "(set_id, serial, user_id, key_id, code_length) VALUES (?, ?, ?, ?, ?)",
        columns,
    )
    db.execute(
        "INSERT OR IGNORE INTO deleted_codes (set_id, ordinal, verifier) "
        "SELECT set_id, ordinal, verifier FROM codes WHERE set_id = ?",
        columns[:1],
    )


def retire_set(db: sqlite3.Connection, set_id: SetId) -> None:
    """Delete a set, and keep its codes for its user until they become tags (A5)."""
    row = db.execute(
        "SELECT set_id, serial, coalesce(former_sets.user_id, tokens.user_id), "
        "code_sets.key_id, code_length FROM code_sets JOIN tokens USING (serial) "
        "LEFT JOIN former_sets USING (set_id) WHERE set_id = ?",
        (set_id,),
    ).fetchone()
    if row is not None and row[2] is not None:
        _keep_set(db, row)
    code_tables.delete_set(db, set_id)


def retire_surplus(db: sqlite3.Connection, user_id: UserId) -> None:
    """Retire the sets of unassigned tokens beyond the newest ones of their user."""
    rows = db.execute(
        FORMER_SETS, {"user_id": user_id, "most": FORMER_SETS_MAX + WAITING_SETS_MAX}
    ).fetchall()
    for set_id, _, _ in rows[FORMER_SETS_MAX:]:
        retire_set(db, set_id)


def tag_set(
    db: sqlite3.Connection,
    set_id: str,
    tags: Sequence[bytes],
    *,
    key_id: KeyId,
    now_ms: int,
) -> None:
    """Replace a waiting set by the tags of its codes; without tags, forget it."""
    if tags:
        db.execute(
            "INSERT INTO former_codes (user_id, serial, key_id, since_ms, tags) "
            "SELECT user_id, serial, ?, ?, ? FROM deleted_sets WHERE set_id = ?",
            (key_id, now_ms, b"".join(tags), set_id),
        )
        db.execute(
            "DELETE FROM former_codes WHERE number IN (SELECT number FROM former_codes "
            "WHERE user_id = (SELECT user_id FROM deleted_sets WHERE set_id = ?) "
            "ORDER BY number DESC LIMIT -1 OFFSET ?)",
            (set_id, TAGGED_SETS_MAX),
        )
    db.execute("DELETE FROM deleted_sets WHERE set_id = ?", (set_id,))


def forget_codes(db: sqlite3.Connection, until_ms: int) -> None:
    """Forget the former sets that became tags until then: some of them, oldest first."""
    # The time of the log never goes back, so the order of the numbers is that of time.
    oldest = db.execute(
        "SELECT since_ms FROM former_codes ORDER BY number LIMIT 1"
    ).fetchone()
    if oldest is not None and oldest[0] <= until_ms:
        db.execute(
            "DELETE FROM former_codes WHERE since_ms <= ? AND number IN "
            "(SELECT number FROM former_codes ORDER BY number LIMIT ?)",
            (until_ms, FORGOTTEN_PER_CALL_MAX),
        )


def find_former_codes(
    db: sqlite3.Connection, user_id: UserId, tags: Sequence[bytes]
) -> tuple[FormerCode, ...]:
    """Return the codes of the user's former sets that have one of these tags."""
    codes = []
    for tag in filter(None, tags):
        # SQLite compares the bytes: a user may have a thousand former sets.
        row = db.execute(
            "SELECT serial, EXISTS (SELECT 1 FROM tokens WHERE "
            "tokens.serial = former_codes.serial AND tokens.user_id = :user_id) "
            "FROM former_codes WHERE user_id = :user_id AND instr(tags, :tag) > 0 "
            "ORDER BY number DESC LIMIT 1",
            {"user_id": user_id, "tag": tag},
        ).fetchone()
        if row is not None:
            codes.append(FormerCode(tag=tag, serial=row[0], assigned=bool(row[1])))
    return tuple(codes)


def find_former_sets(
    db: sqlite3.Connection, user_id: UserId, *, tagged: bool
) -> tuple[FormerSet, ...]:
    """
    Return the sets of the user's former tokens, and those that wait to become tags.

    A former token was unassigned, reassigned or deleted. *tagged*: codes of former sets
    become tags, and the PIN counts if the token is the user's again.
    """
    most = WAITING_SETS_MAX if tagged else FORMER_SETS_MAX
    values = {"user_id": user_id, "most": most}
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
    return taken_away + _deleted_sets(db, values, tagged=tagged)


def _deleted_sets(
    db: sqlite3.Connection, values: dict[str, object], *, tagged: bool
) -> tuple[FormerSet, ...]:
    rows = db.execute(
        "SELECT set_id, serial, key_id, EXISTS (SELECT 1 FROM tokens WHERE "
        "tokens.serial = deleted_sets.serial AND tokens.user_id = :user_id) "
        "FROM deleted_sets "
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
            assigned=tagged and bool(assigned),
        )
        for set_id, serial, key_id, assigned in rows
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
            max(token.spent, token.maybe_spent),
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
