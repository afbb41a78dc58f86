# SPDX-License-Identifier: Apache-2.0
"""Copies of the state that have every audit event, for backups."""

import contextlib
import sqlite3
from pathlib import Path

from sparecode_node.statemachine.sealed_events import COLUMNS, file_of
from sparecode_node.statemachine.tables import archives, segments
from sparecode_node.statemachine.tables.schema import read_only_uri


def add_to(copy: Path, state: Path) -> None:
    """
    Add to a copy of the state the sealed events that only the file has.

    The copy is older than what is read here, so no event is in neither. Raises
    `sqlite3.Error`.
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
            extent = (segment.first_sequence, segment.last_sequence)
            # A segment of another history, or one that is not whole, is left out.
            db.execute(
                f"INSERT OR IGNORE INTO main.audit_events ({COLUMNS}) "
                f"SELECT {COLUMNS} FROM sealed.audit_events "
                "WHERE sequence BETWEEN ? AND ? AND EXISTS ("
                "SELECT 1 FROM stored_segments WHERE number = ? AND hash = ?)",
                (*extent, segment.number, segment.hash_after),
            )
            (events,) = db.execute(
                "SELECT count(*) FROM main.audit_events WHERE sequence BETWEEN ? AND ?",
                extent,
            ).fetchone()
            if events < segment.events:  # So that a missing segment is missing whole.
                db.execute(
                    "DELETE FROM main.audit_events WHERE sequence BETWEEN ? AND ? AND "
                    "sequence < (SELECT max(sequence) FROM main.audit_events)",
                    extent,
                )
