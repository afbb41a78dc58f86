# SPDX-License-Identifier: Apache-2.0
"""Waiting in the loop: for an applied index, and for work that callers share."""

import asyncio
import heapq
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from sparecode_node.replication.errors import NoQuorumError

T = TypeVar("T")


@dataclass(slots=True)
class AppliedWaiters:
    """Tasks that wait for an index to be applied."""

    applied: int = 0
    _waiters: list[tuple[int, int, asyncio.Future[None]]] = field(default_factory=list)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)
    _gone: int = 0
    """Number of waiters that have given up."""

    def advance(self, applied: int) -> None:
        """Wake the tasks whose index is applied."""
        self.applied = max(self.applied, applied)
        while self._waiters and self._waiters[0][0] <= self.applied:
            _, _, future = heapq.heappop(self._waiters)
            if future.done():
                self._gone -= 1
            else:
                future.set_result(None)

    async def wait(self, index: int, *, timeout_s: float) -> None:
        """Return when *index* is applied. Raises `NoQuorumError`."""
        if index <= self.applied:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (index, next(self._order), future))
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError as error:
            raise NoQuorumError(
                f"entry {index} did not arrive here in time; the last one is {self.applied}"
            ) from error
        finally:
            if future.cancelled():
                self._forget_gone()

    def _forget_gone(self) -> None:
        """
        Drop waiters that have given up once they are the majority.

        There may be no new entry for a long time.
        """
        self._gone += 1
        if 2 * self._gone > len(self._waiters):
            self._waiters = [each for each in self._waiters if not each[2].done()]
            heapq.heapify(self._waiters)
            self._gone = 0


class Shared(Generic[T]):
    """
    Lets concurrent callers share one piece of work: a barrier, a digest.

    A caller may join only work that has not begun: it must cover what was committed
    before the call. So one piece of work is in progress, and all later callers wait for
    the next.
    """

    def __init__(self, find: Callable[[], Awaitable[T]], *, name: str) -> None:
        self._find = find
        self._name = name
        self._next: asyncio.Future[T] | None = None
        self._task: asyncio.Task[None] | None = None

    async def result(self) -> T:
        """Return the result of work that begins after this call."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        mine = self._next
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=self._name)
        return await asyncio.shield(mine)

    async def _run(self) -> None:
        try:
            while (current := self._next) is not None:
                self._next = None  # From here on no caller may join.
                try:
                    current.set_result(await self._find())
                except Exception as error:  # noqa: BLE001 - the callers get it.
                    current.set_exception(error)
                    current.exception()  # All callers may have given up by now.
        finally:
            self._task = None

    async def stop(self) -> None:
        """Cancel the work in progress; callers have their own deadlines."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
