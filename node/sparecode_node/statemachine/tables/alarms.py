# SPDX-License-Identifier: Apache-2.0
"""Rows of alarms: users who say that it was not them (N9)."""

import sqlite3

from sparecode_node.domain.alarms import SHOWN_MS, Alarm
from sparecode_node.domain.ids import UserId
from sparecode_node.statemachine.tables.rows import upsert

ALARM_TABLES = """
CREATE TABLE alarms (                   -- users who say that it was not them, see N9
    user_id TEXT NOT NULL REFERENCES users (user_id) ON DELETE CASCADE,
    notice_id TEXT NOT NULL,
    kind TEXT NOT NULL,              -- what the notice told
    told_at_ms INTEGER NOT NULL,     -- when that happened
    raised_at_ms INTEGER NOT NULL,
    ends_at_ms INTEGER NOT NULL,
    PRIMARY KEY (user_id, notice_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX alarms_by_end ON alarms (ends_at_ms);
"""


def is_raised(db: sqlite3.Connection, user_id: UserId, notice_id: str) -> bool:
    """Return whether a user has raised the alarm about a notice."""
    row = db.execute(
        "SELECT 1 FROM alarms WHERE user_id = ? AND notice_id = ?", (user_id, notice_id)
    ).fetchone()
    return row is not None


def save(db: sqlite3.Connection, alarm: Alarm) -> None:
    """Save an alarm."""
    upsert(
        db,
        "alarms",
        ("user_id", "notice_id"),
        user_id=alarm.user_id,
        notice_id=alarm.notice_id,
        kind=alarm.kind,
        told_at_ms=alarm.told_at_ms,
        raised_at_ms=alarm.raised_at_ms,
        ends_at_ms=alarm.raised_at_ms + SHOWN_MS,
    )
