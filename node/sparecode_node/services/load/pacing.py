# SPDX-License-Identifier: Apache-2.0
"""How much of a node's time work that nobody waits for may take (I12)."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

from sparecode_node.services.ambient import Clock

REST = 3.0
"""For each second of work so many without: a quarter of the time is the most."""
REST_S_MAX = 1.0
"""
A turn that waited for a new primary has cost nobody anything meanwhile.

A commit that takes a third of this has had its whole rest; a slower one has less.
"""


class Turn:
    """One piece of work: how long it has taken is what its rest is measured by."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s = clock.monotonic_s()
        self._aside_s = 0.0

    @contextlib.contextmanager
    def aside(self) -> Generator[None, None, None]:
        """Do something that does not count, as it gives way to others by itself."""
        began_s = self._clock.monotonic_s()
        try:
            yield
        finally:
            self._aside_s += self._clock.monotonic_s() - began_s

    def took_s(self) -> float:
        """Return how long it has taken until now, without what was aside."""
        return self._clock.monotonic_s() - self._began_s - self._aside_s


class Pace:
    """
    Gives turns, one at a time; after each comes a rest that is longer than the turn.

    Bulk issues, imports and sealing anew share their node's. A commit costs every
    node, and holds back those that are asked for meanwhile. A cluster that is busy
    takes longer for a turn, so that the next comes later: nobody has to say how fast
    is slow enough.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._one_at_a_time = asyncio.Lock()
        self._rested_s = 0.0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncGenerator[Turn, None]:
        """Wait until it is time, and have the turn."""
        async with self._one_at_a_time:
            left_s = self._rested_s - self._clock.monotonic_s()
            if left_s > 0:
                await self._sleep(left_s)
            turn = Turn(self._clock)
            try:
                yield turn
            finally:
                rest_s = min(REST * turn.took_s(), REST_S_MAX)
                self._rested_s = self._clock.monotonic_s() + rest_s
