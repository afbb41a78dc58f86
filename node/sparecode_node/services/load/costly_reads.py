# SPDX-License-Identifier: Apache-2.0
"""Reads that take a node seconds: digests of the state, and the audit log's hash chain."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

from sparecode_node.domain.ids import AdministratorName
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.services.context import Deadline
from sparecode_node.services.load.rates import Rates

WAITING_MAX = 4
"""Costly reads that run or wait on a node; further ones are shed."""


class CostlyReads:
    """Lets costly reads run one at a time on a node, with a rate of their own (Q3)."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def turn(
        self, administrator: AdministratorName, deadline: Deadline
    ) -> AsyncGenerator[None, None]:
        """
        Wait for the turn of an administrator's read, and take it.

        Raises `RateError`, and `OverloadedError` if too many wait or time runs out.
        """
        self._rates.costly_read(administrator=administrator)
        if self._waiting >= WAITING_MAX:
            raise OverloadedError("too many costly reads wait on this node")
        self._waiting += 1
        try:
            try:
                async with asyncio.timeout(deadline.left_s()):
                    await self._one_at_a_time.acquire()
            except TimeoutError:
                raise OverloadedError("the deadline passed in the queue") from None
            try:
                yield
            finally:
                self._one_at_a_time.release()
        finally:
            self._waiting -= 1
