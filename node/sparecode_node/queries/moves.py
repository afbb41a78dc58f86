# SPDX-License-Identifier: Apache-2.0
"""Moves of users between clusters, and the rows of the users that move."""

import sqlite3
from dataclasses import dataclass, field
from typing import Any, Final

from sparecode_node.domain.moves import Move, MoveTicket, part_id
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.users import NEW_USER
from sparecode_node.queries.transaction import ReadTransaction
from sparecode_node.statemachine.tables.moves import COLUMNS, OF_MOVE, move_of

Row = dict[str, Any]


async def any_move(transaction: ReadTransaction) -> bool:
    """Return whether this cluster has ever moved users."""
    return await transaction.one("SELECT 1 FROM moves LIMIT 1") is not None


async def find(transaction: ReadTransaction, move_id: str) -> Move | None:
    """Return a move."""
    row = await transaction.one(
        f"SELECT {COLUMNS} FROM moves WHERE move_id = :move_id", move_id=move_id
    )
    return None if row is None else move_of(tuple(row))


async def find_part(
    transaction: ReadTransaction, move_id: str, part: range | None
) -> Move | None:
    """Return the part of a move that is taken back alone, or else the move."""
    alone = None if part is None else await find(transaction, part_id(move_id, part))
    return alone or await find(transaction, move_id)


async def decides_all(transaction: ReadTransaction, ticket: MoveTicket) -> bool:
    """Return whether a move decides about all slots of its ticket."""
    row = await transaction.one(
        "SELECT count(*) AS decided FROM moved_slots "
        "WHERE slot BETWEEN :first AND :last "
        "AND number = (SELECT number FROM moves WHERE move_id = :move_id)",
        first=ticket.first_slot,
        last=ticket.last_slot,
        move_id=ticket.move_id,
    )
    slots = ticket.last_slot - ticket.first_slot + 1
    return row is not None and row["decided"] == slots


async def every(transaction: ReadTransaction) -> tuple[Move, ...]:
    """Return all moves, the newest first."""
    rows = await transaction.all(f"SELECT {COLUMNS} FROM moves ORDER BY number DESC")
    return tuple(move_of(tuple(row)) for row in rows)


async def has_users_of(transaction: ReadTransaction, move_id: str) -> bool:
    """Return whether users of a move are left to delete."""
    move = await find(transaction, move_id)
    if move is None:
        return False
    row = await transaction.one(
        f"SELECT 1 {OF_MOVE} LIMIT 1",
        first=move.ticket.first_slot,
        last=move.ticket.last_slot,
        move_id=move_id,
    )
    return row is not None


async def cluster_id(transaction: ReadTransaction) -> str:
    """Return the id of this cluster."""
    row = await transaction.one("SELECT value FROM meta WHERE name = 'cluster_id'")
    return "" if row is None else str(row["value"])


