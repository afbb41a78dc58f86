# SPDX-License-Identifier: Apache-2.0
"""
The calls that wait to be forwarded to the primary, sent in few messages.

A message between two nodes costs about as much as applying a call, however little it
carries. So calls that arrive while two messages, or one with several calls, are in
flight go together into the next one, and a busy node sends hardly more messages than an
idle one.
"""

import asyncio
import collections
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import grpc
import grpc.aio

from sparecode_node.domain.ids import NodeId
from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.answers import answered, stub_of
from sparecode_node.replication.calls import peer_messages
from sparecode_node.replication.errors import (
    NoPrimaryError,
    OutcomeUnknownError,
    OverloadedError,
    ProposeError,
)
from sparecode_node.replication.replica.observer import Observer, Unobserved
from sparecode_node.replication.settings import (
    CALLS_BESIDE_MAX,
    CALLS_PER_ENTRY_MAX,
    FORWARD_BYTES_MAX,
)
from sparecode_node.statemachine.results import Result

UNDER_WAY_MAX = 2
"""Messages to one primary: one is being committed while the next one travels."""

WAITING_MAX = 4096
"""Calls for one primary; the node sheds further calls."""


_REFUSED = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.FAILED_PRECONDITION)
"""
The called node checks the caller before it proposes anything (`peer_service`).

RESOURCE_EXHAUSTED is not among them: gRPC also reports it for an answer that is too
large, and then the call has been applied.
"""


@dataclass(slots=True)
class _Waiting:
    """An encoded call, its deadline on the loop's clock, and the future of its outcome."""

    call: bytes
    tokencodes: Sequence[str]
    until: float
    outcome: "asyncio.Future[Result | ProposeError]"
    sent: bool = False


@dataclass(slots=True)
class ForwardQueue:
    """The calls of this node for one other node. Belongs to the loop."""

    channel: Callable[[], grpc.aio.Channel | None]
    """Returns the current channel to that node, if there is one."""
    observer: Observer = field(default_factory=Unobserved)
    _queue: "collections.deque[_Waiting]" = field(default_factory=collections.deque)
    _under_way: "dict[asyncio.Task[None], int]" = field(default_factory=dict)
    """The messages that are not answered, each with the number of its calls."""

    async def forward(
        self, call: bytes, tokencodes: Sequence[str], *, timeout_s: float
    ) -> Result:
        """
        Propose an encoded call on the other node.

        Raises `NotAppliedError`, `OutcomeUnknownError`.
        """
        if len(self._queue) >= WAITING_MAX:
            raise OverloadedError("too many calls wait for the primary")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(
            call, tokencodes, loop.time() + timeout_s, loop.create_future()
        )
        self._queue.append(waiting)
        # Calls that come in one turn of the loop share a message.
        loop.call_soon(self._send)
        try:
            async with asyncio.timeout(timeout_s + peer_messages.GRACE_S):
                outcome = await waiting.outcome
        except TimeoutError as error:
            if not waiting.sent:
                raise OverloadedError("the deadline passed in the queue") from error
            raise OutcomeUnknownError("the primary did not answer in time") from error
        if isinstance(outcome, ProposeError):
            raise outcome
        return outcome

    def _send(self) -> None:
        while self._may_send() and (batch := self._take()):
            task = asyncio.create_task(self._carry(batch), name="forwarding")
            self._under_way[task] = len(batch)
            task.add_done_callback(self._arrived)

    def _may_send(self) -> bool:
        """Return whether another message may leave beside those under way."""
        calls = sum(self._under_way.values())
        return len(self._under_way) < UNDER_WAY_MAX and (
            calls <= CALLS_BESIDE_MAX or len(self._queue) >= CALLS_PER_ENTRY_MAX
        )

    def _arrived(self, task: "asyncio.Task[None]") -> None:
        self._under_way.pop(task)
        self._send()

    def _take(self) -> list[_Waiting]:
        """Return the calls for one message: as many as an entry of the log takes."""
        batch: list[_Waiting] = []
        size = 0
        while self._queue and len(batch) < CALLS_PER_ENTRY_MAX:
            waiting = self._queue[0]
            size += len(waiting.call)
            if batch and size > FORWARD_BYTES_MAX:
                break
            self._queue.popleft()
            if not waiting.outcome.done():  # Otherwise its caller has given up.
                waiting.sent = True
                self.observer.forwarding()
                batch.append(waiting)
        return batch

    async def _carry(self, batch: Sequence[_Waiting]) -> None:
        """Send one message, and set the outcome of each call in it."""
        outcomes: Sequence[Result | ProposeError]
        try:
            outcomes = await self._ask(batch)
        except ProposeError as error:
            outcomes = [error] * len(batch)
        reach(Point.FORWARD_ANSWERED)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if not waiting.outcome.done():
                waiting.outcome.set_result(outcome)

    async def _ask(self, batch: Sequence[_Waiting]) -> Sequence[Result | ProposeError]:
        channel = self.channel()
        ready = grpc.ChannelConnectivity.READY
        if channel is None or channel.get_state(try_to_connect=True) is not ready:
            # No call was sent, so no call was applied.
            raise NoPrimaryError("the primary cannot be reached")
        now = asyncio.get_running_loop().time()
        request, *also = (
            peer_messages.request_of(
                each.call, each.tokencodes, timeout_s=each.until - now
            )
            for each in batch
        )
        request.also.extend(also)
        longest_s = max(each.until for each in batch) - now
        reach(Point.FORWARD)
        stub = stub_of(channel)
        try:
            response = await answered(
                stub.Forward(request, timeout=longest_s + peer_messages.GRACE_S)
            )
        except grpc.aio.AioRpcError as error:
            if error.code() in _REFUSED:
                raise NoPrimaryError(
                    "the primary refuses calls of this node"
                ) from error
            raise OutcomeUnknownError(
                f"the primary did not answer: {error.code().name}"
            ) from error
        outcomes = [
            peer_messages.outcome_of(each) for each in (response, *response.also)
        ]
        not_taken = NoPrimaryError("the primary took only one call")
        return outcomes + [not_taken] * (len(batch) - len(outcomes))


@dataclass(slots=True)
class ForwardQueues:
    """One queue for each node that was the primary since the start."""

    channel: Callable[[NodeId], grpc.aio.Channel | None]
    observer: Observer = field(default_factory=Unobserved)
    _queues: dict[NodeId, ForwardQueue] = field(default_factory=dict)

    def to(self, primary: NodeId) -> ForwardQueue:
        """Return the queue for that node."""
        if primary not in self._queues:
            channel = functools.partial(self.channel, primary)
            self._queues[primary] = ForwardQueue(channel, self.observer)
        return self._queues[primary]
