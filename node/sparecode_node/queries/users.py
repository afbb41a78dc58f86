# SPDX-License-Identifier: Apache-2.0
"""Users, for display and for computing candidates."""

import enum
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparecode_node.domain.etags import USER, etag
from sparecode_node.domain.ids import KeyId, NameKey, SetId, TokenSerial, UserId
from sparecode_node.domain.lockout import Factor
from sparecode_node.domain.users import fold
from sparecode_node.queries import pages
from sparecode_node.queries.search_words import likeness
from sparecode_node.queries.transaction import Kind, ReadTransaction, Value
from sparecode_node.queries.views import Found, Page, UserView
from sparecode_node.statemachine.feature_level import FIRST
from sparecode_node.statemachine.tables.former import (
    DELETED_SETS,
    FORMER_SETS,
    WAITING_SETS_MAX,
)

GROUPS = """
coalesce((SELECT group_concat(group_key, ' ') FROM user_groups
    WHERE user_groups.user_id = users.user_id), '')
"""
"""The groups of a user, for a search: Meyer in accounting."""
_COLUMNS = (
    "user_id, username, name_key, display_name, email, enabled, language, manager_email"
)


class UserOrder(enum.StrEnum):
    """The order of found users."""

    NAME = "name"
    DISPLAY_NAME = "display_name"
    EMAIL = "email"
    STATE = "state"


