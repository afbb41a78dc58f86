# SPDX-License-Identifier: Apache-2.0
"""Counts new audit events by action, outcome and reason."""

import collections
import contextlib
import re
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.domain.policy import MINUTE_MS
from sparecode_node.services.ambient import Clock, SystemClock
from sparecode_node.statemachine.missing_segments import kept_in_state
from sparecode_node.statemachine.sealed_events import open_log
from sparecode_node.statemachine.short_segments import short_segments

_WORD = re.compile(r"[A-Za-z_]{0,40}")
OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """What waits for one channel."""

    channel: str
    waiting: int
    dead: int
    oldest_ms: int
    """When the oldest waiting event happened; 0: none waits."""


_MISSING = """
SELECT count(*) FROM audit_segments AS sealed
WHERE number NOT IN (SELECT number FROM lost_segments)
AND number > (SELECT coalesce(max(through), 0) FROM removed_segments)
AND NOT EXISTS (
    SELECT 1 FROM stored_segments AS stored
    WHERE stored.number = sealed.number AND stored.hash = sealed.hash_after
)
"""


class EventCounts:
    """Counts of events since this object was created. Thread-safe."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._counts: collections.Counter[tuple[str, str, str]] = collections.Counter()
        self._lock = threading.Lock()
        self.last_backup_ms = 0
        """When the newest completely delivered backup was taken; 0: never."""
        self.is_open = True
        """Whether agents are served (E2)."""
        self.entry_skipped_ms = 0
        """When an entry was skipped last; 0: never (E3)."""
        self.pending_resets = 0
        """Requested resets of administrators that are not in force yet (P4)."""
        self.due_authorities = 0
        """Authorities whose keys a removed member has had, and that are due (P6a)."""
        self.missing_segments = 0
        """Sealed segments of the audit log that this node has not stored (U1)."""
        self.segments_in_state = 0
        """Those whose events have not left the state's database (U1)."""
        self.removed_segments = 0
        """Those that retention has removed (U4)."""
        self.short_segments = 0
        """Those that fewer archives have than the policy wants (U4)."""
        self.oldest_short_ms = 0
        """The time of the last event of the oldest of them; 0: there is none."""
        self._short_at_ms: int | None = None
        """When they were counted: it walks all sealed segments, so once a minute."""
        self.queues: tuple[Queue, ...] = ()
        """The channels, by name."""
        with self._open() as db:
            self.sequence = _newest(db)

    def take(self) -> dict[tuple[str, str, str], int]:
        """Count the events applied since the last call, and return all counts."""
        with self._lock, self._open() as db:
            newest = _newest(db)
            self.last_backup_ms = _meta(db, "backup_at_ms")
            self.is_open = not _meta(db, "not_open")
            (self.pending_resets,) = db.execute(
                "SELECT count(*) FROM administrator_resets"
            ).fetchone()
            (self.due_authorities,) = db.execute(
                "SELECT count(*) FROM "
                "(SELECT DISTINCT authority, fingerprint FROM due_authorities)"
            ).fetchone()
            (self.missing_segments,) = db.execute(_MISSING).fetchone()
            self.segments_in_state = len(kept_in_state(db))
            self._count_short(db)
            (self.entry_skipped_ms,) = db.execute(
                "SELECT coalesce(max(at_ms), 0) FROM skipped_entries"
            ).fetchone()
            self.queues = _queues(db, newest)
            rows = db.execute(
                "SELECT action, outcome, reason, count(*) FROM audit_events "
                "WHERE sequence > ? AND sequence <= ? GROUP BY action, outcome, reason",
                (self.sequence, newest),
            )
            for action, outcome, reason, count in rows:
                # All words are from our vocabularies. Check anyway: a label stays forever.
                words = (_word(action), _word(outcome), _word(reason))
                self._counts[words] += count
            self.sequence = newest
            return dict(self._counts)

    def _count_short(self, db: sqlite3.Connection) -> None:
        """Count the segments in too few archives, unless it was done a moment ago."""
        now_ms = self._clock.now_ms()
        if self._short_at_ms is not None and (
            abs(now_ms - self._short_at_ms) < MINUTE_MS
        ):
            return
        short = short_segments(db, now_ms)
        self.removed_segments, self.short_segments = short.removed, short.count
        self.oldest_short_ms = short.oldest_ms
        self._short_at_ms = now_ms

    def _open(self) -> "contextlib.closing[sqlite3.Connection]":
        return contextlib.closing(open_log(self._path))


def _newest(db: sqlite3.Connection) -> int:
    (sequence,) = db.execute(
        "SELECT coalesce(max(sequence), 0) FROM main.audit_events"
    ).fetchone()
    return int(sequence)


def _queues(db: sqlite3.Connection, newest: int) -> tuple[Queue, ...]:
    """Return what waits for each channel. An index answers it, however much waits."""
    rows = db.execute(
        """
        SELECT channel,
            (SELECT count(*) FROM notices AS each
                WHERE each.channel = channels.channel AND dead = 0),
            (SELECT count(*) FROM notices AS each
                WHERE each.channel = channels.channel AND dead = 1),
            coalesce((SELECT at_ms FROM notices AS each
                WHERE each.channel = channels.channel AND dead = 0
                ORDER BY number LIMIT 1), 0)
        FROM channels WHERE kind NOT IN ('syslog', 'file')
        UNION ALL
        SELECT channel, max(:newest - position, 0), 0,
            coalesce((SELECT at_ms FROM audit_events WHERE sequence = position + 1), 0)
        FROM channels WHERE kind = 'syslog'
        ORDER BY channel
        """,
        {"newest": newest},
    )
    return tuple(
        Queue(channel=channel, waiting=waiting, dead=dead, oldest_ms=oldest_ms)
        for channel, waiting, dead, oldest_ms in rows
    )


def _meta(db: sqlite3.Connection, name: str) -> int:
    row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else 0


def _word(text: str) -> str:
    return text if _WORD.fullmatch(text) else OTHER
