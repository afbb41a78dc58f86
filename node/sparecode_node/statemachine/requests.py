# SPDX-License-Identifier: Apache-2.0
"""
Request ids that have been decided, with their results (Q1-Q3).

A retry finds the answer of the first try before anything is charged. Only
committed outcomes are here, for ten minutes of committed time, and never
evicted by number: when the table is full, new requests are shed.
"""

import sqlite3

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import Policy
from sparecode_node.statemachine.commands import RequestKey
from sparecode_node.statemachine.results import Result, from_json, to_json

NOT_REMEMBERED = frozenset(
    {
        # Nothing was decided; the same request may be asked again.
        Reason.STALE_PARAMETERS,
        Reason.REQUEST_ID_REUSED,
        Reason.REQUEST_TABLE_FULL,
        Reason.SESSION_ENDED,
        Reason.ROLE,
        Reason.PASSWORD_CHANGE_NEEDED,
        Reason.NOT_INITIALIZED,
        Reason.NOT_OPEN,
    }
)


REUSED = Rejected(
    Reason.REQUEST_ID_REUSED,
    "this request id was used for a request with other content",
    "request_id",
)
"""The answer to a known id with other content (Q1)."""


FULL = Rejected(
    Reason.REQUEST_TABLE_FULL,
    "too many requests within the last minutes; try again later",
)
"""The answer while there is no room for one more (Q3)."""


def answer_of(key: RequestKey, tag: int, result: str) -> Result:
    """Return the remembered *result*, or a refusal if the id was of other content."""
    return from_json(result) if tag in (key.tag, *key.other_tags) else REUSED


class Requests:
    """The table of request ids. Counts its rows itself: SQLite would scan them."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.count()

    def count(self) -> None:
        """Count the rows, when others have written them."""
        found = self._db.execute("SELECT count(*) FROM requests").fetchone()
        self._count: int = found[0]

    def purge(self, now_ms: int, policy: Policy) -> None:
        """Forget what was decided longer ago than the retention (Q3)."""
        gone = self._db.execute(
            "DELETE FROM requests WHERE at_ms < ?",
            (now_ms - policy.request_retention_ms,),
        )
        self._count -= gone.rowcount

    def find(self, key: RequestKey) -> Result | None:
        """Return the remembered result, a refusal if the id was reused, or None (Q1)."""
        row = self._db.execute(
            "SELECT tag, result FROM requests "
            "WHERE caller = ? AND method = ? AND request_id = ?",
            (key.caller, key.method, key.request_id),
        ).fetchone()
        return None if row is None else answer_of(key, *row)

    def full(self, policy: Policy) -> bool:
        """Say whether new requests must be shed (Q3)."""
        return self._count >= policy.requests_max

    def remember(self, key: RequestKey, at_ms: int, result: Result) -> None:
        """Remember a result, if it is one to remember."""
        if isinstance(result, Rejected) and result.reason in NOT_REMEMBERED:
            return
        self._db.execute(
            "INSERT INTO requests (caller, method, request_id, tag, at_ms, result) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (
                key.caller,
                key.method,
                key.request_id,
                key.tag,
                at_ms,
                to_json(result),
            ),
        )
        self._count += 1
