# SPDX-License-Identifier: Apache-2.0
"""The index to read at: asking the primary, and answering as the primary."""

import asyncio
from collections.abc import Callable

from sparecode_node.domain.ids import NodeId
from sparecode_node.fault_points import Point, reach
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

REPLACED = "another node has become the primary"

BARRIER_S = 5.0
"""Of one barrier; its callers may give up earlier."""


class ReadPoints:
    """Finds the index to read at, once for all concurrent callers. Lives in the loop."""

    def __init__(self, contact: PrimaryContact, *, now_ms: Callable[[], int]) -> None:
        """*now_ms* is this node's clock."""
        self._contact = contact
        self._now_ms = now_ms
        self._barrier = Shared(self._find, name="read barrier")
        self._asked: NodeId | None = None
        """The other node that is being asked, if any."""
        self._until: asyncio.Timeout | None = None
        """When it is not asked any more: when it does not lead any more."""

    async def passed(self, *, timeout_s: float) -> BarrierPassed:
        """
        Return an index that covers everything committed before the call.

        Raises `ProposeError`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                return await self._barrier.result()
        except TimeoutError as error:
            raise NoQuorumError("no quorum has confirmed a primary in time") from error

    def take_primary(self, primary: NodeId | None) -> None:
        """Learn who leads: a node that does not any more may be dead, and never answer."""
        if self._until is not None and primary not in (None, self._asked):
            until, self._until = self._until, None
            until.reschedule(asyncio.get_running_loop().time())

    async def _find(self) -> BarrierPassed:
        """Ask the primary; if it does not lead any more, ask the next one."""
        deadline = asyncio.get_running_loop().time() + BARRIER_S
        async with self._contact.quorum_wait.limited():
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
        term = await self._own_term(timeout_s)
        if self._contact.primary() not in (None, primary):
            raise NoPrimaryError(REPLACED)
        # After the wait: a renewed certificate closes the channels that there were.
        channel = self._contact.way_to(primary)
        self._asked = primary
        try:
            async with asyncio.timeout(None) as self._until:
                point = await peer_messages.ask_read_index(
                    channel, term=term, timeout_s=timeout_s
                )
        except TimeoutError as error:
            raise NoPrimaryError(REPLACED) from error
        finally:
            self._until = None
        reach(Point.READ_POINT)
        return point

    async def _own_term(self, timeout_s: float) -> int:
        """
        Return the current term of this node, after its callers have asked.

        Only the engine's thread knows it: a published status may be older than a vote.
        """
        try:
            return await self._contact.engine.run(
                lambda replica: replica.term(), timeout_s=timeout_s
            )
        except OutcomeUnknownError as error:
            raise NoPrimaryError(
                "this node's engine does not answer in time"
            ) from error

    async def own(self, timeout_s: float, word: Word | None = None) -> BarrierPassed:
        """
        Return the index to read at, if this node leads. Raises `NotAppliedError`.

        *word* comes from the member that reads.
        """
        try:
            point = await self._contact.engine.read(timeout_s=timeout_s, word=word)
        except OutcomeUnknownError as error:
            raise NoPrimaryError(
                "the primary's engine does not answer in time"
            ) from error
        # Never before the state machine's time (T5): calls that are prepared with
        # this time must not look older than the state.
        return BarrierPassed(
            index=point.index, at_ms=max(self._now_ms(), point.state_ms)
        )

    async def stop(self) -> None:
        """Cancel the work in progress; callers have their own deadlines."""
        await self._barrier.stop()
