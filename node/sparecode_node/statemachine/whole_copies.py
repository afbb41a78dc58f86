# SPDX-License-Identifier: Apache-2.0
"""Copies of the state that have every audit event, for backups."""

import contextlib
import sqlite3
from pathlib import Path

from sparecode_node.statemachine.sealed_events import (
    COLUMNS,
    file_of,
    is_of_rot,
    prove,
)
from sparecode_node.statemachine.segment_chain import RottenSegmentError, SegmentError
from sparecode_node.statemachine.tables import archives, segments
from sparecode_node.statemachine.tables.schema import read_only_uri
from sparecode_node.statemachine.tables.segments import Segment


def add_to(copy: Path, state: Path) -> None:
    """
    Add to a copy of the state the sealed events that only the file has.

    The copy is older than what is read here, so no event is in neither. Raises
    `sqlite3.Error`, and `RottenSegmentError`: a copy with a rotten event could never be
    restored.
    """
    if not (file := file_of(state)).exists():
        return
    uri = copy.absolute().as_uri()
    with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = MEMORY").fetchall()  # Without a second file.
        db.execute("PRAGMA synchronous = OFF")  # The caller syncs the file.
        db.execute("ATTACH ? AS sealed", (read_only_uri(file),))
        removed = archives.removed(db).through
        for segment in segments.all_sealed(db):
            if segment.number <= removed:
                continue  # Retention has removed it; this node deletes it soon (U4).
            try:
                _add(db, segment)
            except (SegmentError, sqlite3.DatabaseError) as error:
                if is_of_rot(error):
                    raise RottenSegmentError(
                        segment.number, segment.first_sequence, segment.last_sequence
                    ) from error
                raise


def _add(db: sqlite3.Connection, segment: Segment) -> None:
    """Add the events of a segment, and prove them. Raises `SegmentError`: rotten ones."""
    extent = (segment.first_sequence, segment.last_sequence)
    # A segment of another history, or one that this node lacks, is left out.
    is_stored = db.execute(
        "SELECT 1 FROM sealed.stored_segments WHERE number = ? AND hash = ?",
        (segment.number, segment.hash_after),
    ).fetchone()
    if (
        is_stored
        and db.execute(
            f"INSERT OR IGNORE INTO main.audit_events ({COLUMNS}) "
            f"SELECT {COLUMNS} FROM sealed.audit_events WHERE sequence BETWEEN ? AND ?",
            extent,
        ).rowcount
    ):
        prove(db, segment)
    (events,) = db.execute(
        "SELECT count(*) FROM main.audit_events WHERE sequence BETWEEN ? AND ?", extent
    ).fetchone()
    if events < segment.events:  # So that a missing segment is missing whole.
        if is_stored:
            raise SegmentError("some events are missing")
        db.execute(
            "DELETE FROM main.audit_events WHERE sequence BETWEEN ? AND ? AND "
            "sequence < (SELECT max(sequence) FROM main.audit_events)",
            extent,
        )
