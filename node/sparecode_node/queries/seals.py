# SPDX-License-Identifier: Apache-2.0
"""Values sealed with older keys of the ring, to be resealed (T3)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from sqlite3 import Row

from sparecode_node.domain.ids import KeyId, NodeId
from sparecode_node.domain.keys import KeysInState
from sparecode_node.queries import cluster
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.commands.keys import SealKind
from sparecode_node.statemachine.commands.notices import SaveChannel
from sparecode_node.statemachine.commands.pending import from_json, seal_of, sealed_in
from sparecode_node.statemachine.feature_level import FORMER_CODES, UNIQUE_SEEDS
from sparecode_node.statemachine.tables import keys as key_tables


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSeal:
    """The sealed values of one row."""

    kind: SealKind
    row: str
    key_id: KeyId
    belongs_to: tuple[str, ...]
    """The associated data of the seal, apart from its purpose."""
    sealed: tuple[bytes, ...] = field(repr=False)
    serial: str = ""
    """Serial of the token, for codes."""
    void: bool = False
    """Whether these are codes without a live one, or tags of such codes."""


_ROWS = {
    SealKind.PASSWORD: """
        SELECT name AS row, key_id, name AS first, '' AS second,
               password_verifier AS sealed, x'' AS more
        FROM administrators WHERE key_id != :active ORDER BY name LIMIT :most
    """,
    SealKind.PENDING_RESET: """
        SELECT name AS row, key_id, name AS first, '' AS second,
               password_verifier AS sealed, x'' AS more
        FROM administrator_resets WHERE key_id != :active ORDER BY name LIMIT :most
    """,
    SealKind.SECOND_FACTOR: """
        SELECT name AS row, factor_key_id AS key_id, name AS first, '' AS second,
               sealed_factor AS sealed, x'' AS more
        FROM administrators WHERE factor_key_id != :active AND length(sealed_factor) > 0
        ORDER BY name LIMIT :most
    """,
    SealKind.NAME_TAG: """
        SELECT user_id AS row, tag_key_id AS key_id, name_key AS first, '' AS second,
               name_tag AS sealed, x'' AS more
        FROM users WHERE tag_key_id != :active ORDER BY user_id LIMIT :most
    """,
    SealKind.PIN: """
        SELECT serial AS row, pin_key_id AS key_id, user_id AS first, serial AS second,
               pin_verifier AS sealed, sealed_pin AS more
        FROM tokens WHERE pin_key_id != :active AND length(pin_verifier) > 0
        ORDER BY user_id, serial LIMIT :most
    """,
    SealKind.SEED_FINGERPRINT: """
        SELECT serial AS row, tokens.key_id AS key_id, serial AS first, '' AS second,
               sealed_seed AS sealed, x'' AS more
        FROM tokens LEFT JOIN seed_fingerprints USING (serial)
        WHERE seed_fingerprints.key_id IS NOT :active ORDER BY serial LIMIT :most
    """,
    SealKind.SEED: """
        SELECT serial AS row, key_id, serial AS first, '' AS second,
               sealed_seed AS sealed, x'' AS more
        FROM tokens WHERE key_id != :active ORDER BY serial LIMIT :most
    """,
    SealKind.RADIUS_SECRET: """
        SELECT secret_id AS row, key_id, identity AS first, secret_id AS second,
               sealed, x'' AS more
        FROM radius_secrets WHERE key_id != :active ORDER BY secret_id LIMIT :most
    """,
    SealKind.CHANNEL_SECRET: """
        SELECT channel AS row, key_id, channel AS first, '' AS second,
               sealed_secret AS sealed, x'' AS more
        FROM channels WHERE key_id != :active AND length(sealed_secret) > 0
        ORDER BY channel LIMIT :most
    """,
    SealKind.CODE_TAGS: """
        SELECT CAST(number AS TEXT) AS row, key_id, user_id AS first, '' AS second,
               tags AS sealed, x'' AS more
        FROM former_codes WHERE key_id < :active ORDER BY key_id, number LIMIT :most
    """,
}
"""
For each kind: the rows to reseal. Each has one seal; a PIN has two.

