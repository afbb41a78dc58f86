# SPDX-License-Identifier: Apache-2.0
"""
Batched reads: small reads that wait at the same time share one transaction.

Every authentication reads the parameters of a passcode. Waking a thread for each
statement would cost more than SQLite does.
"""

import asyncio
import collections
import contextlib
import sqlite3
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from sparecode_node.queries.transaction import ReadTransaction, Value, applied_index

T = TypeVar("T")

Query = Callable[[ReadTransaction], Coroutine[Any, Any, T]]
"""A query that reads from its transaction and awaits nothing else."""


@dataclass(frozen=True, slots=True)
class _Request:
    query: Query[Any]
    future: "asyncio.Future[Any]"


class _Direct:
    """A connection that answers without waiting: queries run in its own thread."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    async def execute_fetchall(
        self, sql: str, parameters: dict[str, Value] | None = None
    ) -> Iterable[sqlite3.Row]:
        """Return all rows."""
        return self._db.execute(sql, parameters or {}).fetchall()


class BatchedReads:
    """Batches the reads of one event loop. Call `close` once."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Take over a read-only connection that any thread may use."""
        self._db = db
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="small-reads")
        self._waiting: collections.deque[_Request] = collections.deque()
        self._busy = False

    async def read(self, query: Query[T]) -> T:
        """
        Return the result of *query* on the current state, or a slightly later one.

        A query that arrives while a batch runs goes into the next batch.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(query, future))
        self._answer_next()
        return await future

    def _answer_next(self) -> None:
        if self._busy or not self._waiting:
            return
        self._busy = True
        requests, self._waiting = self._waiting, collections.deque()
        self._thread.submit(self._answer, requests, asyncio.get_running_loop())

    def _answer(
        self, requests: Iterable[_Request], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Run in the thread."""
        outcomes: list[object] = []
        try:
            self._db.execute("BEGIN")
            try:
                transaction = ReadTransaction(
                    connection=_Direct(self._db),
                    applied_index=applied_index(self._db),
                )
                outcomes.extend(_finished(each.query, transaction) for each in requests)
            finally:
                self._db.rollback()
        except sqlite3.Error as error:
            outcomes = [error for _ in requests]
        with contextlib.suppress(RuntimeError):  # The loop is closed: no caller waits.
            loop.call_soon_threadsafe(self._deliver, requests, outcomes)

    def _deliver(
        self, requests: Iterable[_Request], outcomes: Iterable[object]
    ) -> None:
        self._busy = False
        self._answer_next()
        for each, outcome in zip(requests, outcomes, strict=True):
            if each.future.done():  # The caller was canceled.
                continue
            if isinstance(outcome, Exception):
                each.future.set_exception(outcome)
            else:
                each.future.set_result(outcome)

    async def close(self) -> None:
        """Close the connection after the running reads."""
        await asyncio.to_thread(self._thread.shutdown)
        self._db.close()


def _finished(query: Query[T], transaction: ReadTransaction) -> T | Exception:
    """Run a query to its end in this thread. Return its error, for its caller only."""
    running = query(transaction)
    try:
        running.send(None)
    except StopIteration as ended:
        answer: T = ended.value
        return answer
    except Exception as error:  # noqa: BLE001 - the caller gets it.
        return error
    running.close()
    return TypeError("a batched read awaits something other than its transaction")