_ORDERS = {
    UserOrder.NAME: "name_key",
    UserOrder.DISPLAY_NAME: "display_name = '', display_name COLLATE NOCASE, name_key",
    UserOrder.EMAIL: "email = '', email COLLATE NOCASE, name_key",
    UserOrder.STATE: "enabled, name_key",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PasscodeParameters:
    """The parameters for computing the candidates of a user's passcode (T2)."""

    user_id: UserId
    auth_version: int
    pin_salt: bytes
    code_salt: bytes
    name_tag: bytes
    """The tag by which the user was found."""
    level: int
    """The feature level of the cluster."""
    pins: tuple[tuple[TokenSerial, KeyId], ...]
    """Tokens with a PIN, and the key that each PIN is sealed with."""
    sets: tuple["SetParameters", ...]
    """
    All stored sets: typing one of their codes is not a guess (A5).

    This includes ended sets, sets of tokens that were unassigned or deleted, and old
    sets that wait to become tags.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class SetParameters:
    """The parameters for computing the candidate of a code of one set."""

    set_id: SetId
    key_id: KeyId
    """Key that its verifiers are sealed with."""
    code_length: int


async def passcode_parameters(
    transaction: ReadTransaction, name_tags: Sequence[bytes]
) -> PasscodeParameters | None:
    """
    Return the parameters for computing candidates for the user with one of these tags.

    An unknown name takes the same lookups, so that it takes the same time (A6).
    """
    matches = [  # There is one tag, except during a key rotation.
        await transaction.one(
            """
            SELECT user_id, auth_version, pin_salt, code_salt, name_tag, coalesce(
                (SELECT value FROM meta WHERE name = 'feature_level'), :first
            ) AS level
            FROM users WHERE name_tag = :name_tag
            """,
            name_tag=name_tag,
            first=FIRST,
        )
        for name_tag in name_tags
    ]
    user = next((each for each in matches if each is not None), None)
    user_id = "" if user is None else user["user_id"]
    tokens = await transaction.all(
        """
        SELECT serial, pin_key_id FROM tokens
        WHERE user_id = :user_id AND length(pin_verifier) > 0 ORDER BY serial
        """,
        user_id=user_id,
    )
    sets = await transaction.all(
        """
        SELECT set_id, code_sets.key_id AS key_id, code_length
        FROM code_sets JOIN tokens USING (serial)
        WHERE user_id = :user_id ORDER BY number DESC
        """,
        user_id=user_id,
    )
    former = [
        *await transaction.all(FORMER_SETS, user_id=user_id, most=WAITING_SETS_MAX),
        *await transaction.all(DELETED_SETS, user_id=user_id, most=WAITING_SETS_MAX),
    ]
    if user is None:
        return None
    return PasscodeParameters(
        user_id=UserId(user["user_id"]),
        auth_version=user["auth_version"],
        pin_salt=user["pin_salt"],
        code_salt=user["code_salt"],
        name_tag=user["name_tag"],
        level=user["level"],
        pins=tuple(
            (TokenSerial(row["serial"]), KeyId(row["pin_key_id"])) for row in tokens
        ),
        sets=tuple(
            SetParameters(
                set_id=SetId(row["set_id"]),
                key_id=KeyId(row["key_id"]),
                code_length=row["code_length"],
            )
            for row in (*sets, *former)
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PinParameters:
    """The parameters for computing the verifier of a user's new PIN (T2)."""

    user_id: UserId
    auth_version: int
    pin_salt: bytes


async def pin_parameters(
    transaction: ReadTransaction, user_id: UserId
) -> PinParameters | None:
    """Return the parameters for computing a PIN of this user."""
    user = await transaction.one(
        "SELECT user_id, auth_version, pin_salt FROM users WHERE user_id = :user_id",
        user_id=user_id,
    )
    if user is None:
        return None
    return PinParameters(
        user_id=UserId(user["user_id"]),
        auth_version=user["auth_version"],
        pin_salt=user["pin_salt"],
    )


async def existing(
    transaction: ReadTransaction, name_keys: Sequence[NameKey]
) -> frozenset[str]:
    """Return which of these names users have."""
    rows = await transaction.all(
        "SELECT name_key FROM users "
        "WHERE name_key IN (SELECT value FROM json_each(:keys))",
        keys=json.dumps(name_keys),
    )
    return frozenset(row["name_key"] for row in rows)


async def get(
    transaction: ReadTransaction, name_key: NameKey, *, now_ms: int
) -> UserView | None:
    """Return one user."""
    row = await transaction.one(
        f"SELECT {_COLUMNS} FROM users WHERE name_key = :name_key",
        name_key=name_key,
    )
    if row is None:
        return None
    return await _view(transaction, row, now_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class UserFilter:
    """Conditions on users; a user must meet all that are set."""

    prefix: str = ""
    """Beginning of the username; folded."""
    search: str = ""
    """Words in the username, display name, email or groups, see search_words.py."""
    enabled: bool | None = None
    locked: bool | None = None
    """Whether a factor is waiting or locked now."""


async def page(
    transaction: ReadTransaction,
    criteria: UserFilter,
    *,
    size: int,
    page_token: str,
    now_ms: int,
) -> Page[UserView]:
    """Return a page of users, ordered by folded name."""
    where, values = await _conditions(transaction, criteria, now_ms)
    rows = await transaction.all(
        f"""
        SELECT {_COLUMNS} FROM users WHERE {where} AND name_key > :after
        ORDER BY name_key LIMIT :rows
        """,
        **values,
        after=pages.decode(page_token),
        rows=size + 1,
    )
    page = pages.page(rows, size, lambda row: str(row["name_key"]))
    return Page(
        items=tuple([await _view(transaction, row, now_ms) for row in page.items]),
        next_page_token=page.next_page_token,
    )


async def find(
    transaction: ReadTransaction,
    criteria: UserFilter,
    *,
    order: UserOrder,
    number: int,
    size: int,
    now_ms: int,
) -> Found[UserView]:
    """
    Return one of the first pages of users, and how many users match.

    *number*: the page, from 1 on. Orders other than by name are for at most
    `pages.COUNTED_MAX` users; more are ordered by name.
    """
    where, values = await _conditions(transaction, criteria, now_ms)
    broad = bool(criteria.search) and values["keys"] is None
    matches = await pages.count(
        transaction, f"SELECT 1 FROM users WHERE {where}", values, broad=broad
    )
    by = _ORDERS[UserOrder.NAME if matches.more else order]
    rows = await transaction.all(
        f"""
        SELECT {_COLUMNS} FROM users WHERE {where}
        ORDER BY {by} LIMIT :rows OFFSET :skipped
        """,
        **values,
        rows=size,
        skipped=matches.before(number, size),
    )
    return Found(
        items=tuple([await _view(transaction, row, now_ms) for row in rows]),
        total=matches.counted,
        more=matches.more,
        number=number,
        size=size,
    )


async def alike(
    transaction: ReadTransaction, query: str, *, most: int, now_ms: int
) -> tuple[UserView, ...]:
    """
    Return users of whom a word of a query is only the sound, the most alike first.

    Those with the words of the query themselves are not among them: `find` has these.
    """
    keys = await transaction.sounding(query)
    rows = await transaction.all(
        f"""
        SELECT {_COLUMNS}, {GROUPS} AS groups FROM users
        WHERE name_key IN (SELECT value FROM json_each(:keys))
            AND NOT found(:query, username, display_name, email, {GROUPS})
        """,
        keys=json.dumps(keys),
        query=query,
    )
    ranked = sorted(
        rows,
        key=lambda row: (
            -likeness(
                query,
                (row["username"], row["display_name"], row["groups"], row["email"]),
            ),
            row["name_key"],
        ),
    )
    return tuple([await _view(transaction, row, now_ms) for row in ranked[:most]])


async def _conditions(
    transaction: ReadTransaction, criteria: UserFilter, now_ms: int
) -> tuple[str, dict[str, Value]]:
    """Return the condition on users, and its values."""
    prefix, search = criteria.prefix, criteria.search
    candidates = await transaction.find(Kind.USER, search)
    conditions = ["name_key >= :first", "name_key < :end"]
    keys: str | None = None
    if candidates.keys is not None:
        keys = json.dumps(candidates.keys)
        conditions.append("name_key IN (SELECT value FROM json_each(:keys))")
    elif candidates.by_prefix:
        prefix = max(prefix, fold(search), key=len)
        search = ""
    if criteria.enabled is not None:
        conditions.append("enabled = :enabled")
    if criteria.locked is not None:
        conditions.append(
            f"""
            user_id {"" if criteria.locked else "NOT"} IN (
                SELECT user_id FROM lockouts WHERE off OR blocked_until_ms > :now_ms)
            """
        )
    if search and candidates.keys is None:
        # Last: it is the slowest, and all others are compared before it.
        conditions.append(f"found(:search, username, display_name, email, {GROUPS})")
    first, end = pages.prefix_range(prefix)
    return " AND ".join(conditions), {
        "first": first,
        "end": end,
        "keys": keys,
        "enabled": criteria.enabled,
        "now_ms": now_ms,
        "search": search,
    }


async def _view(
    transaction: ReadTransaction, row: sqlite3.Row, now_ms: int
) -> UserView:
    tokens = await transaction.all(
        "SELECT serial FROM tokens WHERE user_id = :user_id ORDER BY serial",
        user_id=row["user_id"],
    )
    lockouts = {
        lockout["factor"]: lockout
        for lockout in await transaction.all(
            """
            SELECT factor, failures, off OR blocked_until_ms > :now_ms AS locked
            FROM lockouts WHERE user_id = :user_id
            """,
            user_id=row["user_id"],
            now_ms=now_ms,
        )
    }
    failures = {
        factor: lockouts[factor]["failures"] if factor in lockouts else 0
        for factor in Factor
    }
    groups = await transaction.all(
        "SELECT group_key FROM user_groups WHERE user_id = :user_id ORDER BY group_key",
        user_id=row["user_id"],
    )
    view = UserView(
        username=row["username"],
        display_name=row["display_name"],
        email=row["email"],
        enabled=bool(row["enabled"]),
        token_serials=tuple(str(token["serial"]) for token in tokens),
        token_failures=failures[Factor.TOKEN],
        emergency_failures=failures[Factor.EMERGENCY],
        locked=any(lockout["locked"] for lockout in lockouts.values()),
        groups=tuple(str(group["group_key"]) for group in groups),
        language=row["language"],
        manager_email=row["manager_email"],
    )
    return replace(view, etag=etag(view, USER))
