# SPDX-License-Identifier: Apache-2.0
"""
Request ids with their results (Q1-Q3).

A retry gets the answer of the first try before anything is charged. The table holds
only committed outcomes, for ten minutes by default. From feature level 2 on, these have
to pass by the log's time and by the primary's monotonic time. The table never evicts
rows to make room: when it is full, new requests are shed. From feature level 2 on, the
callers share it (see `shares`).

Older rows are *due*: they count as forgotten, and are deleted in steps. Deleting ten
minutes' worth in one entry would keep all nodes from answering for too long. A due row
answers no retry and takes no room, so no answer shows whether it still exists. All
replicas have the same rows at the same index.
"""

import sqlite3

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import Policy
from sparecode_node.statemachine import feature_level
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands import RequestKey
from sparecode_node.statemachine.results import Result, from_json, to_json
from sparecode_node.statemachine.shares import Shares

PURGED_PER_ENTRY_MAX = 512
"""
Maximum due rows that one entry deletes.

It is four times the calls that an entry can bring (128), so the table shrinks while due
rows are left, whatever the load. More deletions would write enough pages to make SQLite
checkpoint with every entry. The number is part of what an entry does, so changing it
takes a new feature level.
"""

PURGE = """
DELETE FROM requests WHERE (caller, method, request_id) IN (
    SELECT caller, method, request_id FROM requests WHERE at_ms < ?
    ORDER BY at_ms, caller, method, request_id LIMIT ?
)
RETURNING caller, method, in_reserve
"""
"""
Delete the oldest rows first, ordered by their contents: the choice must not depend on
where a node's SQLite stores them. The index by time holds them in this order.
"""

MONOTONIC = "monotonic_ms"
"""In `meta`: the newest monotonic time of any applied call; from feature level 2 on."""

REQUESTS_TIME = "requests_ms"
"""In `meta`: the time by which request ids age; absent: the log's time."""

ANY_DUE = "SELECT EXISTS (SELECT 1 FROM requests WHERE at_ms < ?)"

NOT_REMEMBERED = frozenset(
    {
        # Nothing was decided: the caller may send the same request again.
        Reason.STALE_PARAMETERS,
        Reason.REQUEST_ID_REUSED,
        Reason.REQUEST_TABLE_FULL,
        Reason.SESSION_ENDED,
        Reason.ROLE,
        Reason.PASSWORD_CHANGE_NEEDED,
        Reason.REAUTHENTICATION_NEEDED,
        Reason.SECOND_FACTOR_REQUIRED,
        Reason.NOT_INITIALIZED,
        Reason.NOT_OPEN,
        Reason.SLOT_MOVING,
        Reason.SLOT_MOVED,
        Reason.RESET_PENDING,
    }
)

UNJUDGED = frozenset(
    {
        # Refused before the rules of the command were checked, or before a password or
        # code was compared: nothing was charged, so the same request may be sent again.
        Reason.SELF_SERVICE_FORBIDDEN,
        Reason.SIGN_IN_REFUSED,
        Reason.SECOND_FACTOR_NEEDED,
        Reason.PASSKEY_NEEDED,
        # The object does not exist, or the ticket admits no one. There are endless
        # names to ask for.
        Reason.ADMINISTRATOR_UNKNOWN,
        Reason.AGENT_UNKNOWN,
        Reason.AUTHORITY_NOT_DUE,
        Reason.PASSKEY_UNKNOWN,
        Reason.APPROVAL_UNKNOWN,
        Reason.CERTIFICATE_NOT_DENIED,
        Reason.CHANNEL_UNKNOWN,
        Reason.MEMBER_UNKNOWN,
        Reason.MOVE_UNKNOWN,
        Reason.RESET_UNKNOWN,
        Reason.SESSION_UNKNOWN,
        Reason.BROWSER_LOGIN_UNKNOWN,
        Reason.TICKET_ADDRESS,
        Reason.TICKET_ENDED,
        Reason.TICKET_UNKNOWN,
        Reason.TICKET_USED,
        Reason.TOKEN_UNKNOWN,
        Reason.USER_UNKNOWN,
    }
)
"""Not remembered from feature level 2 on, unless something was charged (Q3)."""


REUSED = Rejected(
    Reason.REQUEST_ID_REUSED,
    "this request id was already used for a different request",
    "request_id",
)
"""The answer to a known id with different content (Q1)."""


SIGN_IN_REPEATED = Rejected(
    Reason.REQUEST_ID_REUSED,
    "this request id was already used to sign in: sign in again with a new one",
    "request_id",
)
"""The answer to a sign-in with a known id, whatever its content (Q1)."""


FULL = Rejected(
    Reason.REQUEST_TABLE_FULL,
    "too many requests in the last minutes: try again later",
)
"""The answer while the table is full (Q3)."""


NO_SHARE = Rejected(
    Reason.REQUEST_TABLE_FULL,
    "too many requests of this caller in the last minutes: try again later",
)
"""The answer while the caller has used up its share of the table (Q3)."""


def answer_of(key: RequestKey, tag: int, result: str) -> Result:
    """Return the remembered *result*, or a refusal if the content differs."""
    return from_json(result) if tag in (key.tag, *key.other_tags) else REUSED