A fingerprint is made from the sealed seed, so it comes before the seed is resealed. The
tokens without one were enrolled below feature level 2. Keys have ascending numbers, so
an index finds the tags that are left: there may be hundreds of thousands.
"""

_SETS = """
SELECT set_id, code_sets.key_id AS key_id,
       coalesce(former_sets.user_id, tokens.user_id, '') AS user_id, serial,
       NOT EXISTS (SELECT 1 FROM codes
                   WHERE codes.set_id = code_sets.set_id AND state = 'live') AS void
FROM code_sets JOIN tokens USING (serial) LEFT JOIN former_sets USING (set_id)
WHERE code_sets.key_id != :active ORDER BY number LIMIT :most
"""
"""The user of a set is the user who had the token when the set was issued."""

_DELETED_SETS = """
SELECT set_id, key_id, user_id, serial, 1 AS void FROM deleted_sets
WHERE key_id != :active ORDER BY number LIMIT :most
"""

_WAITING_SETS = """
SELECT set_id, key_id, user_id, serial, 1 AS void FROM deleted_sets
ORDER BY number LIMIT :most
"""

_COUNTS = """
SELECT (SELECT count(*) FROM administrators WHERE key_id != :active)
     + (SELECT count(*) FROM administrator_resets WHERE key_id != :active)
     + (SELECT count(*) FROM administrators
        WHERE factor_key_id != :active AND length(sealed_factor) > 0)
     + (SELECT count(*) FROM users WHERE tag_key_id != :active)
     + (SELECT count(*) FROM tokens
        WHERE pin_key_id != :active AND length(pin_verifier) > 0)
     + (SELECT count(*) FROM tokens WHERE key_id != :active)
     + (SELECT count(*) FROM seed_fingerprints WHERE key_id != :active)
     + (SELECT count(*) FROM code_sets WHERE key_id != :active)
     + (SELECT count(*) FROM former_codes WHERE key_id < :active)
     + (SELECT count(*) FROM radius_secrets WHERE key_id != :active)
     + (SELECT count(*) FROM channels
        WHERE key_id != :active AND length(sealed_secret) > 0)
     + (SELECT count(*) FROM deleted_sets WHERE key_id != :active) AS old,
       (SELECT count(*) FROM administrators) + (SELECT count(*) FROM users)
     + (SELECT count(*) FROM administrator_resets)
     + (SELECT count(*) FROM administrators WHERE length(sealed_factor) > 0)
     + (SELECT count(*) FROM tokens WHERE length(pin_verifier) > 0)
     + (SELECT count(*) FROM tokens) + (SELECT count(*) FROM code_sets)
     + (SELECT count(*) FROM seed_fingerprints) + (SELECT count(*) FROM former_codes)
     + (SELECT count(*) FROM radius_secrets)
     + (SELECT count(*) FROM channels WHERE length(sealed_secret) > 0)
     + (SELECT count(*) FROM deleted_sets) AS every
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealCounts:
    """The number of rows sealed with an older key, and of all sealed rows."""

    old: int
    every: int


async def keys(transaction: ReadTransaction) -> KeysInState:
    """Return the keys that the state uses."""
    rows = await transaction.all(key_tables.KEYS)
    return key_tables.keys_in([tuple(row) for row in rows])


async def is_used(transaction: ReadTransaction, key_id: KeyId) -> bool:
    """Return whether a row is sealed with the key: seconds for millions of rows."""
    for query in key_tables.USERS_OF_KEY:
        if await transaction.one(f"{query} LIMIT 1", key=key_id) is not None:
            return True
    return False


