# SPDX-License-Identifier: Apache-2.0
"""
Sealed segments of the audit log in the simulated cluster (U1).

A run has few events, so a segment is short. Each machine has a file of sealed events,
with the real code that stores and proves a segment. What a machine lacks comes from
another one. Apply discards what the files of all machines have. Files are lost and rot.
"""

import contextlib
import random
import sqlite3
from collections.abc import Iterable, Iterator

from sparecode_node.statemachine import sealed_events
from sparecode_node.statemachine.audit import Stored
from sparecode_node.statemachine.sealed_events import SealedEvents
from sparecode_node.statemachine.segment_chain import Pace, SegmentError
from sparecode_node.statemachine.tables import segments
from sparecode_node.statemachine.tables.segments import Segment
from tests.simulation.state_connection import StateConnection

EVENTS = 12
"""Of a segment."""
Row = tuple[object, ...]
_NAMES = sealed_events.COLUMNS.split(", ")
_ALL = f"SELECT {sealed_events.COLUMNS} FROM audit_events"  # noqa: S608
_ROWS = f"SELECT {sealed_events.COLUMNS} FROM main.audit_events WHERE sequence"  # noqa: S608


class SealedFile(SealedEvents):
    """The file of one machine, in memory. What counts as stored is on its disk."""

    def __init__(self, image: bytes | None = None) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None)
        self._db.text_factory = sealed_events._text
        if image is None:
            self._db.executescript(sealed_events._TABLES)
        else:
            self._db.deserialize(image)
        self._stored: dict[int, bytes] | None = None
        self._good: dict[int, tuple[int, Segment]] = {}
        """Number -> the changes of the file so far when this segment was in order."""

    def close(self) -> None:
        self._db.close()

    def serialize(self) -> bytes:
        """Return the whole file."""
        return self._db.serialize()

    def keep(self, state: StateConnection) -> None:
        """Store the segments that are still in the state's database *state*."""
        for segment in self.lacks(state):
            rows = _rows(state, segment)
            if len(rows) == segment.events:
                self._take(segment, rows)

    def lacks(self, state: StateConnection) -> list[Segment]:
        """Return the sealed segments that the file lacks, without removed ones."""
        stored, removed = self.stored(), state.removed().through
        return [
            each
            for each in state.all_sealed()
            if each.number > removed and stored.get(each.number) != each.hash_after
        ]

    def fetch(
        self,
        segment: Segment,
        other: "SealedFile",
        forger: random.Random | None = None,
    ) -> bool:
        """
        Take a segment from another machine's file; return whether it was there.

        *forger* changes one event on the way.
        """
        if other.stored().get(segment.number) != segment.hash_after:
            return False
        rows = _rows(other._db, segment)
        if forger is not None and rows:
            at = forger.randrange(len(rows))
            rows[at] = tuple(
                "forged" if name == "detail" else value
                for name, value in zip(_NAMES, rows[at], strict=True)
            )
        return self._take(segment, rows)

    def _take(self, segment: Segment, rows: Iterable[Row]) -> bool:
        try:
            self.store(segment, map(sealed_events._event, rows))
        except SegmentError:
            return False  # Damaged there, or of another history.
        return True

    def read_again(self, state: StateConnection) -> int:
        """Return how many stored segments are rotten: they are missing from then on."""
        rotten = 0
        for segment in state.all_sealed():
            if segment.number in self.stored():
                try:
                    self.verify(segment)
                except SegmentError:
                    rotten += 1
        return rotten

    def verify(self, segment: Segment, pace: Pace = iter) -> None:
        """Read a segment as in production, if the file has changed since."""
        if self._good.get(segment.number) != (self._db.total_changes, segment):
            super().verify(segment, pace)
            self._good[segment.number] = self._db.total_changes, segment

    def rot(self, rng: random.Random) -> bool:
        """Change one event, or lose the whole file; return whether there was anything."""
        numbers = [
            row[0] for row in self._db.execute("SELECT sequence FROM audit_events")
        ]
        if not numbers:
            return False
        if rng.random() < 0.3:
            self._stored = None
            self._db.execute("DELETE FROM audit_events")
            self._db.execute("DELETE FROM stored_segments")
        else:
            self._db.execute(
                "UPDATE audit_events SET detail = detail || '.' WHERE sequence = ?",
                (rng.choice(numbers),),
            )
        return True


def _rows(db: sqlite3.Connection, segment: Segment) -> list[Row]:
    extent = (segment.first_sequence, segment.last_sequence)
    return db.execute(f"{_ROWS} BETWEEN ? AND ? ORDER BY sequence", extent).fetchall()


def rows_of_segment(file: SealedFile, segment: Segment) -> list[Row]:
    """Return the rows that a file has of a segment, oldest first."""
    return _rows(file._db, segment)


def rows_in(file: SealedFile) -> list[Row]:
    """Return all audit events in a file."""
    return file._db.execute(_ALL).fetchall()


def rows_of(db: sqlite3.Connection, *, after: int = 0) -> list[Row]:
    """Return all audit events that a reader sees, oldest first."""
    return db.execute(
        f"{_ALL} WHERE sequence > ? ORDER BY sequence", (after,)
    ).fetchall()


def discardable(state: sqlite3.Connection, agreed: int) -> Stored | None:
    """Return the sealed events that apply may discard: all files have them."""
    (first,) = state.execute(
        "SELECT coalesce(min(sequence), 0) FROM main.audit_events"
    ).fetchone()
    segment = segments.find(state, agreed) if agreed else None
    if segment is None or segment.last_sequence < first:
        return None
    return Stored(segment=segment, first=first)


@contextlib.contextmanager
def whole_log(image: bytes, file: SealedFile) -> Iterator[sqlite3.Connection]:
    """Lend a copy of a state and of a file, which readers see as one log."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.deserialize(image)
        add_sealed(db, file)
        yield db


def add_sealed(db: sqlite3.Connection, file: SealedFile) -> None:
    """Let readers of a copy of the state see both as one log, as `open_log` does."""
    db.execute("ATTACH ':memory:' AS sealed")
    db.deserialize(file.serialize(), name="sealed")
    db.executescript(sealed_events._VIEWS)
