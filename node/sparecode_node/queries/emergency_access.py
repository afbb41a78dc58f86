# SPDX-License-Identifier: Apache-2.0
"""Emergency access of tokens, with the state of each code."""

import sqlite3

from sparecode_node.domain.emergency_access import CodeState, RecoveryPolicy
from sparecode_node.domain.ids import TokenSerial
from sparecode_node.queries import pages
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.queries.tokens import LIVE_CODES
from sparecode_node.queries.views import (
    CodeSetView,
    CodeView,
    EmergencyAccessView,
    Page,
)

FOREVER_MS = 2**63 - 1

# The end of the last live code of a token, not counting the end of the token.
_LAST_END = f"""
(
    SELECT max(coalesce(code_sets.ends_at_ms, {FOREVER_MS}))
    FROM code_sets JOIN codes USING (set_id)
    WHERE code_sets.serial = tokens.serial AND state = 'live'
)
"""

_FIXED = """
EXISTS (
    SELECT 1 FROM code_sets JOIN codes USING (set_id)
    WHERE code_sets.serial = tokens.serial AND state = 'live' AND code_sets.fixed
)
"""

_VIEW = f"""
SELECT serial, username, lost, recovery, live_codes, fixed,
    CASE WHEN live_codes > 0
        THEN nullif(min(last_end, coalesce(expires_at_ms, last_end)), {FOREVER_MS})
    END AS ends_at_ms,
    expires_at_ms
FROM (
    SELECT serial, coalesce(username, '') AS username, lost, recovery, expires_at_ms,
        {LIVE_CODES} AS live_codes, {_LAST_END} AS last_end, {_FIXED} AS fixed
    FROM tokens LEFT JOIN users USING (user_id)
)
"""


async def get(
    transaction: ReadTransaction, serial: TokenSerial, *, now_ms: int
) -> EmergencyAccessView | None:
    """Return the emergency access of one token, with its sets, newest first."""
    row = await transaction.one(
        _VIEW + "WHERE serial = :serial", serial=serial, now_ms=now_ms
    )
    if row is None:
        return None
    codes: dict[str, list[CodeView]] = {}
    for code in await transaction.all(
        """
        SELECT codes.* FROM codes JOIN code_sets USING (set_id)
        WHERE serial = :serial ORDER BY ordinal
        """,
        serial=serial,
    ):
        codes.setdefault(code["set_id"], []).append(_code(code))
    sets = await transaction.all(
        "SELECT * FROM code_sets WHERE serial = :serial ORDER BY number DESC",
        serial=serial,
    )
    return _view(
        row,
        tuple(
            _set(each, tuple(codes.get(each["set_id"], ())), row, now_ms)
            for each in sets
        ),
    )


async def page(
    transaction: ReadTransaction,
    *,
    size: int,
    page_token: str,
    live_codes_max: int,
    end_before_ms: int | None,
    now_ms: int,
) -> Page[EmergencyAccessView]:
    """
    Return a page of assigned tokens that count as lost, ordered by serial.

    An unassigned token is left out, even if it is still lost: no user needs codes for
    it. *live_codes_max*: only tokens with at most this many live codes; 0: all tokens.
    *end_before_ms*: only tokens with live codes that all end before this time.
    """
    rows = await transaction.all(
        _VIEW
        + """
        WHERE lost AND username != '' AND serial > :after
            AND (:live_codes_max = 0 OR live_codes <= :live_codes_max)
            AND (:end_before_ms IS NULL OR ends_at_ms < :end_before_ms)
        ORDER BY serial LIMIT :rows
        """,
        after=pages.decode(page_token),
        now_ms=now_ms,
        live_codes_max=live_codes_max,
        end_before_ms=end_before_ms,
        rows=size + 1,
    )
    return pages.page(
        [_view(row, ()) for row in rows], size, lambda access: access.serial
    )


def _view(row: sqlite3.Row, sets: tuple[CodeSetView, ...]) -> EmergencyAccessView:
    return EmergencyAccessView(
        serial=row["serial"],
        username=row["username"],
        enabled=row["live_codes"] > 0,
        lost=bool(row["lost"]),
        recovery=RecoveryPolicy(row["recovery"]),
        live_codes=row["live_codes"],
        ends_at_ms=row["ends_at_ms"],
        fixed=bool(row["fixed"]),
        sets=sets,
    )


def _set(
    row: sqlite3.Row, codes: tuple[CodeView, ...], token: sqlite3.Row, now_ms: int
) -> CodeSetView:
    ends = (row["ends_at_ms"], token["expires_at_ms"])
    ends_at_ms = min((end for end in ends if end is not None), default=None)
    return CodeSetView(
        set_id=row["set_id"],
        issuer=row["issuer"],
        node_id=row["node_id"],
        index=row["issued_index"],
        issued_at_ms=row["issued_at_ms"],
        ends_at_ms=ends_at_ms,
        codes=codes,
        expired=ends_at_ms is not None and now_ms >= ends_at_ms,
        fixed=bool(row["fixed"]),
    )


def _code(row: sqlite3.Row) -> CodeView:
    return CodeView(
        ordinal=row["ordinal"],
        state=CodeState(row["state"]),
        used_at_ms=row["used_at_ms"],
        agent=row["used_agent"] or "",
        node_id=row["used_node_id"] or "",
        index=row["used_index"] or 0,
    )
