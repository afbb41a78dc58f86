# SPDX-License-Identifier: Apache-2.0
"""
The file with the audit events of sealed segments, beside the state's database.

It is a database with the same table. Each node writes its own, so no commit of an entry
waits for it. It needs no trust: a segment counts as stored only if its events, read back
from the file, give the two hashes in the state. It may be lost or damaged; then the
events come from other members again.

Readers see one table: `audit_events` becomes a view of both databases (`open_log`).
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from sparecode_node.domain.audit import AuditEvent, canonical
from sparecode_node.fault_points import Point, reach
from sparecode_node.statemachine import damaged_files
from sparecode_node.statemachine.checkpoints import write_ahead
from sparecode_node.statemachine.page_sums import write_again
from sparecode_node.statemachine.segment_chain import (
    FIELDS,
    Chained,
    Pace,
    SegmentError,
    checked,
    linked,
)
from sparecode_node.statemachine.tables import archives, segments
from sparecode_node.statemachine.tables.schema import (
    AUTHENTICATION_ID,
    AUTHENTICATION_INDEX,
    read_only_uri,
)
from sparecode_node.statemachine.tables.segments import Segment

FORMAT = 1
_PRIMARY = 0xFF
"""The part of an error code of SQLite that names its kind."""
_NOT_UTF_8 = "Could not decode to UTF-8"
STEPS_BETWEEN = 10_000
COLUMNS = "sequence, at_ms, actor, node, action, target, outcome, reason, detail, hash"

_TABLES = f"""
CREATE TABLE audit_events (
    sequence INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    node TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    hash BLOB NOT NULL,
    {AUTHENTICATION_ID}
) STRICT;
{AUTHENTICATION_INDEX}
CREATE TABLE stored_segments (
    number INTEGER PRIMARY KEY,
    hash BLOB NOT NULL               -- of the chain, after its last event
) STRICT;
PRAGMA user_version = {FORMAT};
"""

_VIEWS = """
CREATE TEMP VIEW audit_events AS
    SELECT * FROM main.audit_events
    UNION ALL
    SELECT * FROM sealed.audit_events WHERE +sequence < (
        SELECT coalesce(min(sequence), 0) FROM main.audit_events
    ) OR NOT EXISTS (
        SELECT 1 FROM main.audit_events AS own
        WHERE own.sequence = sealed.audit_events.sequence
    );
CREATE TEMP VIEW stored_segments AS SELECT * FROM sealed.stored_segments;
"""
"""
The state's own events count first: another thread stores them in the file before they
leave the state, and a reader may see both. The state may have a gap between its events:
a backup of a node that was alone, and lacked a segment that it has found since.
"""
_NO_FILE = "CREATE TEMP TABLE stored_segments (number INTEGER, hash BLOB);"


def file_of(state: Path) -> Path:
    """Return the path of the file that belongs to the state's database *state*."""
    return state.with_name(f"{state.stem}-audit.db")


def open_log(state: Path, *, any_thread: bool = False) -> sqlite3.Connection:
    """
    Open the state's database read-only, with the events of both files as one table.

    *any_thread*: several threads will use the connection, one at a time. Raises
    `sqlite3.Error`.
    """
    db = sqlite3.connect(
        read_only_uri(state),
        uri=True,
        isolation_level=None,
        check_same_thread=not any_thread,
    )
    try:
        # In the format of level 1 nothing is sealed, and the columns are others.
        if (file := file_of(state)).exists() and segments.are_known(db):
            db.execute("ATTACH ? AS sealed", (read_only_uri(file),))
            db.executescript(_VIEWS)
        else:
            db.executescript(_NO_FILE)
    except BaseException:
        db.close()
        raise
    return db


def create(state: Path) -> None:
    """
    Create the file, if there is none; put one that is damaged aside, and begin another.

    Its write-ahead log is written again, over itself: after a failed sync it may be
    readable and on no disk. Raises `sqlite3.Error` and `OSError`.
    """
    file = file_of(state)
    damaged_files.finish(file)
    if (log := file.with_name(f"{file.name}-wal")).exists():
        write_again(log)
    try:
        _open(file).close()
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise  # Such as a full disk: the file may be sound.
        put_aside(state)
        _open(file).close()


def find_damage(state: Path, *, ends: Callable[[], bool] = lambda: False) -> str:
    """
    Check the whole file; return its damage, empty: none, or not known.

    *ends* is asked again and again: if it returns true, the check breaks off.
    """
    try:
        uri = read_only_uri(file_of(state))
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            db.set_progress_handler(ends, STEPS_BETWEEN)
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
            return "" if found == "ok" else str(found)
    except sqlite3.OperationalError as error:
        # Such as a node that stops, or no free file descriptor.
        return str(error) if is_of_rot(error) else ""
    except sqlite3.DatabaseError as error:
        return str(error)


def put_aside(state: Path) -> None:
    """
    Rename a damaged file; what it had comes from other members again.

    A node that is alone has no other copy, so nothing of it is deleted. Readers that have
    the file open go on with it.
    """
    damaged_files.put_aside(file_of(state))


