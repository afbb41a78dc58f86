# SPDX-License-Identifier: Apache-2.0
"""
Request ids that have been decided, with their results (Q1-Q3).

A retry finds the answer of the first try before anything is charged. Only
committed outcomes are here, for ten minutes of committed time, and never
evicted by number: when the table is full, new requests are shed.

What is older is *due*: forgotten at once, and deleted in steps, since no entry may
keep all nodes from answering for as long as deleting ten minutes' worth takes. A row
that is due answers nothing and takes nobody's room, so where it is still there nobody
can tell; the rows of all replicas are the same all the while.
"""

import sqlite3

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import Policy
from sparecode_node.statemachine.commands import RequestKey
from sparecode_node.statemachine.results import Result, from_json, to_json

PURGED_PER_ENTRY_MAX = 512
"""
So many rows that are due are deleted with one entry. Four times the calls that it can
bring (128): while any are left the table shrinks, however many call. More would write
so many pages that SQLite checkpoints with every entry. It is part of what an entry
does, so another number takes another feature level.
"""

PURGE = """
DELETE FROM requests WHERE (caller, method, request_id) IN (
    SELECT caller, method, request_id FROM requests WHERE at_ms < ?
    ORDER BY at_ms, caller, method, request_id LIMIT ?
)
"""
"""
The oldest first, by what is in the rows: which ones go must not hang on where a node's
SQLite has put them. The index by time has all of it, in this order.
"""

ANY_DUE = "SELECT EXISTS (SELECT 1 FROM requests WHERE at_ms < ?)"

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


def due_before(now_ms: int, policy: Policy) -> int:
    """Return since when what was decided is remembered at *now_ms* (Q3)."""
    return now_ms - policy.request_retention_ms


class Requests:
    """The table of request ids. Counts its rows itself: SQLite would scan them."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._due_before = 0
        """What is older is due. No row is of before 0, so that says none."""
        self._purged_before = 0
        """As old a row is not there any more."""
        self.begin_entry()
        self.count()

    def count(self) -> None:
        """Count the rows, when others have written them."""
        found = self._db.execute("SELECT count(*) FROM requests").fetchone()
        self._count: int = found[0]

    def begin_entry(self) -> None:
        """Let the next entry delete its share."""
        self._purges_left = PURGED_PER_ENTRY_MAX

    def purge(self, now_ms: int, policy: Policy) -> None:
        """
        Forget what was decided longer ago than the retention (Q3).

        Call it before each call, whether the log's time moves or not: a clock that
        stands would otherwise let the table grow.
        """
        due = due_before(now_ms, policy)
        self._due_before = due
        if due <= self._purged_before or not self._purges_left:
            return
        gone = self._db.execute(PURGE, (due, self._purges_left))
        self._count -= gone.rowcount
        self._purges_left -= gone.rowcount
        if self._purges_left:
            self._purged_before = due

    def find(self, key: RequestKey) -> Result | None:
        """
        Return the remembered result, a refusal if the id was reused, or None (Q1).

        What is due is not remembered: it makes room for what is decided now.
        """
        key_columns = (key.caller, key.method, key.request_id)
        row = self._db.execute(
            "SELECT tag, result, at_ms FROM requests "
            "WHERE caller = ? AND method = ? AND request_id = ?",
            key_columns,
        ).fetchone()
        if row is None:
            return None
        tag, result, at_ms = row
        if at_ms < self._due_before:
            self._db.execute(
                "DELETE FROM requests "
                "WHERE caller = ? AND method = ? AND request_id = ?",
                key_columns,
            )
            self._count -= 1
            return None
        return answer_of(key, tag, result)

    def full(self, policy: Policy) -> bool:
        """
        Say whether new requests must be shed (Q3).

        While there are due rows there is room: this entry has deleted more of them
        than it can bring calls, so the table is getting smaller.
        """
        return self._count >= policy.requests_max and not self._any_due()

    def _any_due(self) -> bool:
        if self._due_before <= self._purged_before:
            return False
        found = self._db.execute(ANY_DUE, (self._due_before,)).fetchone()
        return bool(found[0])

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
