# SPDX-License-Identifier: Apache-2.0
"""
Entries that the operators have skipped: applied as refused, on all nodes alike.

An entry whose apply raises an exception stops every node, and stops it again at each
start. A majority of the members then decide to skip it (`replication/log/skips.py`).
Skipping runs as little code as possible, because any other code may be what raises: time
does not move, and nothing is looked up but the request ids.
"""

import collections
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import Policy
from sparecode_node.statemachine import commands
from sparecode_node.statemachine.audit import AuditLog
from sparecode_node.statemachine.requests import Requests
from sparecode_node.statemachine.results import Result
from sparecode_node.statemachine.tables import skips as tables

NEVER_SKIPPED = (
    commands.InitializeCluster,
    commands.BeginEpoch,
    commands.RaiseFeatureLevel,
)
"""Without these commands the log after them means something else."""

ENTRY_SKIPPED = Rejected(
    Reason.ENTRY_SKIPPED,
    "this request made the nodes stop, so the operators skipped it; nothing was changed",
)
"""The answer to every call of a skipped entry."""

OPERATORS = "operators"
"""The actor of the event; the events of `NoteSkipStatement` name them."""

_UNRECORDED = (
    commands.PassBarrier,
    commands.TouchSessions,
    commands.AcknowledgeNotices,
    commands.NoteSegments,
)
_BAD_VALUE = (ArithmeticError, TypeError, ValueError)
"""What SQLite's module raises for a value that it cannot store, not for its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedEntry:
    """An entry that a majority of the members have decided to skip."""

    index: int
    term: int
    digest: str
    """SHA-256 of the entry's bytes, in hex."""
    cluster_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipping:
    """The state, as far as skipping an entry changes it."""

    db: sqlite3.Connection
    requests: Requests
    audit: AuditLog
    policy: Policy
    now_ms: int
    requests_ms: int
    """The time by which request ids age."""

    def skip(
        self, entry: SkippedEntry, calls: Sequence[commands.Call]
    ) -> tuple[Result, ...]:
        """Remember every call as refused, and record the entry and its calls (U1)."""
        tables.add_entry(
            self.db,
            entry.index,
            entry.term,
            entry.digest,
            cluster_id=entry.cluster_id,
            at_ms=self.now_ms,
        )
        unstorable = sum(not self._refuse(entry, call) for call in calls)
        detail = f"term {entry.term}, SHA-256 {entry.digest}: {kinds_of(calls)}"
        if unstorable:
            detail += f"; {unstorable} not remembered"
        self.audit.append(
            at_ms=self.now_ms,
            actor=OPERATORS,
            node="",
            action="ENTRY_SKIPPED",
            target=f"entry {entry.index}",
            outcome="applied",
            detail=detail,
        )
        return tuple(ENTRY_SKIPPED for _ in calls)

    def _refuse(self, entry: SkippedEntry, call: commands.Call) -> bool:
        """Remember and record one call; return False if SQLite cannot store its values."""
        if isinstance(call.command, _UNRECORDED):
            return True
        self.db.execute("SAVEPOINT call")
        sequence, head = self.audit.sequence, self.audit.head
        try:
            self.requests.remember_skipped(
                call.request, ENTRY_SKIPPED, self.requests_ms, self.policy
            )
            self.audit.append(
                at_ms=self.now_ms,
                actor=caller_of(call),
                node=call.node_id,
                action=type(call.command).__name__,
                target="",
                outcome="refused",
                reason=Reason.ENTRY_SKIPPED,
                detail=f"entry {entry.index}",
            )
        except _BAD_VALUE:
            self.db.execute("ROLLBACK TO call")
            self.audit.sequence, self.audit.head = sequence, head
            # Replicas that start later count the rows that are there.
            self.requests.count()
            return False
        finally:
            self.db.execute("RELEASE call")
        return True


def skipped_entries(db: sqlite3.Connection) -> tuple[SkippedEntry, ...]:
    """Return all skipped entries, oldest first."""
    return tuple(
        SkippedEntry(index=index, term=term, digest=digest, cluster_id=cluster_id)
        for index, term, digest, cluster_id in tables.skipped_entries(db)
    )


def kinds_of(calls: Sequence[commands.Call]) -> str:
    """Return the commands of calls with their numbers, such as `2 CreateUser`."""
    counts = collections.Counter(type(call.command).__name__ for call in calls)
    return ", ".join(f"{counts[name]} {name}" for name in sorted(counts))


def caller_of(call: commands.Call) -> str:
    """Return who called. People type passwords into the name of a sign-in (A6)."""
    if isinstance(call.command, commands.OpenSession):
        return "administrator"
    return call.request.caller
