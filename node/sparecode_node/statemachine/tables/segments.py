# SPDX-License-Identifier: Apache-2.0
"""
Rows of sealed segments: what the state still knows of events that it no longer holds.

A segment is a fixed number of audit events. The two hashes prove its events, wherever
they are read from.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sparecode_node.domain.audit import GENESIS_HASH
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.segments import Holding

SEGMENT_TABLES = """
CREATE TABLE audit_segments (
    number INTEGER PRIMARY KEY,      -- from 1 on, without a gap
    first_sequence INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL UNIQUE,
    first_at_ms INTEGER NOT NULL,
    last_at_ms INTEGER NOT NULL,
    hash_before BLOB NOT NULL,       -- of the chain, before the first event
    hash_after BLOB NOT NULL         -- and after the last one
) STRICT;
CREATE TABLE segment_holders (          -- what members tell of themselves
    node_id TEXT PRIMARY KEY,
    through INTEGER NOT NULL,        -- the newest segment that the member holds
    missing TEXT NOT NULL,           -- JSON: first and last number of each gap
    since_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE lost_segments (            -- that no member has, as an administrator says
    number INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A sealed segment of the audit log. Times are in milliseconds since 1970."""

    number: int
    first_sequence: int
    last_sequence: int
    first_at_ms: int
    last_at_ms: int
    hash_before: bytes
    hash_after: bytes

    @property
    def events(self) -> int:
        """The number of its events."""
        return self.last_sequence - self.first_sequence + 1


_COLUMNS = (
    "number, first_sequence, last_sequence, first_at_ms, last_at_ms, hash_before, "
    "hash_after"
)


def are_known(db: sqlite3.Connection) -> bool:
    """Return whether the format of the tables has segments; that of level 1 has none."""
    found = db.execute("SELECT 1 FROM main.sqlite_schema WHERE name = 'audit_segments'")
    return found.fetchone() is not None


def all_sealed(db: sqlite3.Connection) -> tuple[Segment, ...]:
    """Return the sealed segments, oldest first; none in the format of level 1."""
    if not are_known(db):
        return ()
    rows = db.execute(f"SELECT {_COLUMNS} FROM audit_segments ORDER BY number")
    return tuple(_segment(row) for row in rows)


def last_sealed(db: sqlite3.Connection) -> Segment | None:
    """Return the newest sealed segment."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM audit_segments ORDER BY number DESC LIMIT 1"
    ).fetchone()
    return None if row is None else _segment(row)


def find(db: sqlite3.Connection, number: int) -> Segment | None:
    """Return a sealed segment."""
    row = db.execute(
        f"SELECT {_COLUMNS} FROM audit_segments WHERE number = ?", (number,)
    ).fetchone()
    return None if row is None else _segment(row)


def seal(db: sqlite3.Connection, events: int) -> Segment:
    """Seal the oldest *events* events that are in no segment; all are in the state."""
    before = last_sealed(db)
    first = 1 if before is None else before.last_sequence + 1
    last = first + events - 1
    (first_at_ms,) = db.execute(
        "SELECT at_ms FROM audit_events WHERE sequence = ?", (first,)
    ).fetchone()
    last_at_ms, hash_after = db.execute(
        "SELECT at_ms, hash FROM audit_events WHERE sequence = ?", (last,)
    ).fetchone()
    segment = Segment(
        number=1 if before is None else before.number + 1,
        first_sequence=first,
        last_sequence=last,
        first_at_ms=first_at_ms,
        last_at_ms=last_at_ms,
        hash_before=GENESIS_HASH if before is None else before.hash_after,
        hash_after=hash_after,
    )
    db.execute(
        f"INSERT INTO audit_segments ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            segment.number,
            first,
            last,
            first_at_ms,
            last_at_ms,
            segment.hash_before,
            hash_after,
        ),
    )
    return segment


def holdings(db: sqlite3.Connection) -> dict[NodeId, Holding]:
    """Return which segments the members hold, as they have told; none of level 1."""
    if not are_known(db):
        return {}
    rows = db.execute("SELECT node_id, through, missing FROM segment_holders")
    return {
        NodeId(node_id): Holding(through=through, missing=gaps_in(missing))
        for node_id, through, missing in rows
    }


def gaps_in(text: str) -> tuple[tuple[int, int], ...]:
    """Return the gaps in the column `missing`."""
    numbers = json.loads(text)
    return tuple(zip(numbers[::2], numbers[1::2], strict=True))


def save_holding(
    db: sqlite3.Connection, node_id: NodeId, holding: Holding, now_ms: int
) -> None:
    """Save which segments a member holds."""
    numbers = [number for gap in holding.missing for number in gap]
    db.execute(
        "INSERT OR REPLACE INTO segment_holders (node_id, through, missing, since_ms) "
        "VALUES (?, ?, ?, ?)",
        (node_id, holding.through, json.dumps(numbers), now_ms),
    )


def forget_holder(db: sqlite3.Connection, node_id: NodeId) -> None:
    """Forget a member that was removed."""
    db.execute("DELETE FROM segment_holders WHERE node_id = ?", (node_id,))


def lost(db: sqlite3.Connection) -> tuple[int, ...]:
    """Return the numbers of the segments that were declared lost, ascending."""
    if not are_known(db):
        return ()
    rows = db.execute("SELECT number FROM lost_segments ORDER BY number")
    return tuple(number for (number,) in rows)


def declare_lost(
    db: sqlite3.Connection, numbers: Iterable[int], now_ms: int, reason: str
) -> None:
    """Save that no member has these segments."""
    db.executemany(
        "INSERT OR IGNORE INTO lost_segments (number, at_ms, reason) VALUES (?, ?, ?)",
        ((number, now_ms, reason) for number in numbers),
    )


def _segment(row: Sequence[Any]) -> Segment:
    number, first, last, first_at_ms, last_at_ms, before, after = row
    return Segment(
        number=number,
        first_sequence=first,
        last_sequence=last,
        first_at_ms=first_at_ms,
        last_at_ms=last_at_ms,
        hash_before=bytes(before),
        hash_after=bytes(after),
    )
