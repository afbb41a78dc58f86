# SPDX-License-Identifier: Apache-2.0
"""
Checkpoints: SQLite's write-ahead log is synced, and copied into the database file.

SQLite's automatic checkpoint discards its errors, so it is off. After a failed sync
the kernel may have dropped pages and report success for the next one, so each error
here is final: the node must stop, and `Checkpoints` does nothing more.
"""

import contextlib
import os
import sqlite3
from pathlib import Path

from sparecode_node.fault_points import Point, reach
from sparecode_node.statemachine.page_sums import (
    Copied,
    LostWriteError,
    PageSums,
    sums_in_log,
)
from sparecode_node.statemachine.tables import meta
from sparecode_node.statemachine.tables.schema import read_only_uri

OFF = "PRAGMA wal_autocheckpoint = 0"


class CheckpointError(Exception):
    """A checkpoint failed, so it is not known what is on disk."""


def checkpoint(db: sqlite3.Connection) -> tuple[int, int]:
    """
    Copy what readers permit; return the frames in the log and those copied by now.

    Never waits for readers or the writer. Raises `sqlite3.Error`.
    """
    busy, frames, copied = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return (frames, copied) if not busy else (0, -1)


def write_ahead(db: sqlite3.Connection) -> None:
    """
    Give a database a write-ahead log; one in memory needs none.

    SQLite reports an error of the disk only by the mode that it returns, and goes on with
    a rollback journal. Raises `sqlite3.OperationalError` then.
    """
    ((mode,),) = db.execute("PRAGMA journal_mode = WAL").fetchall()
    if mode not in ("wal", "memory"):
        raise sqlite3.OperationalError("the database gets no write-ahead log")


class Checkpoints:
    """The checkpoints of one database, which another connection writes."""

    def __init__(self, path: Path, sums: PageSums) -> None:
        """Take over *sums*. The database exists, in WAL mode."""
        self._path = path
        self._sums = sums
        self._failed = ""
        self._salt, self._recorded = b"", 0
        self._complete_at = 0
        self.durable_index = 0
        """No power cut takes the state back before this entry."""
        self.is_complete = False
        """Whether the last checkpoint has copied everything, durably."""
        self.frames = 0
        """Frames in the write-ahead log after the last checkpoint."""
        with contextlib.ExitStack() as opened:  # Closed if a later step fails.
            self._db = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False
            )
            opened.callback(self._db.close)
            self._db.execute(OFF)
            self._reader = sqlite3.connect(
                read_only_uri(path),
                uri=True,
                isolation_level=None,
                check_same_thread=False,
            )
            opened.callback(self._reader.close)
            self._reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            self._log = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            opened.pop_all()

    def run(self, *, last: bool = False) -> None:
        """
        Run one checkpoint, in one thread at a time. Raises `CheckpointError`.

        *last*: also if no entry was applied since: a node that stops has given the
        tables the format of the cluster's level.
        """
        if self._failed:
            raise CheckpointError(self._failed)
        try:
            self._run(last=last)
        except (sqlite3.Error, OSError, LostWriteError) as error:
            self._failed = (
                f"{self._path}: the checkpoint failed: {error}. It is not known what is"
                " on the disk. Check the disk before this node is started again."
            )
            raise CheckpointError(self._failed) from error

    def _run(self, *, last: bool) -> None:
        # While the reader is in its transaction, SQLite does not overwrite the log. So
        # the checksums are on disk before the frames may go.
        self._reader.execute("BEGIN")
        try:
            index = meta.read(self._reader, "applied_index", 0)
            if not last and 0 < index == self._complete_at:
                return
            # A reader may keep SQLite from syncing the log. So it is synced here.
            reach(Point.CHECKPOINT_SYNC)
            os.fdatasync(self._log)
            reach(Point.CHECKPOINT_COPY)
            frames, copied = checkpoint(self._db)
            if copied < 0:  # Another program is at it.
                self.is_complete = False
                return
            reach(Point.CHECKPOINT_SUMS)
            self._record(copied)
        finally:
            self._reader.execute("ROLLBACK")
        self.durable_index, self.frames = index, frames
        self.is_complete = frames == copied
        self._complete_at = index if self.is_complete else 0
        reach(Point.CHECKPOINT_DONE)

    def _record(self, copied: int) -> None:
        """Record the checksums of the pages that were copied since the last time."""
        if not copied:
            return
        if os.pread(self._log, 8, 16) != self._salt:
            self._salt, self._recorded = b"", 0
        if copied > self._recorded:
            frames = sums_in_log(self._log, self._recorded + 1, copied)
            self._sums.add(frames, Copied(frames.salt, copied))
            self._salt, self._recorded = frames.salt, copied

    def close(self) -> None:
        """
        Close the connections. The writer's must be closed before.

        SQLite runs a checkpoint when the last connection closes, and discards its
        errors, except if that connection only reads.
        """
        self._db.close()
        self._reader.close()
        os.close(self._log)
        self._sums.close()
