# SPDX-License-Identifier: Apache-2.0
"""Tokens, for display and for building commands."""

import enum
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparecode_node.domain.etags import TOKEN, etag
from sparecode_node.domain.ids import NameKey, TokenSerial
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User
from sparecode_node.queries import pages
from sparecode_node.queries.transaction import Kind, ReadTransaction, Value
from sparecode_node.queries.users import GROUPS
from sparecode_node.queries.views import Found, Page, TokenView
from sparecode_node.statemachine.tables import tokens as token_tables
from sparecode_node.statemachine.tables import users as user_tables

# The number of a token's usable codes: live codes of sets that have not ended, if the
# token has not expired (I7).
LIVE_CODES = """
(
    SELECT count(*) FROM code_sets JOIN codes USING (set_id)
    WHERE code_sets.serial = tokens.serial AND state = 'live'
        AND coalesce(code_sets.ends_at_ms > :now_ms, 1)
        AND coalesce(tokens.expires_at_ms > :now_ms, 1)
)
"""

_VIEW = f"""
SELECT tokens.*, coalesce(username, '') AS username,
    coalesce(display_name, '') AS display_name, coalesce(email, '') AS email,
    coalesce(language, '') AS language,
    {LIVE_CODES} AS live_codes
FROM tokens LEFT JOIN users USING (user_id)
"""


class TokenOrder(enum.StrEnum):
    """The order of found tokens."""

    SERIAL = "serial"
    USER = "user"
    EXPIRY = "expiry"


_ORDERS = {
    TokenOrder.SERIAL: "serial",
    TokenOrder.USER: "name_key IS NULL, name_key, serial",
    TokenOrder.EXPIRY: "expires_at_ms IS NULL, expires_at_ms, serial",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFilter:
    """Conditions on tokens; a token must meet all that are set."""

    serial_prefix: str = ""
    name_key: NameKey | None = None
    algorithm: Algorithm | None = None
    enabled: bool | None = None
    in_emergency_access: bool | None = None
    search: str = ""
    """Words in the serial, or in the user's name, display name or email."""


async def find_with_user(
    transaction: ReadTransaction, serial: TokenSerial
) -> tuple[Token, User | None] | None:
    """Return a token and its user; None for the user of an unassigned token."""
    token = await transaction.one(
        f"SELECT {token_tables.TOKEN_COLUMNS} FROM tokens WHERE serial = :serial",
        serial=serial,
    )
    if token is None:
        return None
    user = await transaction.one(
        f"SELECT {user_tables.USER_COLUMNS} FROM users WHERE user_id = :user_id",
        user_id=token["user_id"],
    )
    return token_tables.token_of(tuple(token)), user_tables.user_of(
        tuple(user)
    ) if user else None


async def get(
    transaction: ReadTransaction, serial: TokenSerial, *, now_ms: int
) -> TokenView | None:
    """Return one token."""
    row = await transaction.one(
        _VIEW + "WHERE serial = :serial", serial=serial, now_ms=now_ms
    )
    return _view(row) if row else None


async def page(
    transaction: ReadTransaction,
    criteria: TokenFilter,
    *,
    size: int,
    page_token: str,
    now_ms: int,
) -> Page[TokenView]:
    """Return a page of tokens, ordered by serial."""
    where, values = await _conditions(transaction, criteria)
    rows = await transaction.all(
        f"{_VIEW} WHERE {where} AND serial > :after ORDER BY serial LIMIT :rows",
        **values,
        now_ms=now_ms,
        after=pages.decode(page_token),
        rows=size + 1,
    )
    return pages.page([_view(row) for row in rows], size, lambda token: token.serial)


async def find(
    transaction: ReadTransaction,
    criteria: TokenFilter,
    *,
    order: TokenOrder,
    number: int,
    size: int,
    now_ms: int,
) -> Found[TokenView]:
    """
    Return one of the first pages of tokens, and how many tokens match.

    *number*: the page, from 1 on. Orders other than by serial are for at most
    `pages.COUNTED_MAX` tokens; more are ordered by serial.
    """
    where, values = await _conditions(transaction, criteria)
    broad = bool(criteria.search) and values["serials"] is None
    rows_found = f"SELECT 1 FROM tokens LEFT JOIN users USING (user_id) WHERE {where}"
    matches = await pages.count(transaction, rows_found, values, broad=broad)
    by = _ORDERS[TokenOrder.SERIAL if matches.more else order]
    rows = await transaction.all(
        f"{_VIEW} WHERE {where} ORDER BY {by} LIMIT :rows OFFSET :skipped",
        **values,
        now_ms=now_ms,
        rows=size,
        skipped=matches.before(number, size),
    )
    return Found(
        items=tuple(_view(row) for row in rows),
        total=matches.counted,
        more=matches.more,
        number=number,
        size=size,
    )


async def _conditions(
    transaction: ReadTransaction, criteria: TokenFilter
) -> tuple[str, dict[str, Value]]:
    """Return the condition on tokens and their users, and its values."""
    prefix, search = criteria.serial_prefix, criteria.search
    serials = await transaction.find(Kind.TOKEN, search)
    users = await transaction.find(Kind.USER, search)
    conditions = ["serial >= :first", "serial < :end"]
    values: dict[str, Value] = {"serials": None, "users": None}
    if serials.keys is not None and users.keys is not None:
        values["serials"] = json.dumps(serials.keys)
        values["users"] = json.dumps(users.keys)
        conditions.append(
            """
            (serial IN (SELECT value FROM json_each(:serials))
                OR tokens.user_id IN (
                    SELECT user_id FROM users
                    WHERE name_key IN (SELECT value FROM json_each(:users))))
            """
        )
        search = ""
    elif serials.by_prefix or users.by_prefix:
        prefix = max(prefix, search, key=len)
        search = ""
    for column, value in (
        ("name_key", criteria.name_key),
        ("algorithm", criteria.algorithm),
        ("tokens.enabled", criteria.enabled),
        ("(lost AND users.user_id IS NOT NULL)", criteria.in_emergency_access),
    ):
        if value is not None:
            name = f"value_{len(values)}"
            conditions.append(f"{column} = :{name}")
            values[name] = value
    if search:
        # Last: it is the slowest, and all others are compared before it.
        conditions.append(
            f"""
            (found(:search, serial)
                OR found(:search, username, display_name, email, {GROUPS}))
            """
        )
        values["search"] = search
    values["first"], values["end"] = pages.prefix_range(prefix)
    return " AND ".join(conditions), values


async def existing(
    transaction: ReadTransaction, serials: Sequence[str]
) -> frozenset[str]:
    """Return which of these serials tokens have."""
    rows = await transaction.all(
        "SELECT serial FROM tokens "
        "WHERE serial IN (SELECT value FROM json_each(:serials))",
        serials=json.dumps(serials),
    )
    return frozenset(row["serial"] for row in rows)


def _view(row: sqlite3.Row) -> TokenView:
    view = TokenView(
        serial=row["serial"],
        algorithm=Algorithm(row["algorithm"]),
        hash_name=HashName(row["hash_name"]),
        digits=row["digits"],
        period_s=row["period_s"],
        pin_rule=PinRule(row["pin_rule"]),
        pin_set=bool(row["pin_verifier"]),
        username=row["username"],
        display_name=row["display_name"],
        email=row["email"],
        language=row["language"],
        enabled=bool(row["enabled"]),
        expires_at_ms=row["expires_at_ms"],
        lost=bool(row["lost"]),
        live_codes=row["live_codes"],
    )
    return replace(view, etag=etag(view, TOKEN))
