# SPDX-License-Identifier: Apache-2.0
"""
Delivers the whole audit log to one channel, in order (N2).

A stream keeps no rows in the outbox. It reads the audit log after its position, which
the state records for syslog, and the file itself for files. What was sent and not
recorded is sent again. What retention has removed meanwhile, or was declared lost, is
left out, and the log of the node says so: a receiver that is down for years holds up no
retention.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.notices import Channel, ChannelKind
from sparecode_node.queries import audit, notices
from sparecode_node.queries.audit import SEQUENCE_MAX, AuditRecord
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
    """Why the last attempt failed, or else which events were left out; empty: neither."""
    _left_out: str = ""
    """In words; empty: none were, as long as this lane exists."""
    _left_out_last: int = 0
    """The last one that the log has told."""
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
                    rows=BATCH,
                )
        except MissingSegmentError as error:
            # This node fetches them from other members. Only events that no member has
            # any more are left out.
            self._interrupted(str(error))
            return False
        if not records:
            return False
        self._tell_left_out(records)
        attempt = await self.sender.send_all([each.event for each in records])
        delivered = attempt.outcome is Outcome.DELIVERED
        self.counts.count(
            self.channel.channel, delivered=delivered, number=len(records)
        )
        if not delivered:
            self._position = -1  # A file may have some of the events.
            self._interrupted(attempt.cause)
            return False
        self.last_cause, self._failures = self._left_out, 0
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

    def _tell_left_out(self, records: Sequence[AuditRecord]) -> None:
        """Log which events are missing before or between *records*: numbers have no gaps."""
        before = self._position
        for each in records:
            first, last = before + 1, each.event.sequence - 1
            before = each.event.sequence
            if first <= last and last > self._left_out_last:
                self._left_out_last = last
                self._left_out = (
                    f"events {first} to {last} are left out: retention has removed them, "
                    "or they were declared lost"
                )
                log.warning(
                    "stream_lacks_events",
                    extra={"channel": self.channel.name, "first": first, "last": last},
                )

    def _interrupted(self, cause: str) -> None:
        if self.last_cause in ("", self._left_out):
            log.warning(
                "stream_interrupted",
                extra={"channel": self.channel.name, "cause": cause},
            )
        self.last_cause = cause
        self._pause()

    def _pause(self) -> None:
        self._failures += 1
        self._paused_until_s = self.clock.monotonic_s() + wait_s(PAUSE, self._failures)
