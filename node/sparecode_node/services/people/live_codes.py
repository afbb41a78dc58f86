# SPDX-License-Identifier: Apache-2.0
"""Counting live codes before a change of the policy is proposed (I6)."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sparecode_node.queries import live_codes
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.replication.errors import StoppingError
from sparecode_node.services.access.authorization import Session
from sparecode_node.services.context import CallContext, Deadline
from sparecode_node.services.errors import CountingError, Refused
from sparecode_node.services.proposing import Proposer
from sparecode_node.statemachine.commands.policy import CountedCodes, UpdatePolicy
from sparecode_node.statemachine.handlers.policy import USERS_ARRIVE, values_of

KEEP_S = 60.0
"""How long a count waits for its caller, whose time has ended, to repeat the call."""

REST = 1.0
"""After a part of a count, as a multiple of its duration: answers need the processors."""

ANSWER_S = 2.0
"""What is kept of a caller's time, at most, so that it hears that the count goes on."""


@dataclass(frozen=True, slots=True)
class _Count:
    """A count under one version of the policy, which decides who is the riskiest."""

    version: int
    task: asyncio.Task[CountedCodes]


class LiveCodeCounts:
    """
    Counts live codes in this node's state, beside apply, one count at a time.

    Apply would answer nobody while it counts, for seconds with ten million codes. A count
    goes on if its caller's time ends, and a repeated call takes its result: a count could
    take longer than a call may.
    """

    def __init__(
        self,
        *,
        state: LocalState,
        proposer: Proposer,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._state = state
        self._proposer = proposer
        self._sleep = sleep
        self._running: _Count | None = None
        self._is_closing = False
        self._left_s = 0.0
        """When the time of a caller ended; its count is kept from then on."""

    async def counted(
        self,
        context: CallContext,
        session: Session,
        deadline: Deadline,
        change: UpdatePolicy,
    ) -> CountedCodes | None:
        """
        Return the live codes if a change weighs them, otherwise None.

        Raises `Refused` for a session that must confirm first and while users arrive
        from another cluster, `ProposeError`, `CountingError` if the count takes longer
        than the call may, and `StoppingError` after `close`.
        """
        async with self._state.transaction() as transaction:
            weighed = await live_codes.are_weighed(
                transaction, version=change.version, values=values_of(change)
            )
        if not weighed:
            return None
        await self._proposer.confirmed(context, session, deadline)
        try:
            async with asyncio.timeout(waits_s(deadline.left_s())):
                count = await self._begun(change.version)
                await asyncio.wait([count.task])
        except TimeoutError:
            self._left_s = asyncio.get_running_loop().time()
            raise CountingError("live codes are still being counted") from None
        self._forget(count)
        if count.task.cancelled():
            raise StoppingError
        async with self._state.transaction() as transaction:
            await _refuse_arrivals(transaction)  # They may have begun since.
            return await live_codes.with_newer(transaction, count.task.result())

    async def close(self) -> None:
        """End a count that runs, and begin no other: the state cannot be closed before."""
        self._is_closing = True
        if self._running is not None:
            self._running.task.cancel()
            await asyncio.wait([self._running.task])

    async def _begun(self, version: int) -> _Count:
        """
        Return the count that runs or waits for a repeated call, or begin one.

        Raises `StoppingError`.
        """
        end_s = self._left_s + KEEP_S
        while (known := self._running) is not None:
            done = known.task.done()
            fresh = not done or asyncio.get_running_loop().time() < end_s
            if known.version == version and fresh:
                return known
            await asyncio.wait([known.task])  # Counts take a connection each.
            self._forget(known)
        if self._is_closing:
            raise StoppingError
        self._running = _Count(version, asyncio.create_task(self._count()))
        return self._running

    def _forget(self, count: _Count) -> None:
        if self._running is count:
            self._running = None

    async def _count(self) -> CountedCodes:
        async with self._state.transaction() as transaction:
            await _refuse_arrivals(transaction)
            return await live_codes.count(transaction, rest=self._rests())

    def _rests(self) -> Callable[[], Awaitable[None]]:
        """Return what rests after each part of a count that begins now."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()

        async def rest() -> None:
            nonlocal began_s
            await self._sleep(REST * (loop.time() - began_s))
            began_s = loop.time()

        return rest


async def _refuse_arrivals(transaction: ReadTransaction) -> None:
    """Raise `Refused` while users arrive: a set may have only some of its codes."""
    if await live_codes.arrive(transaction):
        raise Refused(USERS_ARRIVE)


def waits_s(left_s: float) -> float:
    """
    Return how long a caller with this time left waits for a count.

    A caller whose time has ended would not know whether the policy was changed.
    """
    return left_s - min(ANSWER_S, left_s / 4)
