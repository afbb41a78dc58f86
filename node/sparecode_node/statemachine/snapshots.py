# SPDX-License-Identifier: Apache-2.0
"""
Snapshots of the state. Any thread can write one; the applying thread installs one.

A snapshot is a complete SQLite database in one file. SQLite's backup API copies it in
one read transaction, so it is the state at one index, its `applied_index`. Its tables
have the format of the cluster's feature level: every member can read it.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.fault_points import Point, reach
from sparecode_node.statemachine import checkpoints, feature_level, whole_copies
from sparecode_node.statemachine.digest import digest
from sparecode_node.statemachine.tables import (
    formats,
    meta,
    request_counts,
    schema,
    segments,
)


class SnapshotError(Exception):
    """The file is not a snapshot that this software can read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFacts:
    """What a snapshot contains."""

    index: int
    """Index of the last applied entry."""
    digest: str = ""
    """Digest of the state, as replicas compare it. Empty: not computed."""


def write_snapshot(state: Path, target: Path) -> SnapshotFacts:
    """
    Copy the state into the new file *target*, and return its facts as `check_snapshot` does.

    Any thread may call this while entries are applied: it opens its own connections.
    Raises `SnapshotError`, for instance if the disk is full.
    """
    target.touch(mode=0o600)  # SQLite would make it readable for others.
    try:
        _copy(state, target)
    except sqlite3.Error as error:
        raise SnapshotError(f"{target}: {error}") from error
    return check_snapshot(target)


def write_whole(state: Path, target: Path) -> SnapshotFacts:
    """
    Copy the state into the new file *target*, with all audit events that this node has.

    For backups: sealed events are not part of a snapshot once this node's other file has
    them. Returns facts with a digest. Raises as `write_snapshot`, and
    `RottenSegmentError`.
    """
    target.touch(mode=0o600)
    try:
        _copy(state, target)
        whole_copies.add_to(target, state)
    except sqlite3.Error as error:
        raise SnapshotError(f"{target}: {error}") from error
    return read_facts(target)


def write_state_alone(state: Path, target: Path) -> SnapshotFacts:
    """
    Copy the state into the new file *target*, without any sealed audit event.

    For backups whose size does not grow with the audit log. A snapshot may have a part
    of a segment that is being discarded. Returns facts with a digest. Raises as
    `write_snapshot`.
    """
    target.touch(mode=0o600)
    try:
        _copy(state, target)
        _remove_sealed_events(target)
    except sqlite3.Error as error:
        raise SnapshotError(f"{target}: {error}") from error
    return read_facts(target)


