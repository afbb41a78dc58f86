# SPDX-License-Identifier: Apache-2.0
"""
Delivers notices (N2). Every node runs this, but only the primary works.

It reads the outbox, which holds only what was committed, and never waits in an answer's
path. A delivery is acknowledged by a command, many at a time. A primary that fails
before that leaves the rest to the next one, so a notice may arrive twice, under the same
id. What was tried lately is only in memory: a new primary tries at once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sparecode_node.domain.ids import NameKey, RequestId
from sparecode_node.domain.notices import (
    GIVE_UP_MS,
    SETTLED_MAX,
    Channel,
    ChannelKind,
)
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.fault_points import Point, reach
from sparecode_node.queries import cluster, notices
from sparecode_node.queries.notices import StoredNotice
from sparecode_node.queries.state import LocalState
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.replicator import Proposal, Replicator
from sparecode_node.services.ambient import Clock, Entropy
from sparecode_node.services.notices.alarms import AlarmLinks
from sparecode_node.services.notices.delivery_counts import DeliveryCounts
from sparecode_node.services.notices.outcomes import (
    Attempt,
    ChannelChangedError,
    Outcome,
)
from sparecode_node.services.notices.senders import (
    KeyAwaitedError,
    Sender,
    UnusableError,
    open_sender,
)
from sparecode_node.services.notices.streams import StreamLane, StreamSender
from sparecode_node.services.notices.waits import (
    PAUSE,
    PAUSE_MAX_S,
    RETRY,
    wait_s,
)
from sparecode_node.services.secrets.channel_seals import ChannelSeals
from sparecode_node.statemachine.commands import Command, UnstampedCall
from sparecode_node.statemachine.commands.notices import (
    AcknowledgeNotices,
    FailNotices,
)

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""Between two searches for work."""
ATTEMPT_S = 5.0
BATCH = 128
AT_ONCE = 8
"""Requests of one channel at the same time; those about one subject follow each other."""


@dataclass(slots=True, kw_only=True)
class _Retry:
    failures: int
    due_s: float