def put_aside_files(state: Path) -> list[Path]:
    """Return the damaged files that were put aside; each may still have some segments."""
    name = f"{file_of(state).name}.damaged-"
    return sorted(
        each
        for each in state.parent.glob(f"{name}*")
        if each.name.removeprefix(name).isdigit()
    )


def events_in(file: Path, segment: Segment) -> list[AuditEvent]:
    """
    Return what a file has of a segment, not proved yet.

    Raises `sqlite3.DatabaseError`, also for a damaged page, and `SegmentError`.
    """
    with contextlib.closing(sqlite3.connect(read_only_uri(file), uri=True)) as db:
        db.text_factory = _text
        rows = db.execute(
            f"SELECT {COLUMNS} FROM audit_events WHERE sequence BETWEEN ? AND ? "
            "ORDER BY sequence",
            (segment.first_sequence, segment.last_sequence),
        ).fetchall()
    return [_event(row) for row in rows]


class SealedEvents:
    """The file's only writer. Any thread may use it, one at a time. Raises `sqlite3.Error`."""

    def __init__(self, state: Path) -> None:
        """Open the file of the state's database *state*; `create` has made it."""
        self._db = _open(file_of(state))
        try:
            self._log = open_log(state, any_thread=True)
        except BaseException:
            self._db.close()
            raise
        self._log.text_factory = _text
        self._stored: dict[int, bytes] | None = None
        self._segments: tuple[Segment, ...] = ()

    def close(self) -> None:
        """Close the file."""
        # The last connection can only read: another one would run a checkpoint, and
        # discard its error.
        self._db.close()
        self._log.close()

    def segments(self) -> tuple[Segment, ...]:
        """Return the sealed segments that the state knows, oldest first; the same if none is new."""
        last = (
            segments.last_sealed(self._log) if segments.are_known(self._log) else None
        )
        if last != (self._segments[-1] if self._segments else None):
            self._segments = segments.all_sealed(self._log)
        return self._segments

    def lost(self) -> tuple[int, ...]:
        """Return the segments that were declared lost."""
        return segments.lost(self._log)

    def removed(self) -> int:
        """Return the last segment that retention has removed; 0: none."""
        return archives.removed(self._log).through

    def delete_removed(self, most: int) -> bool:
        """
        Delete some events of removed segments, durably; return whether any was left.

        After a crash it is done again. A segment no longer counts as stored before its
        events go, in the same transaction.
        """
        with self._transaction():
            deleted = archives.delete(self._db, archives.removed(self._log), most)
            reach(Point.SEGMENT_REMOVED)
        if deleted:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        return deleted > 0

    def stored(self) -> dict[int, bytes]:
        """
        Return the numbers of the stored segments, each with its hash.

        The same object, as long as nothing has changed: no other one writes the file.
        """
        if self._stored is None:
            rows = self._db.execute("SELECT number, hash FROM stored_segments")
            # A rotten row may hold anything: it is compared with the state's hash.
            self._stored = dict(rows)
        return self._stored

    def first_in_state(self) -> int:
        """Return the sequence number of the oldest event in the state's database; 0: none."""
        (first,) = self._log.execute(
            "SELECT coalesce(min(sequence), 0) FROM main.audit_events"
        ).fetchone()
        return int(first)

    def is_in_state(self, segment: Segment) -> bool:
        """Return whether the state's database has all events of a segment."""
        (events,) = self._log.execute(
            "SELECT count(*) FROM main.audit_events WHERE sequence BETWEEN ? AND ?",
            (segment.first_sequence, segment.last_sequence),
        ).fetchone()
        return bool(events == segment.events)

    def store_from_state(self, segment: Segment, pace: Pace) -> None:
        """Store a segment that the state's database still has. Raises `SegmentError`."""
        rows = self._log.execute(
            f"SELECT {COLUMNS} FROM main.audit_events WHERE sequence BETWEEN ? AND ? "
            "ORDER BY sequence",
            (segment.first_sequence, segment.last_sequence),
        )
        self.store(segment, pace(_event(row) for row in rows), pace)

    def store(
        self, segment: Segment, events: Iterable[AuditEvent], pace: Pace = iter
    ) -> None:
        """
        Store a segment, durably; any earlier content of it is replaced.

        It counts as stored after its events are synced and read back. *pace* yields
        events, and may pause meanwhile.
        Raises `SegmentError` if the events are not those of the segment.
        """
        self.store_chained(segment, linked(segment, events), pace)

    def store_chained(
        self, segment: Segment, chained: Iterable[Chained], pace: Pace = iter
    ) -> None:
        """Store a segment whose events are given with their hashes, as `store`."""
        with self._transaction():
            self._forget(segment)
            self._db.executemany(
                f"INSERT INTO audit_events ({COLUMNS}) VALUES "
                "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    (*(getattr(event, name) for name in FIELDS), value)
                    for event, value in chained
                ),
            )
        # SQLite's own checkpoints would discard an error of the disk.
        self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self.verify(segment, pace)

    def verify(self, segment: Segment, pace: Pace = iter) -> None:
        """
        Read the events of a segment; it counts as stored if they are those of the state.

        Otherwise it does not count any longer, but its events stay: they may be the only
        copy. Raises `SegmentError`.
        """
        try:
            prove(self._db, segment, pace)
        except (SegmentError, sqlite3.DatabaseError) as error:
            if not is_of_rot(error):
                raise
            with self._transaction():
                self._uncount(segment)
            if isinstance(error, SegmentError):
                raise
            raise SegmentError("the disk cannot read all events") from error
        if self.stored().get(segment.number) != segment.hash_after:
            with self._transaction():
                self._uncount(segment)
                self._db.execute(
                    "INSERT INTO stored_segments VALUES (?, ?)",
                    (segment.number, segment.hash_after),
                )

    def verify_number(self, number: int, pace: Pace = iter) -> None:
        """Read a segment that the state knows by a number, as `verify`."""
        segment = segments.find(self._log, number)
        if segment is not None:
            self.verify(segment, pace)

    def _uncount(self, segment: Segment) -> None:
        self._db.execute(
            "DELETE FROM stored_segments WHERE number = ?", (segment.number,)
        )

    def _forget(self, segment: Segment) -> None:
        self._uncount(segment)
        self._db.execute(
            "DELETE FROM audit_events WHERE sequence BETWEEN ? AND ?",
            (segment.first_sequence, segment.last_sequence),
        )

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._stored = None
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            reach(Point.SEGMENT_COMMIT)
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, OverflowError | UnicodeEncodeError):
                raise SegmentError("SQLite cannot hold what was sent") from error
            raise


