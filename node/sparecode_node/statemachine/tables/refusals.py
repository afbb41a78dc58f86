# SPDX-License-Identifier: Apache-2.0
"""Equal refusals of one minute: the first is an event, the others are counted (U1)."""

import sqlite3
from dataclasses import dataclass

TOGETHER_MS = 60_000
TARGETS_MAX = 32
"""Targets of one actor that are counted apart; further ones are counted together."""
OTHER_TARGETS = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EqualRefusals:
    """Refusals of one actor for one action, target and reason."""

    actor: str
    action: str
    reason: str
    target: str
    count: int
    """Those after the first, which has an event of its own."""


def is_first(
    db: sqlite3.Connection,
    *,
    actor: str,
    action: str,
    reason: str,
    target: str,
    now_ms: int,
) -> bool:
    """Count a refusal; return whether it is the first of its kind in this minute."""
    key = {"actor": actor, "action": action, "reason": reason, "target": target}
    if not _counted(db, key):
        (targets,) = db.execute(
            "SELECT count(*) FROM equal_refusals WHERE actor = ?", (actor,)
        ).fetchone()
        if targets < TARGETS_MAX:
            _insert(db, key, now_ms)
            return True
        key["target"] = OTHER_TARGETS
        if not _counted(db, key):
            _insert(db, key, now_ms)
            return True
    return False


def take_ended(db: sqlite3.Connection, now_ms: int) -> list[EqualRefusals]:
    """Delete and return what ended by now, in a fixed order."""
    rows = db.execute(
        "SELECT actor, action, reason, target, count FROM equal_refusals "
        "WHERE ends_at_ms <= ? ORDER BY ends_at_ms, actor, action, reason, target",
        (now_ms,),
    ).fetchall()
    if rows:
        db.execute("DELETE FROM equal_refusals WHERE ends_at_ms <= ?", (now_ms,))
    return [
        EqualRefusals(actor=actor, action=action, reason=reason, target=target, count=n)
        for actor, action, reason, target, n in rows
    ]


def _counted(db: sqlite3.Connection, key: dict[str, str]) -> bool:
    changed = db.execute(
        "UPDATE equal_refusals SET count = count + 1 WHERE actor = :actor "
        "AND action = :action AND reason = :reason AND target = :target",
        key,
    )
    return changed.rowcount > 0


def _insert(db: sqlite3.Connection, key: dict[str, str], now_ms: int) -> None:
    db.execute(
        "INSERT INTO equal_refusals (actor, action, reason, target, count, ends_at_ms) "
        "VALUES (:actor, :action, :reason, :target, 0, :ends_at_ms)",
        {**key, "ends_at_ms": now_ms + TOGETHER_MS},
    )
