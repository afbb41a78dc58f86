# SPDX-License-Identifier: Apache-2.0
"""
What was done without an approval under an allowance, by minute (P3a).

A count for each minute bounds the table: an allowance has at most one row for each
minute of a day and each subject, however much the policy allows.
"""

import enum
import sqlite3
from dataclasses import dataclass

from sparecode_node.domain.policy import DAY_MS, MINUTE_MS

ALLOWANCE_TABLES = """
CREATE TABLE allowance_counts (         -- what was done without an approval, see P3a
    allowance TEXT NOT NULL,         -- issue, unlock, restrict
    subject TEXT NOT NULL,           -- an administrator's name; a user's id
    minute_ms INTEGER NOT NULL,      -- the minute's begin
    uses INTEGER NOT NULL,
    ends_at_ms INTEGER NOT NULL,     -- then the count is forgotten
    PRIMARY KEY (allowance, subject, minute_ms)
) STRICT, WITHOUT ROWID;
CREATE INDEX allowance_counts_by_end ON allowance_counts (ends_at_ms);
"""


class Allowance(enum.StrEnum):
    """What is counted. The values are in the state: never reuse one."""

    ISSUE = "issue"
    """Sets that one administrator has issued."""
    UNLOCK = "unlock"
    """Unlocks of one user, by any administrator."""
    RESTRICT = "restrict"
    """Denied certificates and restricted agents of one administrator (P7)."""


@dataclass(frozen=True, slots=True)
class AllowanceUse:
    """One use of an allowance. *subject*: an administrator's name, or a user's id."""

    allowance: Allowance
    subject: str


def add(db: sqlite3.Connection, use: AllowanceUse, now_ms: int) -> None:
    """Count one use."""
    minute_ms = now_ms - now_ms % MINUTE_MS
    db.execute(
        "INSERT INTO allowance_counts "
        "(allowance, subject, minute_ms, uses, ends_at_ms) VALUES (?, ?, ?, 1, ?) "
        "ON CONFLICT (allowance, subject, minute_ms) DO UPDATE SET uses = uses + 1",
        # A whole minute later, so that the last use of the minute counts for a day.
        (use.allowance, use.subject, minute_ms, minute_ms + MINUTE_MS + DAY_MS),
    )


def uses_within(
    db: sqlite3.Connection, use: AllowanceUse, now_ms: int, span_ms: int
) -> int:
    """Return the number of uses in the last *span_ms*, rounded up to a minute."""
    (uses,) = db.execute(
        "SELECT coalesce(sum(uses), 0) FROM allowance_counts "
        "WHERE allowance = ? AND subject = ? AND minute_ms > ?",
        (use.allowance, use.subject, now_ms - span_ms - MINUTE_MS),
    ).fetchone()
    return int(uses)