def _remove_sealed_events(copy: Path) -> None:
    """Remove all sealed events from a copy of the state; the newest event stays."""
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = MEMORY").fetchall()  # Without a second file.
        db.execute("PRAGMA synchronous = OFF")  # The caller syncs the file.
        if segments.are_known(db):
            db.execute(
                "DELETE FROM audit_events WHERE "
                "sequence <= (SELECT max(last_sequence) FROM audit_segments) "
                "AND sequence < (SELECT max(sequence) FROM audit_events)"
            )
            _shrink(db)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How long a database is, in bytes."""

    whole: int
    used: int
    """Without the pages of deleted rows."""

    @property
    def is_mostly_unused(self) -> bool:
        """Whether a shrunk copy has less than half of the pages."""
        return self.used < self.whole - self.whole // 2


def size_of(db: sqlite3.Connection) -> Size:
    """Return the size of a database."""
    (size,) = db.execute("PRAGMA page_size").fetchone()
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (unused,) = db.execute("PRAGMA freelist_count").fetchone()
    return Size(whole=size * pages, used=size * (pages - unused))


def _shrink(copy: sqlite3.Connection) -> None:
    """Shorten the file if most of it is unused."""
    if size_of(copy).is_mostly_unused:
        copy.execute("VACUUM")


def _copy(state: Path, target: Path) -> None:
    # Read-only: SQLite runs a checkpoint when the last connection that can write is
    # closed, and discards its errors.
    uri = schema.read_only_uri(state)
    with (
        contextlib.closing(
            sqlite3.connect(uri, uri=True, isolation_level=None)
        ) as source,
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy,
    ):
        copy.execute("PRAGMA synchronous = OFF")  # The caller syncs the file.
        source.execute("BEGIN")
        source.backup(copy)
        # A database in WAL mode could have a second file.
        copy.execute("PRAGMA journal_mode = DELETE").fetchall()
        copy.execute("PRAGMA journal_mode = MEMORY").fetchall()  # And no third one.
        formats.convert(copy, feature_level.read(copy))
        request_counts.drop(copy)
        _shrink(copy)  # Years of audit events may have just left the state.


def check_snapshot(snapshot: Path) -> SnapshotFacts:
    """
    Check that SQLite can read a whole snapshot, and return its facts.

    They have a digest at feature level 1 only, where release 0.1.0 compares it. It takes
    ten times as long as writing a snapshot, and says nothing about the bytes of one that
    its SHA-256 does not say. Raises `SnapshotError`.
    """
    with _opened(snapshot) as db:
        if feature_level.read(db) < feature_level.SNAPSHOTS_WITHOUT_DIGESTS:
            return _facts(db)
        for (problem,) in db.execute("PRAGMA quick_check(1)"):
            if problem != "ok":
                raise SnapshotError(f"{snapshot}: {problem}")
        return SnapshotFacts(index=meta.read(db, "applied_index", 0))


def read_facts(snapshot: Path) -> SnapshotFacts:
    """
    Read a whole snapshot, and return its facts with the digest.

    Raises `SnapshotError`.
    """
    with _opened(snapshot) as db:
        return _facts(db)


def _facts(db: sqlite3.Connection) -> SnapshotFacts:
    return SnapshotFacts(index=meta.read(db, "applied_index", 0), digest=digest(db))


@contextlib.contextmanager
def _opened(snapshot: Path) -> Iterator[sqlite3.Connection]:
    """Open a snapshot to read it. Raises `SnapshotError`, also for errors meanwhile."""
    uri = schema.read_only_uri(snapshot, immutable=True)
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            # The format of an older level was written before the level was raised;
            # `install_snapshot` migrates it.
            if not 0 < version <= schema.VERSION:
                raise SnapshotError(
                    f"{snapshot} has format {version}; this software reads formats up"
                    f" to {schema.VERSION}"
                )
            feature_level.read(db)
            yield db
    except (sqlite3.DatabaseError, feature_level.FeatureLevelError) as error:
        raise SnapshotError(f"{snapshot}: {error}") from error


def read_state(state: Path) -> SnapshotFacts:
    """
    Return the facts of the live state, while another thread may write.

    Raises `SnapshotError`.
    """
    uri = schema.read_only_uri(state)
    try:
        with contextlib.closing(
            sqlite3.connect(uri, uri=True, isolation_level=None)
        ) as db:
            # Read both in one transaction, so that they belong together.
            db.execute("BEGIN")
            return _facts(db)
    except sqlite3.Error as error:
        raise SnapshotError(f"{state}: {error}") from error


def replace_state(state: Path, snapshot: Path) -> None:
    """
    Replace the state in a file by a snapshot, in any thread, while no other one writes.

    Raises `sqlite3.Error`, `OSError`.
    """
    with contextlib.closing(sqlite3.connect(state, isolation_level=None)) as db:
        db.execute(checkpoints.OFF)
        install_snapshot(db, snapshot)


def install_snapshot(db: sqlite3.Connection, snapshot: Path) -> None:
    """
    Replace the contents of *db* by a snapshot, in one durable transaction.

    Readers on other connections continue with the old or the new state.
    """
    try:
        reach(Point.INSTALL_COPY)
        copy_over(db, snapshot)
        # Migrate an older format. If the power fails now, the next start does it again.
        db.execute("PRAGMA foreign_keys = OFF")
        formats.prepare(db)
        _count_requests(db)
    finally:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA synchronous = NORMAL")


def copy_over(db: sqlite3.Connection, copy: Path) -> None:
    """
    Replace the contents of *db* by those of a file, in one durable transaction.

    Every later one of this connection is durable, too. Nothing may write to the file.
    """
    # With NORMAL, the commit would reach the disk only with the next checkpoint.
    db.execute("PRAGMA synchronous = FULL")
    uri = schema.read_only_uri(copy, immutable=True)
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as source:
        source.backup(db)


def _count_requests(db: sqlite3.Connection) -> None:
    """Count the request ids here, and not in the engine's thread, which holds answers."""
    index = meta.read(db, "applied_index", 0)
    counts = request_counts.count(db)
    db.execute("BEGIN IMMEDIATE")
    request_counts.replace(db, index, counts)
    db.execute("COMMIT")
