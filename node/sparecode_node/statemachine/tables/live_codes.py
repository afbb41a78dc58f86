# SPDX-License-Identifier: Apache-2.0
"""Counting live codes for a change of the policy (I6, T4)."""

import json
import sqlite3
from collections.abc import Iterable

from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy_changes import LiveCodes
from sparecode_node.statemachine.tables.rows import Row

NEW_SETS_MAX = 1_000
"""
Sets that may have been issued after a count, for it to count in apply.

Apply looks at each of them. The node that counts adds those of the time of its count.
"""


def _query(condition: str) -> str:
    return f"""
WITH sets AS MATERIALIZED (
    SELECT serial, pin_rule, code_length, (
        SELECT count(*) FROM codes
        WHERE codes.set_id = code_sets.set_id AND codes.state = 'live'
    ) AS live
    FROM tokens JOIN code_sets USING (serial)
    WHERE (ends_at_ms IS NULL OR ends_at_ms > :now){condition}
), lengths AS (
    SELECT serial, pin_rule, code_length, sum(live) AS live FROM sets
    WHERE live > 0 GROUP BY serial, pin_rule, code_length
), owners AS (
    SELECT serial, pin_rule, json_group_object(code_length, live) AS lengths
    FROM lengths GROUP BY serial, pin_rule
)
SELECT lengths, pin_rule, count(*), min(serial) FROM owners
GROUP BY lengths, pin_rule
"""


LIVE_CODES = _query("")
"""
The codes that users can use now, or could use if their expired token got another end.
Tokens that are alike share a row.

It reads every live code: 0.2 s for a million. From feature level 2 on, a reader counts
before the change is proposed, some tokens at a time.
"""

LIVE_CODES_OF_SOME = _query(" AND serial > :after AND serial <= :last")
"""The same of the tokens with these serials."""

SOME_TOKENS = """
SELECT max(serial) AS last FROM
(SELECT serial FROM tokens WHERE serial > :after ORDER BY serial LIMIT :most)
"""
"""The last of the next tokens, or null if there are none."""

CODES_OF_NEW_SETS = _query(
    " AND serial IN (SELECT serial FROM code_sets WHERE number > :after)"
)

_LENGTHS = """
SELECT code_length, count(*) FROM code_sets JOIN codes USING (set_id)
WHERE serial = :serial AND state = 'live' AND (ends_at_ms IS NULL OR ends_at_ms > :now)
GROUP BY code_length ORDER BY code_length
"""

LAST_SET = "SELECT coalesce(max(number), 0) AS number FROM code_sets"
"""The number of the newest set."""


def live_codes(rows: Iterable[Row | sqlite3.Row]) -> tuple[LiveCodes, ...]:
    """Return the groups in the rows of `LIVE_CODES`."""
    return tuple(
        LiveCodes.alike(
            {int(length): live for length, live in json.loads(lengths).items()},
            PinRule(rule),
            tokens,
            TokenSerial(first),
        )
        for lengths, rule, tokens, first in rows
    )


def lengths_of(
    db: sqlite3.Connection, serial: TokenSerial, now_ms: int
) -> dict[int, int]:
    """Return the number of live codes of a token by their length."""
    return dict(db.execute(_LENGTHS, {"serial": serial, "now": now_ms}))


def count_all(db: sqlite3.Connection, now_ms: int) -> tuple[LiveCodes, ...]:
    """Count all live codes. What it costs grows with their number."""
    return live_codes(db.execute(LIVE_CODES, {"now": now_ms}))


def count_new(
    db: sqlite3.Connection, after: int, now_ms: int
) -> tuple[LiveCodes, ...] | None:
    """
    Count the live codes of the tokens that got a set after the one with this number.

    Return None if there are more such sets than `NEW_SETS_MAX`.
    """
    newer = db.execute(
        "SELECT count(*) FROM "
        "(SELECT 1 FROM code_sets WHERE number > :after LIMIT :most)",
        {"after": after, "most": NEW_SETS_MAX + 1},
    ).fetchone()
    if newer[0] > NEW_SETS_MAX:
        return None
    return live_codes(db.execute(CODES_OF_NEW_SETS, {"now": now_ms, "after": after}))
