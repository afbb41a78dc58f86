# SPDX-License-Identifier: Apache-2.0
"""Administrators' sessions between sign-in and end (P2)."""

import sqlite3

from sparecode_node.domain.policy import MINUTE_MS
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands import CloseSession
from sparecode_node.statemachine.commands.sessions import TouchSessions
from sparecode_node.statemachine.results import Applied, Result

TOUCH_MS = MINUTE_MS
"""A session is not touched more often than that."""


def change_sessions(
    applying: Applying, command: CloseSession | TouchSessions
) -> Result:
    """Apply one of these commands."""
    if isinstance(command, TouchSessions):
        applying.db.executemany(
            "UPDATE sessions SET used_at_ms = :now "
            "WHERE session_id = :session_id AND used_at_ms <= :before",
            [
                {
                    "now": applying.now_ms,
                    "session_id": session_id,
                    "before": applying.now_ms - TOUCH_MS,
                }
                for session_id in command.session_ids
            ],
        )
        return Applied(index=applying.index)
    # The machine has checked that it is open.
    if command.everywhere and applying.administrator is not None:
        applying.detail = "everywhere"
        applying.db.execute(
            "DELETE FROM sessions WHERE administrator = ?",
            (applying.administrator.name,),
        )
    else:
        applying.db.execute(
            "DELETE FROM sessions WHERE session_id = ?", (applying.call.session_id,)
        )
    return Applied(index=applying.index)


def forget_unused(db: sqlite3.Connection, now_ms: int, idle_ms: int) -> None:
    """End the sessions that nobody has used for so long (P2)."""
    db.execute("DELETE FROM sessions WHERE used_at_ms <= ?", (now_ms - idle_ms,))
