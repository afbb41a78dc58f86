# SPDX-License-Identifier: Apache-2.0
"""The pace of background work: how much of a node's time it may take (I12)."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

from sparecode_node.services.ambient import Clock

REST = 3.0
"""Seconds of rest after each second of work: work takes at most a quarter of the time."""
REST_S_MAX = 1.0
"""
The longest rest. A turn that waited for a new primary did not use the node meanwhile.

A turn of up to a third of this rests in full; a longer one rests less than its share.
"""


class Turn:
    """One piece of work. Its duration determines the rest after it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_s = clock.monotonic_s()
        self._aside_s = 0.0

    @contextlib.contextmanager
    def aside(self) -> Generator[None, None, None]:
        """Exclude work that yields to others by itself from the duration."""
        began_s = self._clock.monotonic_s()
        try:
            yield
        finally:
            self._aside_s += self._clock.monotonic_s() - began_s

    def took_s(self) -> float:
        """Return the duration so far, without the excluded work."""
        return self._clock.monotonic_s() - self._began_s - self._aside_s


class Pace:
    """
    Gives turns, one at a time. After each comes a rest that is longer than the turn.

    Bulk issues, imports and resealing share the pace of their node. A commit costs
    every node and delays the calls that arrive meanwhile. On a busy cluster a turn
    takes longer, so the next one starts later: the pace needs no setting.
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
        """Wait for the turn, and take it."""
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
