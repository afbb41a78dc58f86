# SPDX-License-Identifier: Apache-2.0
"""
Gives the free pages of the state's database back to the disk, at a start.

SQLite keeps the pages of deleted rows for later ones, so the file never becomes
shorter. After an upgrade from release 0.1.0, years of audit events leave it.

A shrunk copy is written beside the database, and then copied over it in one
transaction, as a snapshot is installed: the write-ahead log has the old content or the
new one, whenever a process or the power ends. The next checkpoint cuts the file.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.statemachine.checkpoints import OFF, Checkpoints
from sparecode_node.statemachine.snapshots import (
    SnapshotError,
    check_snapshot,
    copy_over,
    size_of,
)

BYTES_MIN = 64 * 1024 * 1024
"""A shorter database stays as it is: a start and a snapshot read it in no time."""

ROOM = 64 * 1024 * 1024
"""Bytes of the disk that stay free for what else a node writes."""


class ShrinkError(Exception):
    """The database keeps its free pages for now. Nothing else has changed."""


@dataclass(frozen=True, slots=True)
class Shrunk:
    """How much shorter a database has become."""

    bytes_before: int
    bytes_after: int


def shrink(
    state: Path,
    checkpoints: Checkpoints,
    on_long_work: Callable[[], object] = lambda: None,
) -> Shrunk | None:
    """
    Shorten the database if more than half of it is unused; return None if it is not.

    The database is open, and nothing is applied meanwhile. What it holds does not
    change. *on_long_work* is called before each part that may take long.
    Raises `ShrinkError`: the node goes on with the database as it was. Raises
    `CheckpointError`.
    """
    copy = state.with_name(f"{state.name}.shrunk")
    try:
        # A start that is killed for its length must not be tried again at once.
        was_ended = copy.exists()
        copy.unlink(missing_ok=True)
        with contextlib.closing(sqlite3.connect(state, isolation_level=None)) as db:
            db.execute(OFF)
            before = size_of(db)
            if before.whole <= BYTES_MIN or not before.is_mostly_unused:
                return None
            if was_ended:
                raise ShrinkError(
                    "a kill or a power cut ended the last attempt, and this start makes"
                    " none; the next one does: restart the node once more when its"
                    " start may take long"
                )
            _check_room(state, before.used)
            on_long_work()
            checkpoints.run(last=True)
            if not checkpoints.is_complete:
                raise ShrinkError("another program reads the database")
            try:
                _write_copy(db, copy)
                on_long_work()
                _replace(db, copy)
            finally:
                with contextlib.suppress(OSError):
                    copy.unlink(missing_ok=True)  # The checkpoint may need the room.
            after = size_of(db)
    except (sqlite3.Error, OSError) as error:
        raise ShrinkError(str(error)) from error
    on_long_work()
    checkpoints.run(last=True)
    return Shrunk(before.whole, after.whole)


def _check_room(state: Path, used: int) -> None:
    """Raise `ShrinkError` if the disk has no room for the copy and for the log of it."""
    disk = os.statvfs(state.parent)
    free, needed = disk.f_bavail * disk.f_frsize, 2 * used + ROOM
    if free < needed:
        raise ShrinkError(f"it takes {needed} bytes, and the disk has {free} left")


def _write_copy(db: sqlite3.Connection, copy: Path) -> None:
    """Write a shrunk copy, and let SQLite read all of it."""
    copy.touch(mode=0o600)  # SQLite would make it readable for others.
    db.execute("VACUUM INTO ?", (str(copy),))
    try:
        check_snapshot(copy)
    except SnapshotError as error:
        raise ShrinkError(f"the copy is damaged: {error}") from error


def _replace(db: sqlite3.Connection, copy: Path) -> None:
    """Replace the content of a database by a copy, in one durable transaction."""
    try:
        copy_over(db, copy)
    except sqlite3.Error:
        # Everything in the log is in the database, so nothing needs it: neither what a
        # failed sync has left in doubt, nor the room that it takes.
        with contextlib.suppress(sqlite3.Error):
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        raise
