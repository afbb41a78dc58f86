# SPDX-License-Identifier: Apache-2.0
"""Tokens, for display and for building commands."""

import sqlite3
from dataclasses import dataclass

from sparecode_node.domain.ids import NameKey, TokenSerial
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User
from sparecode_node.queries import pages
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.queries.views import Page, TokenView
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
    {LIVE_CODES} AS live_codes
FROM tokens LEFT JOIN users USING (user_id)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFilter:
    """Conditions on tokens; a token must meet all that are set."""

    serial_prefix: str = ""
    name_key: NameKey | None = None
    algorithm: Algorithm | None = None
    enabled: bool | None = None
    in_emergency_access: bool | None = None
    search: str = ""
    """Part of the serial or of the user's name, display name or email; folded."""


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
    first, end = pages.prefix_range(criteria.serial_prefix)
    rows = await transaction.all(
        _VIEW
        + """
        WHERE serial > :after AND serial >= :first AND serial < :end
            AND coalesce(name_key = :name_key, :name_key IS NULL)
            AND coalesce(algorithm = :algorithm, 1)
            AND coalesce(tokens.enabled = :enabled, 1)
            AND coalesce((lost AND users.user_id IS NOT NULL) = :lost, 1)
            AND (:search = '' OR instr(folded(serial), :search)
                OR instr(name_key, :search) OR instr(folded(display_name), :search)
                OR instr(folded(email), :search))
        ORDER BY serial LIMIT :rows
        """,
        now_ms=now_ms,
        after=pages.decode(page_token),
        first=first,
        end=end,
        name_key=criteria.name_key,
        algorithm=criteria.algorithm,
        enabled=criteria.enabled,
        lost=criteria.in_emergency_access,
        search=criteria.search,
        rows=size + 1,
    )
    return pages.page([_view(row) for row in rows], size, lambda token: token.serial)


def _view(row: sqlite3.Row) -> TokenView:
    return TokenView(
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
        enabled=bool(row["enabled"]),
        expires_at_ms=row["expires_at_ms"],
        lost=bool(row["lost"]),
        live_codes=row["live_codes"],
    )