def policy_words(policy: Policy) -> Row:
    """Return the parts of the policy that decide how codes and PINs are read."""
    return {
        "code_alphabet": policy.code_alphabet,
        "code_lengths": sorted(policy.code_lengths),
        "pin_letters": policy.pin_letters,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRows:
    """All rows of a user that move, with their seals as they are stored."""

    user: Row = field(repr=False)
    plain: list[tuple[str, Row]] = field(repr=False)
    """Rows without a secret, by their kind."""
    tokens: list[Row] = field(repr=False)
    token_rows: list[tuple[str, Row]] = field(repr=False)
    sets: list[Row] = field(repr=False)
    """With their codes, in the order in which they were issued."""
    tags: list[Row] = field(repr=False)
    """Former codes of the user, as tags."""
    former: list[Row] = field(repr=False)
    """Former codes that have their verifiers still: each set with its codes."""


_USERS: Final = """
SELECT user_id, username, name_key, display_name, email, enabled, auth_version,
    pin_salt, code_salt, language, manager_email, email_since_ms, manager_since_ms, slot,
    auth_version = :new AND NOT EXISTS (
        SELECT 1 FROM former_names WHERE former_names.name_key = users.name_key
    ) AS is_new
FROM users WHERE slot BETWEEN :first AND :last AND (slot, name_key) > (:slot, :name)
ORDER BY slot, name_key LIMIT :most
"""

_PLAIN: Final = {
    "lockout": "SELECT * FROM lockouts WHERE user_id = :user_id ORDER BY factor",
    "group": "SELECT * FROM user_groups WHERE user_id = :user_id ORDER BY group_key",
    "address": "SELECT * FROM former_addresses WHERE user_id = :user_id "
    "ORDER BY of_manager, email",
    "alarm": "SELECT * FROM alarms WHERE user_id = :user_id ORDER BY notice_id",
    "creator": "SELECT * FROM user_creators WHERE user_id = :user_id",
    "allowance": "SELECT * FROM allowance_counts WHERE subject = :user_id "
    "AND allowance = 'unlock' ORDER BY minute_ms",
}

_OF_TOKENS: Final = {
    # No name: what is known in a third cluster. The target decides what a name counts.
    "secret": "SELECT serial, administrator, secret FROM ("
    "SELECT serial, administrator, secret FROM known_secrets "
    "WHERE secret != 'confirmed' UNION "
    "SELECT serial, '' AS administrator, secret FROM secrets_known_elsewhere UNION "
    "SELECT serial, administrator, 'pin' FROM pin_changes"
    ") JOIN tokens USING (serial) WHERE user_id = :user_id "
    "ORDER BY serial, administrator, secret",
}

_SETS: Final = """
SELECT code_sets.*, EXISTS (
    SELECT 1 FROM sealed_codes AS sent WHERE sent.set_id = code_sets.set_id AND page = ''
) AS unopened, EXISTS (
    SELECT 1 FROM set_ends WHERE set_ends.set_id = code_sets.set_id
) AS untold, EXISTS (
    SELECT 1 FROM sets_issued_elsewhere AS moved WHERE moved.set_id = code_sets.set_id
) AS issued_elsewhere
FROM code_sets JOIN tokens USING (serial)
LEFT JOIN former_sets USING (set_id)
WHERE tokens.user_id = :user_id
    AND coalesce(former_sets.user_id, tokens.user_id) = :user_id
ORDER BY number
"""
"""The sets of earlier users of the tokens stay with those users."""

_FORMER: Final = """
SELECT set_id, serial, key_id FROM deleted_sets WHERE user_id = :user_id ORDER BY number
"""

_TAKEN_AWAY: Final = """
SELECT set_id, serial, code_sets.key_id AS key_id FROM former_sets
JOIN code_sets USING (set_id) JOIN tokens USING (serial)
WHERE former_sets.user_id = :user_id AND tokens.user_id IS NOT :user_id ORDER BY number
"""


async def users_after(
    transaction: ReadTransaction, ticket: MoveTicket, after: tuple[int, str], most: int
) -> list[UserRows]:
    """Return some users of a move with all their rows, in the order of slot and name."""
    users = await transaction.all(
        _USERS,
        first=ticket.first_slot,
        last=ticket.last_slot,
        slot=after[0],
        name=after[1],
        most=most,
        new=NEW_USER,
    )
    return [await _rows_of(transaction, user) for user in users]


async def _rows_of(transaction: ReadTransaction, user: sqlite3.Row) -> UserRows:
    user_id: str = user["user_id"]
    sets = [dict(row) for row in await transaction.all(_SETS, user_id=user_id)]
    for each in sets:
        each["codes"] = await transaction.all(
            "SELECT ordinal, verifier, state, used_at_ms, used_agent, used_node_id, "
            "used_index FROM codes WHERE set_id = :set_id ORDER BY ordinal",
            set_id=each["set_id"],
        )
    former = [dict(row) for row in await transaction.all(_FORMER, user_id=user_id)]
    for each in former:
        each["verifiers"] = await _verifiers(
            transaction, "deleted_codes", each["set_id"]
        )
    taken = [dict(row) for row in await transaction.all(_TAKEN_AWAY, user_id=user_id)]
    for each in taken:
        each["verifiers"] = await _verifiers(transaction, "codes", each["set_id"])
    return UserRows(
        user=dict(user),
        plain=await _kinds(transaction, _PLAIN, user_id),
        tokens=[
            dict(row)
            for row in await transaction.all(
                "SELECT * FROM tokens WHERE user_id = :user_id ORDER BY serial",
                user_id=user_id,
            )
        ],
        token_rows=await _kinds(transaction, _OF_TOKENS, user_id),
        sets=sets,
        tags=[
            dict(row)
            for row in await transaction.all(
                "SELECT serial, key_id, tags FROM former_codes "
                "WHERE user_id = :user_id ORDER BY number",
                user_id=user_id,
            )
        ],
        former=former + taken,
    )


async def _kinds(
    transaction: ReadTransaction, queries: dict[str, str], user_id: str
) -> list[tuple[str, Row]]:
    return [
        (kind, dict(row))
        for kind, query in queries.items()
        for row in await transaction.all(query, user_id=user_id)
    ]


async def _verifiers(
    transaction: ReadTransaction, table: str, set_id: str
) -> list[bytes]:
    rows = await transaction.all(
        f"SELECT verifier FROM {table} WHERE set_id = :set_id ORDER BY ordinal",
        set_id=set_id,
    )
    return [row["verifier"] for row in rows]
