# SPDX-License-Identifier: Apache-2.0
"""
Sealed segments that reads wait for (U1).

A node that joined lacks older audit events for hours. A read that needs some of them
waits until they were fetched, before all others.
"""

import asyncio
import contextlib


class WantedSegments:
    """Reads that wait, by the number of their segment. For one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[asyncio.Future[bool]]] = {}
        self._asked = asyncio.Event()

    def __contains__(self, number: int) -> bool:
        """Return whether a read waits for a segment."""
        return number in self._waiting

    async def wait_for(self, number: int, *, timeout_s: float) -> bool:
        """Return whether a segment was fetched in time."""
        told = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(number, [])
        waiting.append(told)
        self._asked.set()
        try:
            async with asyncio.timeout(timeout_s):
                return bool(await told)
        except TimeoutError:
            return False
        finally:
            waiting.remove(told)
            if not waiting and self._waiting.get(number) is waiting:
                del self._waiting[number]

    def tell(self, number: int, *, fetched: bool) -> None:
        """Let the reads of a segment go on."""
        for told in self._waiting.get(number, ()):
            if not told.done():
                told.set_result(fetched)

    async def sleep(self, seconds: float) -> None:
        """Sleep until a read waits, but at most some seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        self._asked.clear()
