# SPDX-License-Identifier: Apache-2.0
"""
The search index of one node: a file beside the state, which is no part of it.

It follows the audit log: each change of a user or token is an event in the same commit
(U1). So applying an entry costs nothing more, and no digest, snapshot or backup has the
index. The file may be deleted while the node is stopped: it is built again.

A query is answered by the trigrams of its words (SQLite's FTS5), without reading all
users. The result is looked up in the state, so it never shows what is not there.
Users are also found by the sound of their names, word by word: `müller acc` finds Peter
Möller in accounting, with one word by its sound and one by its letters.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from sparecode_node.queries import segments
from sparecode_node.queries.search_file import (
    MATCHES_MAX,
    Entry,
    IndexFile,
    Position,
)
from sparecode_node.queries.search_words import (
    expression_of,
    heard_expression_of,
    heard_words_of,
    sounds_of,
    text_of,
    words_of,
)
from sparecode_node.queries.transaction import Candidates, Kind, ReadTransaction
from sparecode_node.queries.users import GROUPS

log = logging.getLogger(__name__)

T = TypeVar("T")

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
_CHANGES: Final = {
    Kind.USER: ("CreateUser", "UpdateUser", "DeleteUser", "USER_ARRIVED", "USER_GONE"),
    Kind.TOKEN: ("EnrollToken", "DeleteToken", "TOKEN_ARRIVED", "TOKEN_GONE"),
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


class SearchIndex:
    """Finds users and tokens by parts of their names. Call `close` once."""

    def __init__(self, path: Path) -> None:
        """*path* may be missing; nothing is opened before it is needed."""
        self._file = IndexFile(path)
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
        """
        Return users who match a query by sound; none without the index.

        Each word matches by its letters or its sound. Users with the letters of all words
        are not among them.
        """
        expression = heard_expression_of(query)
        if not expression:
            return ()
        try:
            async with self._one_at_a_time:
                if not await self._follow(transaction):
                    return ()
                return await self._work(
                    lambda: self._file.sounding(expression, heard_words_of(query))
                )
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


async def _head(transaction: ReadTransaction) -> Position:
    row = await transaction.one(
        "SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1"
    )
    return Position(row["sequence"], row["hash"]) if row else Position(0, b"")


async def _event(transaction: ReadTransaction, sequence: int) -> Position:
    row = await transaction.one(
        "SELECT sequence, hash FROM audit_events WHERE sequence = :sequence",
        sequence=sequence,
    )
    return Position(row["sequence"], row["hash"]) if row else await _head(transaction)


async def _is_past(
    transaction: ReadTransaction, position: Position, head: Position
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
) -> list[Entry]:
    key = _KEYS[kind]
    rows = await transaction.all(
        f"{_FIELDS[kind]} WHERE {key} > :after ORDER BY {key} LIMIT :most",
        after=after,
        most=most,
    )
    return [_entry(kind, row) for row in rows]


async def _changes(
    transaction: ReadTransaction, position: Position, until: Position
) -> list[Entry]:
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
                Entry(kind, row["target"], None)
                if found is None
                else _entry(kind, found)
            )
    return entries


def _entry(kind: Kind, row: sqlite3.Row) -> Entry:
    fields = [str(each) for each in tuple(row)]
    names = " ".join(fields[1:_NAMED]) if kind is Kind.USER else ""
    return Entry(kind, row["key"], text_of(fields[1:]) + "".join(sounds_of(names)))
