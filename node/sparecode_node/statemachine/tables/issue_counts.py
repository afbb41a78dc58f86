# SPDX-License-Identifier: Apache-2.0
"""
Sets that each administrator has issued without an approval, by minute (P3a).

A count for each minute bounds the table: an administrator has at most one row for each
minute of a day, however many sets the policy allows.
"""

import sqlite3

from sparecode_node.domain.ids import AdministratorName
from sparecode_node.domain.policy import DAY_MS, MINUTE_MS


def add(db: sqlite3.Connection, administrator: AdministratorName, now_ms: int) -> None:
    """Count one issued set."""
    minute_ms = now_ms - now_ms % MINUTE_MS
    db.execute(
        "INSERT INTO issue_counts (administrator, minute_ms, sets, ends_at_ms) "
        "VALUES (?, ?, 1, ?) "
        "ON CONFLICT (administrator, minute_ms) DO UPDATE SET sets = sets + 1",
        # A whole minute later, so that the last set of the minute counts for a day.
        (administrator, minute_ms, minute_ms + MINUTE_MS + DAY_MS),
    )


def issued_within(
    db: sqlite3.Connection, administrator: AdministratorName, now_ms: int, span_ms: int
) -> int:
    """Return the number of sets in the last *span_ms*, rounded up to a minute."""
    (sets,) = db.execute(
        "SELECT coalesce(sum(sets), 0) FROM issue_counts "
        "WHERE administrator = ? AND minute_ms > ?",
        (administrator, now_ms - span_ms - MINUTE_MS),
    ).fetchone()
    return int(sets)