def lines_of(
    state: Path, number: int, hash_after: bytes, *, skip: int, most: int
) -> bytes | None:
    """
    Return events of a segment as canonical JSON, one a line, for another member.

    At most *most* after *skip* others; empty: there are no more. None: the state does
    not know the segment. Whether events are missing shows where they are verified.
    """
    with contextlib.closing(open_log(state)) as log:
        log.text_factory = _text
        log.execute("BEGIN")
        segment = segments.find(log, number)
        if segment is None or segment.hash_after != hash_after or skip < 0:
            return None
        rows = log.execute(
            f"SELECT {COLUMNS} FROM audit_events WHERE sequence BETWEEN ? AND ? "
            "ORDER BY sequence",
            (
                segment.first_sequence + skip,
                min(segment.last_sequence, segment.first_sequence + skip + most - 1),
            ),
        )
        return b"".join(canonical(_event(row)) + b"\n" for row in rows)


def is_of_rot(error: SegmentError | sqlite3.Error) -> bool:
    """
    Return whether reading events has failed because of them: a full disk is no rot.

    SQLite reports a bad sector as damage of the file (`SQLITE_IOERR_CORRUPTFS` inside),
    and a value of another type as a violation of the table's. A text that is no UTF-8 is
    found by Python's module.
    """
    if isinstance(error, SegmentError):
        return True
    # Errors of the module itself, such as of a closed connection, have no code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return (
        code == sqlite3.SQLITE_IOERR_READ
        or (code & _PRIMARY)
        in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT)
        or str(error).startswith(_NOT_UTF_8)
    )


def prove(db: sqlite3.Connection, segment: Segment, pace: Pace = iter) -> None:
    """
    Compare the events of a segment in `main.audit_events` with the state's hashes.

    What readers see is compared, also the stored hashes, which exports show. Raises
    `SegmentError`, and `sqlite3.Error`.
    """
    db.text_factory = _text
    rows = db.execute(
        f"SELECT {COLUMNS} FROM main.audit_events WHERE sequence BETWEEN ? AND ? "
        "ORDER BY sequence",
        (segment.first_sequence, segment.last_sequence),
    ).fetchall()
    events = pace(_event(row) for row in rows)
    hashes = (row[-1] for row in rows)
    for event, value in linked(segment, events):
        if value != next(hashes):
            raise SegmentError(f"event {event.sequence} has another hash")


def _event(row: Iterable[Any]) -> AuditEvent:
    return checked(AuditEvent(**dict(zip(FIELDS, row, strict=False))))


def _text(content: bytes) -> str:
    """Return a text of the file; of rotten bytes another text, which its hash shows."""
    return content.decode(errors="replace")


def _open(file: Path) -> sqlite3.Connection:
    with contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    db.text_factory = _text
    try:
        write_ahead(db)
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        # What retention removes must not stay readable in free pages.
        db.execute("PRAGMA secure_delete = ON")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            db.executescript(f"BEGIN IMMEDIATE;{_TABLES}COMMIT;")
        # Fails if the file is damaged.
        db.execute("SELECT count(*) FROM stored_segments").fetchone()
    except BaseException:
        db.close()
        raise
    return db
