# SPDX-License-Identifier: Apache-2.0
"""Alarms of users, as administrators and the page of a link need them (N9)."""

from dataclasses import dataclass

from sparecode_node.domain.ids import UserId
from sparecode_node.domain.users import fold
from sparecode_node.queries.state import ReadTransaction

RECENT_MAX = 20
"""Maximum alarms that a page lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmView:
    """An alarm that a user has raised lately."""

    username: str
    kind: str
    """What the notice told."""
    told_at_ms: int
    """When that happened."""
    raised_at_ms: int


async def may_raise(
    transaction: ReadTransaction, user_id: UserId, notice_id: str
) -> bool | None:
    """Return whether an alarm is new; None: there is no such user (any more)."""
    row = await transaction.one(
        "SELECT EXISTS (SELECT 1 FROM alarms WHERE user_id = :user_id "
        "AND notice_id = :notice_id) AS raised FROM users WHERE user_id = :user_id",
        user_id=user_id,
        notice_id=notice_id,
    )
    return None if row is None else not row["raised"]


async def recent(
    transaction: ReadTransaction, now_ms: int, username: str = ""
) -> tuple[AlarmView, ...]:
    """
    Return the newest alarms of one user, or the newest one of each.

    *username*: any case; empty: all users. One user's alarms must not push those of
    another out of sight.
    """
    rows = await transaction.all(
        # SQLite takes the other columns from the row with the greatest value.
        "SELECT username, kind, told_at_ms, max(raised_at_ms) AS raised_at_ms "
        "FROM alarms JOIN users USING (user_id) WHERE ends_at_ms > :now_ms "
        "AND :name_key IN ('', name_key) "
        "GROUP BY user_id, CASE :name_key WHEN '' THEN '' ELSE notice_id END "
        "ORDER BY raised_at_ms DESC, notice_id LIMIT :most",
        now_ms=now_ms,
        name_key=fold(username),
        most=RECENT_MAX,
    )
    return tuple(
        AlarmView(
            username=row["username"],
            kind=row["kind"],
            told_at_ms=row["told_at_ms"],
            raised_at_ms=row["raised_at_ms"],
        )
        for row in rows
    )
