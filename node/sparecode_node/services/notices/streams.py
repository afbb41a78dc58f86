# SPDX-License-Identifier: Apache-2.0
"""
Delivers the whole audit log to one channel, in order (N2).

A stream keeps no rows in the outbox. It reads the audit log after its position, which
the state records for syslog, and the file itself for files. What was sent and not
recorded is sent again.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.notices import Channel, ChannelKind
from sparecode_node.queries import audit, notices
from sparecode_node.queries.audit import SEQUENCE_MAX, AuditFilter
from sparecode_node.queries.notices import StoredNotice
from sparecode_node.queries.segments import MissingSegmentError
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import ProposeError
from sparecode_node.services.ambient import Clock
from sparecode_node.services.notices.delivery_counts import DeliveryCounts
from sparecode_node.services.notices.outcomes import (
    Attempt,
    ChannelChangedError,
    Exchange,
    Outcome,
)
from sparecode_node.services.notices.waits import PAUSE, wait_s
from sparecode_node.statemachine.commands import Command
from sparecode_node.statemachine.commands.notices import AcknowledgeNotices

log = logging.getLogger(__name__)

BATCH = 256
"""Events that are sent together."""


@runtime_checkable
class StreamSender(Protocol):
    """Sends events to one receiver, in order."""

    async def resume(self) -> int | None:
        """
        Return the last event that the receiver has; None: the state knows it.

        Raises `OSError`.
        """

    async def send_all(self, events: Sequence[AuditEvent]) -> Attempt:
        """Send events; every failure is an `Attempt`, and then any may be missing."""

    async def exchange(self, notice: StoredNotice, now_ms: int) -> Exchange:
        """Try the receiver, and return what was sent and received."""

    async def close(self) -> None:
        """Close its connections and files."""


@dataclass(slots=True, kw_only=True)
class StreamLane:
    """The deliveries of one stream, as long as its settings stay the same."""

    channel: Channel
    sender: StreamSender
    state: LocalState
    clock: Clock
    propose: Callable[[Command], Awaitable[None]]
    """Proposes a command. Raises `ProposeError` and `ChannelChangedError`."""
    counts: DeliveryCounts
    last_cause: str = ""
    """Why the last attempt failed; empty: it did not."""
    _position: int = -1
    """The last event that the receiver has; -1: not known yet."""
    _recorded: int = -1
    _paused_until_s: float = 0.0
    _failures: int = 0

    async def work(self) -> bool:
        """Take a step, and return whether there may be more to do at once."""
        try:
            return await self.step()
        except (ProposeError, ChannelChangedError) as error:
            log.debug("deliveries cannot be recorded now: %s", error)
        except Exception:
            # A bug must not stop one node after the other.
            log.exception("channel_failed", extra={"channel": self.channel.name})
            self._pause()
        return False

    async def step(self) -> bool:
        """Send some events, and return whether there may be more. Raises `ProposeError`."""
        if self.clock.monotonic_s() < self._paused_until_s:
            return False
        if self._position < 0:
            try:
                await self._begin()
            except OSError as error:
                self._interrupted(str(error))
                return False
        await self._record()
        try:
            async with self.state.transaction() as transaction:
                records = await audit.following(
                    transaction,
                    after=self._position,
                    up_to=SEQUENCE_MAX,
                    criteria=AuditFilter(),
                    rows=BATCH,
                )
        except MissingSegmentError as error:
            # This node fetches them from other members. An event is never left out.
            self._interrupted(str(error))
            return False
        if not records:
            return False
        attempt = await self.sender.send_all([each.event for each in records])
        delivered = attempt.outcome is Outcome.DELIVERED
        self.counts.count(
            self.channel.channel, delivered=delivered, number=len(records)
        )
        if not delivered:
            self._position = -1  # A file may have some of the events.
            self._interrupted(attempt.cause)
            return False
        self.last_cause, self._failures = "", 0
        self._position = records[-1].event.sequence
        await self._record()
        return len(records) == BATCH

    async def _begin(self) -> None:
        known = await self.sender.resume()
        async with self.state.transaction() as transaction:
            self._recorded = await notices.position(transaction, self.channel.channel)
        self._position = self._recorded if known is None else known

    async def _record(self) -> None:
        """Record the position in the state, so that another primary begins after it."""
        if self.channel.kind is ChannelKind.FILE or self._position <= self._recorded:
            return  # A file is this node's own, and knows its own end.
        position = self._position
        await self.propose(
            AcknowledgeNotices(
                channel=self.channel.channel,
                numbers=(position,),
                version=self.channel.version,
            )
        )
        self._recorded = position

    def _interrupted(self, cause: str) -> None:
        if not self.last_cause:
            log.warning(
                "stream_interrupted",
                extra={"channel": self.channel.name, "cause": cause},
            )
        self.last_cause = cause
        self._pause()

    def _pause(self) -> None:
        self._failures += 1
        self._paused_until_s = self.clock.monotonic_s() + wait_s(PAUSE, self._failures)
