# SPDX-License-Identifier: Apache-2.0
"""Up to where to read: what a node asks the primary, and tells as the primary."""

import asyncio
from collections.abc import Callable

from sparecode_node.replication.calls import peer_messages
from sparecode_node.replication.calls.primary_contact import ATTEMPT_S, PrimaryContact
from sparecode_node.replication.calls.waiters import Shared
from sparecode_node.replication.errors import (
    NoPrimaryError,
    NoQuorumError,
    NotAppliedError,
    OutcomeUnknownError,
    OverloadedError,
)
from sparecode_node.replication.raft.read_index import Word
from sparecode_node.statemachine.results import BarrierPassed

BARRIER_S = 5.0
"""Of one barrier; its callers may give up earlier."""


class ReadPoints:
    """Finds where to read, once for all who ask meanwhile. Lives in the loop."""

    def __init__(self, contact: PrimaryContact, *, now_ms: Callable[[], int]) -> None:
        """*now_ms* is this node's clock."""
        self._contact = contact
        self._now_ms = now_ms
        self._barrier = Shared(self._find, name="read barrier")

    async def passed(self, *, timeout_s: float) -> BarrierPassed:
        """Return where all is that was committed before the call. Raises `ProposeError`."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._barrier.result()
        except TimeoutError as error:
            raise NoQuorumError("no quorum has confirmed a primary in time") from error

    async def _find(self) -> BarrierPassed:
        """Ask the primary where to read, and the next one if it is none any more."""
        deadline = asyncio.get_running_loop().time() + BARRIER_S
        while True:
            try:
                return await self._ask(ATTEMPT_S)
            except OverloadedError:
                raise
            except NotAppliedError:
                if not await self._contact.news(deadline):
                    raise

    async def _ask(self, timeout_s: float) -> BarrierPassed:
        primary = self._contact.primary()
        if primary is None:
            raise NoPrimaryError("no primary is known here")
        if primary == self._contact.node_id:
            return await self.own(timeout_s)
        channel = self._contact.way_to(primary)
        term = await self._own_term(timeout_s)
        return await peer_messages.ask_read_index(
            channel, term=term, timeout_s=timeout_s
        )

    async def _own_term(self, timeout_s: float) -> int:
        """
        Return the term that this node is in now, after its callers have asked.

        Only the engine's thread knows: what it has published may be of before a vote.
        """
        try:
            return await self._contact.engine.run(
                lambda replica: replica.term(), timeout_s=timeout_s
            )
        except OutcomeUnknownError as error:
            raise NoPrimaryError("this node is held up") from error

    async def own(self, timeout_s: float, word: Word | None = None) -> BarrierPassed:
        """
        Return where to read, if this node leads. Raises `NotAppliedError`.

        *word* is that of the member for whose callers it is.
        """
        try:
            point = await self._contact.engine.read(timeout_s=timeout_s, word=word)
        except OutcomeUnknownError as error:
            raise NoPrimaryError("the primary is held up") from error
        # Never before what the state machine has seen (T5): calls that are
        # prepared with this time must not look older than it.
        return BarrierPassed(
            index=point.index, at_ms=max(self._now_ms(), point.state_ms)
        )

    async def stop(self) -> None:
        """End what is under way; callers have their own deadlines."""
        await self._barrier.stop()