async def rotation_due(transaction: ReadTransaction) -> NodeId:
    """Return the removed member because of which another key is due, or empty (P6)."""
    row = await transaction.one(
        "SELECT value FROM meta WHERE name = :name", name=key_tables.ROTATION_DUE
    )
    return NodeId(row["value"] if row else "")


async def counts(transaction: ReadTransaction, active: KeyId) -> SealCounts:
    """Count the sealed rows."""
    row = await transaction.one(_COUNTS, active=active)
    pending = await _pending(transaction, active)
    if row is None:
        raise TypeError("a count without a row")
    return SealCounts(old=row["old"] + len(pending), every=row["every"] + len(pending))


async def to_replace(
    transaction: ReadTransaction, active: KeyId, *, most: int
) -> list[StoredSeal]:
    """Return seals with keys other than the active one: about *most* of them."""
    seals = await _pending(transaction, active)
    level = await cluster.feature_level(transaction)
    for kind, query in _ROWS.items():
        if len(seals) >= most:
            break
        if kind is SealKind.SEED_FINGERPRINT and level < UNIQUE_SEEDS:
            continue
        rows = await transaction.all(query, active=active, most=most - len(seals))
        for row in rows:
            sealed: tuple[bytes, ...] = (row["sealed"],)
            if kind is SealKind.PIN:
                sealed += (row["more"],)
            seals.append(
                StoredSeal(
                    kind=kind,
                    row=row["row"],
                    key_id=KeyId(row["key_id"]),
                    belongs_to=tuple(filter(None, (row["first"], row["second"]))),
                    sealed=sealed,
                    void=kind is SealKind.CODE_TAGS,
                )
            )
    if len(seals) < most:
        sets = await transaction.all(_SETS, active=active, most=most - len(seals))
        seals += await _codes(transaction, sets, "codes")
    if len(seals) < most and level < FORMER_CODES:
        sets = await transaction.all(
            _DELETED_SETS, active=active, most=most - len(seals)
        )
        seals += await _codes(transaction, sets, "deleted_codes")
    return seals


async def waiting_sets(transaction: ReadTransaction, *, most: int) -> list[StoredSeal]:
    """Return former sets that wait to become tags (A5), the oldest first."""
    sets = await transaction.all(_WAITING_SETS, most=most)
    return await _codes(transaction, sets, "deleted_codes", kind=SealKind.FORMER_CODES)


async def _codes(
    transaction: ReadTransaction,
    sets: Sequence[Row],
    codes_of: str,
    kind: SealKind = SealKind.CODES,
) -> list[StoredSeal]:
    seals = []
    for row in sets:
        codes = await transaction.all(
            f"SELECT verifier FROM {codes_of} WHERE set_id = :set_id ORDER BY ordinal",
            set_id=row["set_id"],
        )
        seals.append(
            StoredSeal(
                kind=kind,
                row=row["set_id"],
                key_id=KeyId(row["key_id"]),
                belongs_to=(row["user_id"], row["set_id"]),
                sealed=tuple(code["verifier"] for code in codes),
                serial=row["serial"],
                void=bool(row["void"]),
            )
        )
    return seals


async def _pending(transaction: ReadTransaction, active: KeyId) -> list[StoredSeal]:
    """Return the seals in changes that wait for a second approver (P3)."""
    seals = []
    for row in await transaction.all(
        "SELECT approval_id, change FROM approvals WHERE change != ''"
    ):
        sealed = sealed_in(from_json(row["change"]))
        if sealed is not None and sealed.key_id != active:
            seals.append(
                StoredSeal(
                    kind=SealKind.PENDING_CHANNEL
                    if isinstance(sealed, SaveChannel)
                    else SealKind.PENDING_CHANGE,
                    row=str(row["approval_id"]),
                    key_id=sealed.key_id,
                    belongs_to=(
                        sealed.channel
                        if isinstance(sealed, SaveChannel)
                        else sealed.name,
                    ),
                    sealed=(seal_of(sealed),),
                )
            )
    return seals
