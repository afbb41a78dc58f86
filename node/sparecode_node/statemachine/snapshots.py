# SPDX-License-Identifier: Apache-2.0
"""
Snapshots of the state: written beside the one who applies, installed by it.

A snapshot is an SQLite database, complete in one file. It is copied by SQLite's
backup API in one read transaction, so it is the state at one index; which, it
says itself (`applied_index`).
"""

import contextlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.statemachine import feature_level
from sparecode_node.statemachine.digest import digest
from sparecode_node.statemachine.tables import meta, schema


class SnapshotError(Exception):
    """A file that is no snapshot that this software reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFacts:
    """What a snapshot says of itself."""

    index: int
    """The last entry that it has applied."""
    digest: str
    """Of the state, as replicas compare it."""


def write_snapshot(state: Path, target: Path) -> SnapshotFacts:
    """
    Copy the state into the new file *target*; return what it is of.

    For any thread: it has connections of its own, and whoever applies goes on.
    Raises `SnapshotError`, when the disk is full say.
    """
    target.touch(mode=0o600)  # SQLite would let others read it.
    try:
        _copy(state, target)
    except sqlite3.Error as error:
        raise SnapshotError(f"{target}: {error}") from error
    return read_facts(target)


def _copy(state: Path, target: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(state, isolation_level=None)) as source,
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy,
    ):
        # What is checkpointed here, the engine's thread need not wait for later.
        source.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        copy.execute("PRAGMA synchronous = OFF")  # Who keeps the file syncs it.
        source.execute("BEGIN")
        source.backup(copy)
        # One file: a database in WAL mode could have a second one.
        copy.execute("PRAGMA journal_mode = DELETE").fetchall()


def read_facts(snapshot: Path) -> SnapshotFacts:
    """
    Read a whole snapshot, and return what it is of.

    Raises `SnapshotError`.
    """
    uri = schema.read_only_uri(snapshot, immutable=True)
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
            (version,) = db.execute("PRAGMA user_version").fetchone()
            # An older one comes from a member that is not upgraded yet, or from before
            # this one was; `install_snapshot` brings it up to date.
            if not 0 < version <= schema.VERSION:
                raise SnapshotError(
                    f"{snapshot}: of format {version}; this software reads up to"
                    f" {schema.VERSION}"
                )
            feature_level.read(db)
            index = meta.read(db, "applied_index", 0)
            return SnapshotFacts(index=index, digest=digest(db))
    except (sqlite3.DatabaseError, feature_level.FeatureLevelError) as error:
        raise SnapshotError(f"{snapshot}: {error}") from error


def read_state(state: Path) -> SnapshotFacts:
    """
    Return of what the live state is, while others write it.

    Raises `SnapshotError`.
    """
    uri = schema.read_only_uri(state)
    try:
        with contextlib.closing(
            sqlite3.connect(uri, uri=True, isolation_level=None)
        ) as db:
            # One read transaction: both are of the same moment.
            db.execute("BEGIN")
            index = meta.read(db, "applied_index", 0)
            return SnapshotFacts(index=index, digest=digest(db))
    except sqlite3.Error as error:
        raise SnapshotError(f"{state}: {error}") from error


def install_snapshot(db: sqlite3.Connection, snapshot: Path) -> None:
    """
    Replace everything in *db* by a snapshot, in one transaction that is durable.

    Readers on other connections go on, with the old state or with the new one.
    """
    uri = schema.read_only_uri(snapshot, immutable=True)
    # With NORMAL, a commit would be on disk only after the next checkpoint.
    db.execute("PRAGMA synchronous = FULL")
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as source:
            source.backup(db)
        # Of an older format: as at the start of an upgraded node, where it would be
        # done again if the power went now.
        db.execute("PRAGMA foreign_keys = OFF")
        schema.prepare(db)
    finally:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA synchronous = NORMAL")


def checkpoint(db: sqlite3.Connection) -> bool:
    """
    Bring everything that is committed into the database's file, and empty its log.

    False if a reader is in the way; nobody waits here.
    """
    (patience_ms,) = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute("PRAGMA busy_timeout = 0")
    try:
        busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_LOCKED:
            raise
        return False
    finally:
        db.execute(f"PRAGMA busy_timeout = {patience_ms}")
    return not busy
