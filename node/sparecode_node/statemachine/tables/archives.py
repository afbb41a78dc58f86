# SPDX-License-Identifier: Apache-2.0
"""
Rows of archived and removed segments of the audit log.

An archiver is the actor of the confirmation: a node, or an administrator with a copy.
Removed segments keep their row in `audit_segments`: its hashes prove what was archived,
and that the rest of the log continues it.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from sparecode_node.domain.audit import GENESIS_HASH
from sparecode_node.domain.ids import NodeId
from sparecode_node.statemachine.tables import meta

ARCHIVE_TABLES = """
CREATE TABLE archived_segments (        -- which are not removed yet
    number INTEGER NOT NULL,
    archiver TEXT NOT NULL,
    at_ms INTEGER NOT NULL,          -- when the archiver said so
    PRIMARY KEY (number, archiver)
) STRICT, WITHOUT ROWID;
CREATE TABLE archive_places (
    archiver TEXT PRIMARY KEY,
    place TEXT NOT NULL,             -- a folder, or words
    at_ms INTEGER NOT NULL,
    folder TEXT NOT NULL,            -- the id in a node's folder; '': none
    folder_changes INTEGER NOT NULL  -- the node has read it again since this change of an id
) STRICT, WITHOUT ROWID;
CREATE TABLE removed_segments (         -- by retention; always the oldest ones
    through INTEGER PRIMARY KEY,     -- all segments up to this one
    at_ms INTEGER NOT NULL,
    archives TEXT NOT NULL           -- JSON: who had them and where
) STRICT;
"""

SHORTENED = "audit_retention_shortened_ms"
"""The row of `meta` with the time of the last policy that keeps less (U4)."""
FOLDER_CHANGES = "audit_archive_folder_changes"
"""The row of `meta` that counts how often a node has told another id than before (U4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """An archive that has some of the segments of a removal."""

    archiver: str
    place: str
    """Free text of the archiver: no name can be read from it."""
    withdrawn: bool = False
    """At least in part, since the removal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What retention has removed from the beginning of the log."""

    through: int = 0
    """The last removed segment; 0: nothing was removed."""
    last_sequence: int = 0
    last_at_ms: int = 0
    hash_after: bytes = GENESIS_HASH
    at_ms: int = 0
    archives: str = "[]"
    """Who had the last removed segments, and where, as `_stored` writes it."""

    @property
    def words(self) -> str:
        """Who had the last removed segments, and where, for a reader."""
        return words_of(copies_in(self.archives))


def words_of(copies: Sequence[Copy]) -> str:
    """Return archives and their places for a reader; empty for none."""
    withdrawn = [each.archiver for each in copies if each.withdrawn]
    return "; ".join(f"{each.archiver} ({each.place})" for each in copies) + (
        f"; withdrawn since, at least in part: {', '.join(withdrawn)}"
        if withdrawn
        else ""
    )


def copies_in(stored: str) -> tuple[Copy, ...]:
    """Return the archives that a removal has stored."""
    return tuple(Copy(**each) for each in json.loads(stored))


def _stored(copies: Sequence[Copy]) -> str:
    return json.dumps([asdict(each) for each in copies], separators=(",", ":"))


NOTHING_REMOVED = Removed()

REMOVED = """
SELECT through, last_sequence, last_at_ms, hash_after, at_ms, archives
FROM removed_segments JOIN audit_segments ON number = through
ORDER BY through DESC LIMIT 1
"""


def removed(db: sqlite3.Connection) -> Removed:
    """Return what was removed; nothing in the format of level 1."""
    if not _are_known(db):
        return NOTHING_REMOVED
    row = db.execute(REMOVED).fetchone()
    if row is None:
        return NOTHING_REMOVED
    through, last_sequence, last_at_ms, hash_after, at_ms, archives = row
    return Removed(
        through=through,
        last_sequence=last_sequence,
        last_at_ms=last_at_ms,
        hash_after=bytes(hash_after),
        at_ms=at_ms,
        archives=archives,
    )


def delete(file: sqlite3.Connection, removed: Removed, most: int) -> int:
    """
    Delete at most *most* removed events from a node's file; return how many went.

    Their segments no longer count as stored.
    """
    file.execute("DELETE FROM stored_segments WHERE number <= ?", (removed.through,))
    return file.execute(
        "DELETE FROM audit_events WHERE sequence IN ("
        "SELECT sequence FROM audit_events WHERE sequence <= ? "
        "ORDER BY sequence LIMIT ?)",
        (removed.last_sequence, most),
    ).rowcount


def _are_known(db: sqlite3.Connection) -> bool:
    found = db.execute(
        "SELECT 1 FROM main.sqlite_schema WHERE name = 'removed_segments'"
    )
    return found.fetchone() is not None


def remove(
    db: sqlite3.Connection, through: int, now_ms: int, copies: Sequence[Copy]
) -> None:
    """Record that all segments up to *through* are removed."""
    db.execute(
        "INSERT INTO removed_segments (through, at_ms, archives) VALUES (?, ?, ?)",
        (through, now_ms, _stored(copies)),
    )
    db.execute("DELETE FROM archived_segments WHERE number <= ?", (through,))


def archiver_of(node_id: NodeId) -> str:
    """Return the archiver that a node is."""
    return f"node:{node_id}"


def node_of(archiver: str) -> NodeId:
    """Return the node that an archiver is."""
    return NodeId(archiver.removeprefix("node:"))


def is_node(archiver: str) -> bool:
    """Return whether an archiver is a node, and no administrator."""
    return archiver.startswith("node:")


def archiver_named(administrator: str) -> str:
    """Return the archiver that an administrator is."""
    return f"administrator:{administrator}"


def numbers_of(db: sqlite3.Connection, archiver: str) -> frozenset[int]:
    """Return the segments that an archiver has confirmed, without removed ones."""
    rows = db.execute(
        "SELECT number FROM archived_segments WHERE archiver = ?", (archiver,)
    )
    return frozenset(number for (number,) in rows)


def said_ms(db: sqlite3.Connection, archiver: str) -> int:
    """Return when an archiver last said what it has; 0: never."""
    row = db.execute(
        "SELECT at_ms FROM archive_places WHERE archiver = ?", (archiver,)
    ).fetchone()
    return 0 if row is None else int(row[0])


def folder_of(db: sqlite3.Connection, archiver: str) -> str:
    """Return the id of an archiver's folder; empty: none is known."""
    row = db.execute(
        "SELECT folder FROM archive_places WHERE archiver = ?", (archiver,)
    ).fetchone()
    return "" if row is None else str(row[0])


def is_of_last_change(db: sqlite3.Connection, archiver: str) -> bool:
    """Return whether a node has read its folder's id since the last change of an id."""
    row = db.execute(
        f"SELECT folder_changes = {CHANGES} FROM archive_places WHERE archiver = ?",
        (archiver,),
    ).fetchone()
    return row is not None and bool(row[0])


def folder_changes(db: sqlite3.Connection) -> int:
    """Return how often a node has told another id of its folder than before."""
    return int(meta.read(db, FOLDER_CHANGES, 0))


def save(
    db: sqlite3.Connection,
    archiver: str,
    place: str,
    now_ms: int,
    *,
    new: Iterable[int],
    withdrawn: Iterable[int] = (),
    folder: str = "",
) -> None:
    """
    Save what an archiver has archived since, and what it no longer has.

    *folder* is the id of the folder, read since the last change of an id; empty: an
    administrator's copy, or a node that has no archive.
    """
    db.executemany(
        "INSERT OR IGNORE INTO archived_segments (number, archiver, at_ms) "
        "VALUES (?, ?, ?)",
        ((number, archiver, now_ms) for number in new),
    )
    db.executemany(
        "DELETE FROM archived_segments WHERE number = ? AND archiver = ?",
        ((number, archiver) for number in withdrawn),
    )
    db.execute(
        "INSERT OR REPLACE INTO archive_places "
        "(archiver, place, at_ms, folder, folder_changes) VALUES (?, ?, ?, ?, ?)",
        (archiver, place, now_ms, folder, folder_changes(db)),
    )


def withdraw(
    db: sqlite3.Connection, archiver: str, first: int, last: int
) -> tuple[int, ...]:
    """Delete what an archiver has confirmed of some segments; return their numbers."""
    numbers = tuple(
        number for number in sorted(numbers_of(db, archiver)) if first <= number <= last
    )
    db.executemany(
        "DELETE FROM archived_segments WHERE number = ? AND archiver = ?",
        ((number, archiver) for number in numbers),
    )
    if not numbers_of(db, archiver):
        db.execute("DELETE FROM archive_places WHERE archiver = ?", (archiver,))
    return numbers


def note_withdrawal(
    db: sqlite3.Connection, archiver: str, first: int, last: int
) -> tuple[int, int] | None:
    """
    Record that an archiver no longer has all of what was removed; return its segments.

    None: no segment was removed on the word of this archiver.
    """
    found = None
    begin = 1
    for through, stored in db.execute(
        "SELECT through, archives FROM removed_segments ORDER BY through"
    ).fetchall():
        copies = copies_in(stored)
        if (
            begin <= last
            and through >= first
            and any(each.archiver == archiver for each in copies)
        ):
            low, high = max(begin, first), min(through, last)
            found = (min(found[0], low) if found else low, high)
            db.execute(
                "UPDATE removed_segments SET archives = ? WHERE through = ?",
                (_stored([_withdrawn(each, archiver) for each in copies]), through),
            )
        begin = through + 1
    return found


def _withdrawn(copy: Copy, archiver: str) -> Copy:
    return replace(copy, withdrawn=True) if copy.archiver == archiver else copy


CHANGES = f"""
coalesce((SELECT value FROM meta WHERE name = '{FOLDER_CHANGES}'), 0)
"""
"""`folder_changes`, in a query."""

FRESH = f"""
archiver IN (
    SELECT archiver FROM archive_places
    WHERE archiver NOT LIKE 'node:%'
    OR (at_ms >= :since AND folder <> '' AND folder_changes = {CHANGES})
)
"""
"""
Archivers that count. A node says again what it reads, and reads the id of its folder after
each change of an id; an administrator does neither: the copy is a tape in a safe.
"""

COPIES = """
count(DISTINCT (
    SELECT CASE places.folder WHEN '' THEN places.archiver ELSE places.folder END
    FROM archive_places AS places WHERE places.archiver = archived.archiver
))
"""
"""The number of copies in `archived_segments AS archived`: one folder is one copy."""

COPIES_OF_SEALED = f"""
(
    SELECT {COPIES} FROM archived_segments AS archived
    WHERE archived.number = sealed.number AND {FRESH}
)
"""
"""The number of copies that count of a row of `audit_segments AS sealed`."""


def copies(
    db: sqlite3.Connection, first: int, last: int, *, since_ms: int
) -> Mapping[int, int]:
    """
    Return how many archives have each of some segments; those without one are left out.

    Nodes count that have spoken since *since_ms*.
    """
    rows = db.execute(
        f"SELECT number, {COPIES} FROM archived_segments AS archived "
        f"WHERE number BETWEEN :first AND :last AND {FRESH} GROUP BY number",
        {"first": first, "last": last, "since": since_ms},
    )
    return dict(rows.fetchall())


def short(
    db: sqlite3.Connection, wanted: int, *, since_ms: int
) -> list[tuple[int, int]]:
    """
    Return the segments that fewer than *wanted* archives have, oldest first.

    Each with the time of its last event. Removed ones are left out; lost ones are not.
    """
    if not _are_known(db):
        return []
    return db.execute(
        "SELECT number, last_at_ms FROM audit_segments AS sealed "
        "WHERE number > (SELECT coalesce(max(through), 0) FROM removed_segments) "
        f"AND {COPIES_OF_SEALED} < :wanted ORDER BY number",
        {"wanted": wanted, "since": since_ms},
    ).fetchall()


def places(
    db: sqlite3.Connection, first: int, last: int, *, since_ms: int
) -> tuple[Copy, ...]:
    """
    Return the archivers that have some of these segments, each with its place.

    Nodes count that have spoken since *since_ms*.
    """
    rows = db.execute(
        "SELECT DISTINCT archiver, place FROM archived_segments "
        "JOIN archive_places USING (archiver) "
        f"WHERE number BETWEEN :first AND :last AND {FRESH} ORDER BY archiver",
        {"first": first, "last": last, "since": since_ms},
    )
    return tuple(Copy(archiver=archiver, place=place) for archiver, place in rows)


def forget(db: sqlite3.Connection, node_id: NodeId) -> None:
    """Forget the archive of a member that was removed: nothing reads it again."""
    for table in ("archived_segments", "archive_places"):
        db.execute(f"DELETE FROM {table} WHERE archiver = ?", (archiver_of(node_id),))


def forget_nodes(db: sqlite3.Connection) -> None:
    """Forget the archives of all nodes: they read them again and tell."""
    for table in ("archived_segments", "archive_places"):
        db.execute(f"DELETE FROM {table} WHERE archiver LIKE 'node:%'")