def due_before(now_ms: int, policy: Policy) -> int:
    """Return the time before which remembered requests are due at *now_ms* (Q3)."""
    return now_ms - policy.request_retention_ms


class Requests:
    """
    The table of request ids. It counts rows in memory: SQLite would scan them.

    The counts are stored beside the table, for the next start (`request_counts`).
    """

    def __init__(self, db: sqlite3.Connection, index: int) -> None:
        """*index*: of the last applied entry."""
        self._db = db
        self._shares = Shares()
        self._now_ms = 0
        """The time by which request ids age."""
        self._due_before = 0
        """Rows before this time are due; 0: none is."""
        self._purged_before = 0
        """All rows before this time are deleted."""
        self.begin_entry()
        self._shares.load(db, index)

    def count(self) -> None:
        """Count the rows, after others have written them."""
        self._shares.count(self._db)

    def begin_entry(self) -> None:
        """Allow the next entry its share of deletions."""
        self._purges_left = PURGED_PER_ENTRY_MAX

    def end_entry(self, index: int) -> None:
        """Write what has changed, in the transaction of the entry."""
        self._shares.store(self._db, index)

    def purge(self, now_ms: int, policy: Policy) -> None:
        """
        Forget what was decided longer ago than the retention (Q3).

        *now_ms*: the time by which request ids age. Call it before each call, whether the log's time moves or not: a clock that
        stands would otherwise let the table grow.
        """
        self._now_ms = now_ms
        due = due_before(now_ms, policy)
        self._due_before = due
        if due <= self._purged_before or not self._purges_left:
            return
        deleted = self._db.execute(PURGE, (due, self._purges_left)).fetchall()
        for caller, method, in_reserve in deleted:
            self._shares.remove(caller, method, in_reserve=bool(in_reserve))
        self._purges_left -= len(deleted)
        if self._purges_left:
            self._purged_before = due

    def find(self, key: RequestKey) -> Result | None:
        """
        Return the remembered result, a refusal if the id was reused, or None (Q1).

        A due row is not remembered: delete it, to make room for the new decision.
        """
        key_columns = (key.caller, key.method, key.request_id)
        row = self._db.execute(
            "SELECT tag, result, at_ms, in_reserve FROM requests "
            "WHERE caller = ? AND method = ? AND request_id = ?",
            key_columns,
        ).fetchone()
        if row is None:
            return None
        tag, result, at_ms, in_reserve = row
        if at_ms < self._due_before:
            self._db.execute(
                "DELETE FROM requests "
                "WHERE caller = ? AND method = ? AND request_id = ?",
                key_columns,
            )
            self._shares.remove(key.caller, key.method, in_reserve=bool(in_reserve))
            return None
        return answer_of(key, tag, result)

    def full(self, policy: Policy) -> bool:
        """
        Return whether new requests must be shed (Q3).

        While there are due rows there is room: the entry has deleted more of them than
        it brings calls, so the table is shrinking.
        """
        return self._shares.total >= policy.requests_max and not self._any_due()

    def shed(self, applying: Applying) -> Rejected | None:
        """Return the refusal of a new request for which there is no room, or None (Q3)."""
        if applying.feature_level < feature_level.SHARED_REQUESTS:
            return FULL if self.full(applying.policy) else None
        rows_max = applying.policy.requests_max
        if self._shares.has_room(applying.call, rows_max) or self._any_due():
            return None
        return NO_SHARE if self._shares.total < rows_max else FULL

    def _any_due(self) -> bool:
        if self._due_before <= self._purged_before:
            return False
        row = self._db.execute(ANY_DUE, (self._due_before,)).fetchone()
        return bool(row[0])

    def remember(self, applying: Applying, result: Result) -> None:
        """Remember a result, unless nothing was decided or judged."""
        if isinstance(result, Rejected) and _is_undecided(applying, result):
            return
        in_reserve = (
            applying.feature_level >= feature_level.SHARED_REQUESTS
            and self._shares.goes_to_reserve(
                applying.call, applying.policy.requests_max
            )
        )
        self._add(applying.call.request, result, in_reserve=in_reserve)

    def remember_skipped(
        self, key: RequestKey, result: Result, now_ms: int, policy: Policy
    ) -> None:
        """
        Remember the refusal of a call of a skipped entry, even if the table is full (E3).

        A retry of a call that is remembered keeps its answer. *now_ms*: the time by
        which request ids age.
        """
        self._now_ms, self._due_before = now_ms, due_before(now_ms, policy)
        if self.find(key) is None:
            self._add(key, result, in_reserve=False)

    def _add(self, key: RequestKey, result: Result, *, in_reserve: bool) -> None:
        self._db.execute(
            "INSERT INTO requests "
            "(caller, method, request_id, tag, at_ms, result, in_reserve) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                key.caller,
                key.method,
                key.request_id,
                key.tag,
                self._now_ms,
                to_json(result),
                int(in_reserve),
            ),
        )
        self._shares.add(key.caller, key.method, in_reserve=in_reserve)


def _is_undecided(applying: Applying, result: Rejected) -> bool:
    """Return whether a refusal may be decided otherwise when the request is repeated."""
    if applying.feature_level < feature_level.SHARED_REQUESTS:
        return result.reason in NOT_REMEMBERED
    return result.reason in NOT_REMEMBERED or (
        result.reason in UNJUDGED and not applying.keep_writes
    )
