# SPDX-License-Identifier: Apache-2.0
"""
The search index of one node: a file beside the state, which is no part of it.

It follows the audit log: each change of a user or token is an event in the same commit
(U1). So applying an entry costs nothing more, and no digest, snapshot or backup has the
index. The file may be deleted while the node is stopped: it is built again.

A query is answered by the trigrams of its words (SQLite's FTS5), without reading all
users. The result is looked up in the state, so it never shows what is not there.
Users are also found by the sound of their names.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from sparecode_node.queries import segments
from sparecode_node.queries.search_words import (
    expression_of,
    sounds_of,
    text_of,
    words_of,
)
from sparecode_node.queries.transaction import Candidates, Kind, ReadTransaction
from sparecode_node.queries.users import GROUPS

log = logging.getLogger(__name__)

T = TypeVar("T")

MATCHES_MAX: Final = 1000
"""A query with more matches needs no index: any part of the table has some."""
SMALL: Final = 2000
"""Users and tokens that are indexed at once, by the first search."""
CHUNK: Final = 200
"""Users or tokens that are read and indexed in one turn; a turn takes 10 ms or so."""
REST: Final = 3.0
"""Seconds of rest after each second of work (I12)."""
FOLLOW_MAX: Final = 20_000
"""Events that a search looks through; `run` looks through the others."""
FOLLOW_S: Final = 30.0
"""How often the index follows without a search."""
FORMAT: Final = 4
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
CREATE TABLE sounds (                -- of the names of users; see search_words.py
    sound TEXT NOT NULL,
    key TEXT NOT NULL,
    PRIMARY KEY (sound, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX sounds_of_user ON sounds (key);
CREATE TABLE position (              -- the newest event that the entries cover
    sequence INTEGER NOT NULL,
    hash BLOB NOT NULL
) STRICT;
PRAGMA user_version = {FORMAT};
"""
)

_CHANGES: Final = {
    Kind.USER: ("CreateUser", "UpdateUser", "DeleteUser"),
    Kind.TOKEN: ("EnrollToken", "DeleteToken"),
}
"""Actions after which the index may differ from the state."""

_FIELDS: Final = {
    Kind.USER: f"SELECT name_key AS key, username, display_name, {GROUPS}, email FROM users",
    Kind.TOKEN: "SELECT serial AS key, serial FROM tokens",
}
"""The searched fields, after the key."""

_NAMED: Final = 4
"""The first columns of a user have the names; the e-mail's domain is no name."""

_KEYS: Final = {Kind.USER: "name_key", Kind.TOKEN: "serial"}


@dataclass(frozen=True, slots=True)
class _Position:
    sequence: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class _Entry:
    kind: Kind
    key: str
    text: str | None
    """None: it is no longer in the state."""
    sounds: tuple[str, ...] = ()