@dataclass(slots=True, kw_only=True)
class Lane:
    """The deliveries of one channel, as long as its settings stay the same."""

    channel: Channel
    sender: Sender
    state: LocalState
    clock: Clock
    propose: Callable[[Command], Awaitable[None]]
    """Proposes a command. Raises `ProposeError` and `ChannelChangedError`."""
    counts: DeliveryCounts
    is_current: Callable[[], bool]
    """Returns whether this node still leads in the term for which it has caught up."""
    _paused_until_s: float = 0.0
    _failures: int = 0
    """Since the receiver was last reached."""
    _retries: dict[int, _Retry] = field(default_factory=dict)
    _delivered: set[int] = field(default_factory=set)
    """Delivered and not acknowledged yet."""
    last_cause: str = ""
    """Why the last attempt failed; empty: it did not."""

    async def work(self) -> bool:
        """
        Take a step, and return whether there may be more to do at once.

        A bug with one notice must not stop one primary after the other: it is logged,
        and the channel pauses.
        """
        try:
            return await self.step()
        except* (ProposeError, ChannelChangedError) as errors:
            log.debug("deliveries cannot be recorded now: %s", errors.exceptions[0])
        except* Exception:
            log.exception("channel_failed", extra={"channel": self.channel.name})
            self._failures += 1
            self._paused_until_s = self.clock.monotonic_s() + PAUSE_MAX_S
        return False

    async def step(self) -> bool:
        """
        Deliver some notices, and return whether there may be more to do at once.

        Raises `ProposeError` and `ChannelChangedError`.
        """
        await self._acknowledge()
        now_s = self.clock.monotonic_s()
        if now_s < self._paused_until_s:
            return False
        delayed = [
            number for number, retry in self._retries.items() if retry.due_s > now_s
        ]
        async with self.state.transaction() as transaction:
            batch = await notices.waiting(
                transaction,
                self.channel.channel,
                without=delayed,
                most=1 if self._failures else BATCH,
            )
        if not batch:
            return False
        lines: dict[str, list[StoredNotice]] = {}
        for each in batch:
            lines.setdefault(each.event.target, []).append(each)
        room = asyncio.Semaphore(AT_ONCE)
        failed_before = self._failures
        async with asyncio.TaskGroup() as group:
            for line in lines.values():
                group.create_task(self._deliver(line, room, failed_before))
        await self._acknowledge()
        # A primary that was deposed would read the same notices again and again.
        return self._failures == 0 and self.is_current()

    async def _deliver(
        self, line: Sequence[StoredNotice], room: asyncio.Semaphore, failed_before: int
    ) -> None:
        """Deliver the notices about one subject, one after the other."""
        for notice in line:
            async with room:
                if self._failures > failed_before:
                    return  # The receiver is down; do not wait for it again and again.
                if not self.is_current():
                    return  # Another primary may have dropped it, and told later ones.
                reach(Point.NOTICE_DELIVER)
                attempt = await self.sender.send(notice, self.clock.now_ms())
                reach(Point.NOTICE_DELIVERED)
            await self._settle(notice, attempt, failed_before)
            if attempt.outcome in (Outcome.UNREACHABLE, Outcome.GONE):
                return

    async def _settle(
        self, notice: StoredNotice, attempt: Attempt, failed_before: int
    ) -> None:
        self.last_cause = attempt.cause
        self.counts.count(
            self.channel.channel, delivered=attempt.outcome is Outcome.DELIVERED
        )
        now_s = self.clock.monotonic_s()
        overdue = self.clock.now_ms() - notice.since_ms >= GIVE_UP_MS
        match attempt.outcome:
            case Outcome.DELIVERED:
                self._delivered.add(notice.number)
                self._retries.pop(notice.number, None)
                if self._failures:
                    self._failures = 0
                    self._retries.clear()  # The receiver is back: all may be tried.
            case Outcome.REJECTED:
                self._failures = 0
                await self._fail((notice.number,), attempt.cause)
            case Outcome.REFUSED if overdue:
                await self._fail((notice.number,), attempt.cause)
            case Outcome.REFUSED:
                self._failures = 0
                before = self._retries.get(notice.number)
                failures = before.failures + 1 if before else 1
                self._retries[notice.number] = _Retry(
                    failures=failures, due_s=now_s + wait_s(RETRY, failures)
                )
            case Outcome.UNREACHABLE:
                # Requests at the same time that fail are one failure: each would double
                # the wait, to minutes after a second without an answer.
                self._failures = min(self._failures, failed_before) + 1
                self._paused_until_s = now_s + wait_s(PAUSE, self._failures)
                log.debug(
                    "channel %s cannot deliver: %s", self.channel.name, attempt.cause
                )
                if overdue:
                    await self._fail(await self._overdue(), attempt.cause)
            case Outcome.GONE:
                self._failures += 1
                await self._fail((notice.number,), attempt.cause, disable=True)

    async def _overdue(self) -> tuple[int, ...]:
        async with self.state.transaction() as transaction:
            return await notices.overdue(
                transaction,
                self.channel.channel,
                before_ms=self.clock.now_ms() - GIVE_UP_MS,
                most=SETTLED_MAX,
            )

    async def _fail(
        self, numbers: tuple[int, ...], cause: str, *, disable: bool = False
    ) -> None:
        for number in numbers:
            self._retries.pop(number, None)
        await self.propose(
            FailNotices(
                channel=self.channel.channel,
                numbers=numbers,
                cause=cause,
                disable=disable,
                version=self.channel.version,
            )
        )
        log.warning(
            "notices_not_delivered",
            extra={
                "channel": self.channel.name,
                "notices": len(numbers),
                "cause": cause,
            },
        )

    async def _acknowledge(self) -> None:
        """Let the state forget what was delivered. Raises `ProposeError`."""
        while self._delivered:
            numbers = tuple(sorted(self._delivered)[:SETTLED_MAX])
            await self.propose(
                AcknowledgeNotices(
                    channel=self.channel.channel,
                    numbers=numbers,
                    version=self.channel.version,
                )
            )
            reach(Point.NOTICE_ACKNOWLEDGED)
            self._delivered.difference_update(numbers)


