# SPDX-License-Identifier: Apache-2.0
"""The file of the search index: entries of users and tokens with their trigrams."""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sparecode_node.queries.search_words import HeardWord
from sparecode_node.queries.transaction import Kind

MATCHES_MAX: Final = 1000
"""A query with more matches needs no index: any part of the table has some."""
FORMAT: Final = 5
"""Raise it to have the index built again, as after a change of `search_words`."""


def _tables(kind: Kind) -> str:
    """Return the tables of one kind: a search of one must not read matches of another."""
    return f"""
CREATE TABLE {kind}_entries (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,        -- name key of a user, serial of a token
    text TEXT NOT NULL               -- see search_words.py
) STRICT;
CREATE VIRTUAL TABLE {kind}_parts USING fts5(
    text, content='{kind}_entries', content_rowid='id', tokenize='trigram',
    detail='none', columnsize=0
);
CREATE TRIGGER {kind}_added AFTER INSERT ON {kind}_entries BEGIN
    INSERT INTO {kind}_parts (rowid, text) VALUES (new.id, new.text);
END;
CREATE TRIGGER {kind}_removed AFTER DELETE ON {kind}_entries BEGIN
    INSERT INTO {kind}_parts ({kind}_parts, rowid, text)
    VALUES ('delete', old.id, old.text);
END;
"""


_TABLES: Final = (
    "".join(_tables(kind) for kind in Kind)
    + f"""
CREATE TABLE position (              -- the newest event that the entries cover
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL
) STRICT;
PRAGMA user_version = {FORMAT};
"""
)


@dataclass(frozen=True, slots=True)
class Position:
    """An event of the audit log, with its hash."""

    sequence: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A user or token, with the text in which words are looked for."""

    kind: Kind
    key: str
    text: str | None
    """None: it is no longer in the state."""


class IndexFile:
    """The file. All methods run in the thread of the index."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: sqlite3.Connection | None = None

    def position(self) -> Position | None:
        """Return the event up to which the entries are complete."""
        row = self._db().execute("SELECT sequence, hash FROM position").fetchone()
        return Position(*row) if row else None

    def find(
        self, kind: Kind, expression: str, words: Sequence[Sequence[str]]
    ) -> tuple[str, ...]:
        """Return the keys of matching entries, at most one more than `MATCHES_MAX`."""
        condition, parts = _all_words(kind, words)
        return self._matches(kind, expression, condition, parts)

    def sounding(self, expression: str, words: Sequence[HeardWord]) -> tuple[str, ...]:
        """Return the keys of users who match by the sound of at least one word."""
        by_letters, parts = _all_words(Kind.USER, [word.parts for word in words])
        conditions, values = [f"NOT ({by_letters})"], [*parts]
        for word in words:
            one, its_parts = _all_words(Kind.USER, [word.parts])
            every, its_sounds = _all_words(Kind.USER, [[each] for each in word.sounds])
            conditions.append(f"({one} OR {every})" if word.sounds else one)
            values += [*its_parts, *its_sounds]
        return self._matches(Kind.USER, expression, " AND ".join(conditions), values)

    def _matches(
        self, kind: Kind, expression: str, condition: str, values: Sequence[str]
    ) -> tuple[str, ...]:
        entries, index = f"{kind}_entries", f"{kind}_parts"
        rows = self._db().execute(
            f"SELECT key FROM {index} JOIN {entries} ON {entries}.id = {index}.rowid "
            f"WHERE {index} MATCH ? AND {condition} LIMIT ?",
            (expression, *values, MATCHES_MAX + 1),
        )
        return tuple(str(key) for (key,) in rows)

    def change(self, entries: Iterable[Entry], position: Position | None) -> None:
        """Replace entries; None leaves the position as it is."""
        with self._transaction() as db:
            _write(db, entries)
            if position is not None:
                _set_position(db, position)

    def replace(self, entries: Iterable[Entry], position: Position) -> None:
        """Replace all entries."""
        self.clear()
        self.change(entries, position)

    def clear(self) -> None:
        """Delete the file and begin another one."""
        self.close()
        self._delete()

    def close(self) -> None:
        """Close the file, which may be used again."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._db()
        db.execute("BEGIN")
        try:
            yield db
        except BaseException:
            db.rollback()
            raise
        db.commit()

    def _db(self) -> sqlite3.Connection:
        if self._opened is None:
            try:
                self._opened = self._open()
            except sqlite3.DatabaseError:  # Not ours, or damaged.
                self._delete()
                self._opened = self._open()
        return self._opened

    def _open(self) -> sqlite3.Connection:
        # SQLite gives its other files the mode of the first one.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA secure_delete = ON")  # Of deleted users, no text stays.
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                db.executescript(f"BEGIN;{_TABLES}COMMIT;")
        except BaseException:
            db.close()
            raise
        if version not in (0, FORMAT):
            db.close()
            raise sqlite3.DatabaseError("the index has another format")
        return db

    def _delete(self) -> None:
        for end in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + end).unlink(missing_ok=True)


def _all_words(
    kind: Kind, words: Sequence[Sequence[str]]
) -> tuple[str, tuple[str, ...]]:
    """Return a condition on entries, that one part of each word is in the text."""
    instr = f"instr({kind}_entries.text, ?)"
    each_word = [f"({' OR '.join([instr] * len(word))})" for word in words]
    return f"({' AND '.join(each_word)})", tuple(
        part for word in words for part in word
    )


def _write(db: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    for entry in entries:
        table = f"{entry.kind}_entries"
        db.execute(f"DELETE FROM {table} WHERE key = ?", (entry.key,))
        if entry.text is not None:
            db.execute(
                f"INSERT INTO {table} (key, text) VALUES (?, ?)",
                (entry.key, entry.text),
            )


def _set_position(db: sqlite3.Connection, position: Position) -> None:
    db.execute("DELETE FROM position")
    db.execute("INSERT INTO position VALUES (?, ?)", (position.sequence, position.hash))