class SearchIndex:
    """Finds users and tokens by parts of their names. Call `close` once."""

    def __init__(self, path: Path) -> None:
        """*path* may be missing; nothing is opened before it is needed."""
        self._file = _IndexFile(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._one_at_a_time = asyncio.Lock()
        self._broken = False

    async def find(
        self, transaction: ReadTransaction, kind: Kind, query: str
    ) -> Candidates:
        """
        Return the users or tokens with the words of a query.

        Without the index, all of a small state are compared; of a large one only the
        beginnings of names.
        """
        expression = expression_of(query)
        if not expression:
            return Candidates(keys=None, by_prefix=True)
        try:
            async with self._one_at_a_time:
                if not await self._follow(transaction):
                    return Candidates(keys=None, by_prefix=True)
                keys = await self._work(
                    lambda: self._file.find(kind, expression, words_of(query))
                )
        except (sqlite3.Error, OSError) as error:
            self._note(error)
            return Candidates(keys=None, by_prefix=not await _is_small(transaction))
        return Candidates(keys=keys if len(keys) <= MATCHES_MAX else None)

    async def sounding(
        self, transaction: ReadTransaction, query: str
    ) -> tuple[str, ...]:
        """Return users whose names sound like a query; none without the index."""
        sounds = sounds_of(query)
        if not sounds:
            return ()
        try:
            async with self._one_at_a_time:
                if not await self._follow(transaction):
                    return ()
                return await self._work(lambda: self._file.sounding(sounds))
        except (sqlite3.Error, OSError) as error:
            self._note(error)
            return ()

    async def run(
        self,
        transactions: Callable[[], AbstractAsyncContextManager[ReadTransaction]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Keep the index up to date without searches, and build it if it is missing."""
        while True:
            try:
                await self.catch_up(transactions, sleep)
            except (sqlite3.Error, OSError) as error:
                self._note(error)
            await sleep(FOLLOW_S)

    async def close(self) -> None:
        """Close the file after the running search."""
        self._thread.submit(self._file.close)
        await asyncio.to_thread(self._thread.shutdown)

    async def _work(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _note(self, error: Exception) -> None:
        if not self._broken:
            self._broken = True
            log.warning("search_index_unusable", extra={"cause": str(error)})

    async def catch_up(
        self,
        transactions: Callable[[], AbstractAsyncContextManager[ReadTransaction]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Make the index cover the present state. Raises `sqlite3.Error`, `OSError`."""
        while True:
            async with self._one_at_a_time, transactions() as transaction:
                position = await self._work(self._file.position)
                head = await _head(transaction)
                # An index ahead of the state is of another history: before a restore.
                ahead = position is not None and position.sequence > head.sequence
                if not ahead and await self._follow(transaction):
                    return
                following = (
                    not ahead
                    and position is not None
                    and await _is_past(transaction, position, head)
                )
                if position is not None and following:
                    step = await _event(transaction, position.sequence + FOLLOW_MAX)
                    changed = await _changes(transaction, position, step)
                    await self._work(partial(self._file.change, changed, step))
            if not following:
                await self._build(transactions, sleep)

    async def _follow(self, transaction: ReadTransaction) -> bool:
        """Index what has changed, and return whether the index covers the state."""
        position = await self._work(self._file.position)
        head = await _head(transaction)
        if position is None or not await _is_past(transaction, position, head):
            if not await _is_small(transaction):
                return False
            entries = [
                entry
                for kind in Kind
                for entry in await _entries_after(transaction, kind, "", SMALL)
            ]
            await self._work(lambda: self._file.replace(entries, head))
            return True
        if head.sequence - position.sequence > FOLLOW_MAX:
            return False
        if head.sequence > position.sequence:
            changed = await _changes(transaction, position, head)
            await self._work(lambda: self._file.change(changed, head))
        return True

    async def _build(
        self,
        transactions: Callable[[], AbstractAsyncContextManager[ReadTransaction]],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        """
        Index the whole state, in turns with rests between them.

        No transaction stays open: it would keep the state's log from being shortened.
        What changes meanwhile follows afterwards, from the events.
        """
        async with transactions() as transaction:
            begin = await _head(transaction)
        await self._work(self._file.clear)
        for kind in Kind:
            after = ""
            while True:
                began_s = asyncio.get_running_loop().time()
                async with transactions() as transaction:
                    entries = await _entries_after(transaction, kind, after, CHUNK)
                if not entries:
                    break
                after = entries[-1].key
                async with self._one_at_a_time:
                    await self._work(partial(self._file.change, entries, None))
                took_s = asyncio.get_running_loop().time() - began_s
                await sleep(REST * took_s)
        await self._work(lambda: self._file.change([], begin))


async def _head(transaction: ReadTransaction) -> _Position:
    row = await transaction.one(
        "SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1"
    )
    return _Position(row["sequence"], row["hash"]) if row else _Position(0, b"")


async def _event(transaction: ReadTransaction, sequence: int) -> _Position:
    row = await transaction.one(
        "SELECT sequence, hash FROM audit_events WHERE sequence = :sequence",
        sequence=sequence,
    )
    return _Position(row["sequence"], row["hash"]) if row else await _head(transaction)


async def _is_past(
    transaction: ReadTransaction, position: _Position, head: _Position
) -> bool:
    """Return whether the events up to the position are those of this state."""
    if position.sequence > head.sequence or not position.sequence:
        # Another search has followed a newer transaction.
        return True
    row = await transaction.one(
        "SELECT hash FROM audit_events WHERE sequence = :sequence",
        sequence=position.sequence,
    )
    if row is None or bytes(row["hash"]) != position.hash:
        return False
    # A node that was away may lack events since then, which name what has changed.
    return await segments.first_readable(transaction) <= position.sequence


async def _is_small(transaction: ReadTransaction) -> bool:
    row = await transaction.one(
        """
        SELECT (SELECT count(*) FROM (SELECT 1 FROM users LIMIT :most))
            + (SELECT count(*) FROM (SELECT 1 FROM tokens LIMIT :most)) AS number
        """,
        most=SMALL + 1,
    )
    return row is None or row["number"] <= SMALL


async def _entries_after(
    transaction: ReadTransaction, kind: Kind, after: str, most: int
) -> list[_Entry]:
    key = _KEYS[kind]
    rows = await transaction.all(
        f"{_FIELDS[kind]} WHERE {key} > :after ORDER BY {key} LIMIT :most",
        after=after,
        most=most,
    )
    return [_entry(kind, row) for row in rows]


async def _changes(
    transaction: ReadTransaction, position: _Position, until: _Position
) -> list[_Entry]:
    """Return the entries of what the events after the position have changed."""
    entries = []
    for kind, actions in _CHANGES.items():
        marks = ", ".join(f"'{each}'" for each in actions)
        rows = await transaction.all(
            f"""
            SELECT DISTINCT target FROM audit_events
            WHERE sequence > :after AND sequence <= :until
                AND action IN ({marks}) AND outcome = 'applied'
            """,
            after=position.sequence,
            until=until.sequence,
        )
        for row in rows:
            found = await transaction.one(
                f"{_FIELDS[kind]} WHERE {_KEYS[kind]} = :key", key=row["target"]
            )
            entries.append(
                _Entry(kind, row["target"], None)
                if found is None
                else _entry(kind, found)
            )
    return entries


def _entry(kind: Kind, row: sqlite3.Row) -> _Entry:
    fields = [str(each) for each in tuple(row)]
    names = " ".join(fields[1:_NAMED]) if kind is Kind.USER else ""
    return _Entry(kind, row["key"], text_of(fields[1:]), sounds_of(names))


class _IndexFile:
    """The file. All methods run in the thread of the index."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: sqlite3.Connection | None = None

    def position(self) -> _Position | None:
        """Return the event up to which the entries are complete."""
        row = self._db().execute("SELECT sequence, hash FROM position").fetchone()
        return _Position(*row) if row else None

    def find(
        self, kind: Kind, expression: str, words: Sequence[Sequence[str]]
    ) -> tuple[str, ...]:
        """Return the keys of matching entries, at most one more than `MATCHES_MAX`."""
        parts = [part for word in words for part in word]
        entries, index = f"{kind}_entries", f"{kind}_parts"
        each_word = "".join(
            f" AND ({' OR '.join([f'instr({entries}.text, ?)'] * len(word))})"
            for word in words
        )
        rows = self._db().execute(
            f"SELECT key FROM {index} JOIN {entries} ON {entries}.id = {index}.rowid "
            f"WHERE {index} MATCH ?{each_word} LIMIT ?",
            (expression, *parts, MATCHES_MAX + 1),
        )
        return tuple(str(key) for (key,) in rows)

    def sounding(self, sounds: Sequence[str]) -> tuple[str, ...]:
        """Return the keys of users with all of these sounds, at most `MATCHES_MAX`."""
        places = ", ".join("?" * len(sounds))
        rows = self._db().execute(
            f"SELECT key FROM sounds WHERE sound IN ({places}) "
            "GROUP BY key HAVING count(*) = ? LIMIT ?",
            (*sounds, len(sounds), MATCHES_MAX),
        )
        return tuple(str(key) for (key,) in rows)

    def change(self, entries: Iterable[_Entry], position: _Position | None) -> None:
        """Replace entries; None leaves the position as it is."""
        with self._transaction() as db:
            _write(db, entries)
            if position is not None:
                _set_position(db, position)

    def replace(self, entries: Iterable[_Entry], position: _Position) -> None:
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


def _write(db: sqlite3.Connection, entries: Iterable[_Entry]) -> None:
    for entry in entries:
        table = f"{entry.kind}_entries"
        db.execute(f"DELETE FROM {table} WHERE key = ?", (entry.key,))
        if entry.kind is Kind.USER:
            db.execute("DELETE FROM sounds WHERE key = ?", (entry.key,))
            db.executemany(
                "INSERT INTO sounds (sound, key) VALUES (?, ?)",
                [(sound, entry.key) for sound in entry.sounds],
            )
        if entry.text is not None:
            db.execute(
                f"INSERT INTO {table} (key, text) VALUES (?, ?)",
                (entry.key, entry.text),
            )


def _set_position(db: sqlite3.Connection, position: _Position) -> None:
    db.execute("DELETE FROM position")
    db.execute("INSERT INTO position VALUES (?, ?)", (position.sequence, position.hash))