class Delivery:
    """Keeps a lane for each channel while this node is the primary."""

    def __init__(
        self,
        *,
        replicator: Replicator,
        state: LocalState,
        seals: ChannelSeals,
        clock: Clock,
        entropy: Entropy,
        counts: DeliveryCounts,
        folder: Path | None = None,
        alarm_links: AlarmLinks | None = None,
    ) -> None:
        self._replicator = replicator
        self._state = state
        self._seals = seals
        self._clock = clock
        self._entropy = entropy
        self._counts = counts
        self._folder = folder
        """Where this node writes the files of channels; None: nowhere."""
        self._alarm_links = alarm_links
        self._lanes: dict[NameKey, Lane | StreamLane] = {}
        self._tasks: dict[NameKey, asyncio.Task[None]] = {}
        self._caught_up: int | None = None
        """The term for which this node has applied what earlier primaries committed."""
        self._unusable: dict[NameKey, int] = {}
        """Versions of channels that cannot be used; each was logged once."""

    async def run(self) -> None:
        """Deliver until cancelled."""
        try:
            while True:
                await self.step()
                await asyncio.sleep(LOOK_S)
        finally:
            for channel in list(self._lanes):
                await self._end(channel)

    async def step(self) -> None:
        """Begin and end lanes, so that they follow the channels in the state."""
        wanted: dict[NameKey, Channel] = {}
        leads = await self._leads()
        if leads or self._folder is not None:
            async with self._state.transaction() as transaction:
                # Until the cluster is open, an earlier one may deliver (E2).
                delivers = leads and await cluster.is_open(transaction)
                for each in await notices.channels(transaction):
                    is_file = each.kind is ChannelKind.FILE
                    here = self._folder is not None if is_file else delivers
                    if each.enabled and here:
                        wanted[each.channel] = each
        for channel, lane in list(self._lanes.items()):
            if wanted.get(channel) != lane.channel:
                await self._end(channel)
        for each in wanted.values():
            if each.channel not in self._lanes:
                await self._begin(each)

    async def _leads(self) -> bool:
        """
        Return whether this node is the primary, and has applied all that came before.

        A new primary may lack the last acknowledgements and drops. It would repeat more
        than it must, and tell notices that were dropped, after later ones. So may a node
        that leads again, if another one led for less than the time between two looks.
        """
        term = self._replicator.led_term
        if self._caught_up not in (None, term):
            self._caught_up = None  # The lanes end first: they know an earlier state.
        elif term is not None and self._caught_up is None:
            try:
                await self._replicator.read_barrier(timeout_s=ATTEMPT_S)
            except ProposeError as error:
                log.debug("no delivery before a read barrier: %s", error)
            else:
                self._caught_up = term
        return self._is_current()

    def _is_current(self) -> bool:
        caught_up = self._caught_up
        return caught_up is not None and caught_up == self._replicator.led_term

    async def _begin(self, channel: Channel) -> None:
        if self._unusable.get(channel.channel) == channel.version:
            return
        try:
            sender = await open_sender(
                channel,
                self._seals,
                node_id=self._replicator.node_id,
                folder=self._folder,
                alarm_links=self._alarm_links,
            )
        except KeyAwaitedError as error:
            log.debug("channel %s must wait for a key: %s", channel.name, error)
            return
        except UnusableError as error:
            self._unusable[channel.channel] = channel.version
            log.warning(
                "channel_unusable",
                extra={"channel": channel.name, "cause": str(error)},
            )
            return
        lane: Lane | StreamLane
        if isinstance(sender, StreamSender):
            lane = StreamLane(
                channel=channel,
                sender=sender,
                state=self._state,
                clock=self._clock,
                propose=self._propose,
                counts=self._counts,
            )
        else:
            lane = Lane(
                channel=channel,
                sender=sender,
                state=self._state,
                clock=self._clock,
                propose=self._propose,
                counts=self._counts,
                is_current=self._is_current,
            )
        self._lanes[channel.channel] = lane
        self._tasks[channel.channel] = asyncio.create_task(
            _run(lane), name=f"channel {channel.name}"
        )

    async def _end(self, channel: NameKey) -> None:
        task, lane = self._tasks.pop(channel), self._lanes.pop(channel)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await lane.sender.close()

    async def _propose(self, command: Command) -> None:
        node_id = self._replicator.node_id
        call = UnstampedCall.of_node(node_id, command, RequestId(self._entropy.uuid()))
        result = await self._replicator.propose(
            Proposal(call=call), timeout_s=ATTEMPT_S
        )
        if isinstance(result, Rejected):
            if result.reason in (Reason.VERSION, Reason.CHANNEL_UNKNOWN):
                raise ChannelChangedError(result.detail)
            # A notice that stays would be delivered again and again, without a pause.
            raise RuntimeError(result.detail)  # noqa: TRY004 - no type is wrong.


async def _run(lane: Lane | StreamLane) -> None:
    """Deliver for one channel until cancelled."""
    while True:
        if not await lane.work():
            await asyncio.sleep(LOOK_S)
