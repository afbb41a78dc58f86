# SPDX-License-Identifier: Apache-2.0
"""
Notices a connection to a member that carries nothing any more, whatever gRPC thinks.

TCP may acknowledge bytes that never reach the member: a proxy is stuck, or the length of
a TLS record is damaged and the member waits for the rest. gRPC notices that only when
its own ping stays unanswered. An election must not wait for that.

So each connection carries a ping of ours, again and again. The answer comes from the
member's event loop over the same connection. A connection whose ping stays unanswered is
suspect, and another one is opened beside it. Whichever answers first is kept: a member
that is only slow answers the earlier ping first, and loses nothing.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import grpc
import grpc.aio

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.answers import answered, stub_of

log = logging.getLogger(__name__)

DIAL_S = 1.0
"""
For another connection to be open and to answer. Then the next one is dialed: this one
may be dead, too.
"""

RETRY_S = 0.1
"""After another connection that has failed at once."""

SLOWNESS_MAX = 8
"""
A network or a member may be slow for a while: full of a snapshot, or short of processor
time. Another connection would be no faster. So each suspicion doubles the wait for the
next answer, up to this many times, until an answer comes in time again.
"""

_UNANSWERED = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
}
"""
gRPC itself reports these. Every other status comes from the member: release 0.1.0
answers `UNIMPLEMENTED`.
"""


async def ping(channel: grpc.aio.Channel, *, timeout_s: float | None = None) -> bool:
    """Return whether the member answers over this channel, once it is connected."""
    request = peers_pb2.PingRequest()
    try:
        await answered(
            stub_of(channel).Ping(request, timeout=timeout_s, wait_for_ready=True)
        )
    except grpc.aio.AioRpcError as error:
        return error.code() not in _UNANSWERED
    return True


@dataclass(slots=True, kw_only=True)
class LinkWatch:
    """Watches the connection to one member. `run` it until it is cancelled."""

    peer: NodeId
    channel: Callable[[], grpc.aio.Channel]
    """Returns the current channel to the member."""
    dial: Callable[[], grpc.aio.Channel]
    """Opens another channel to the member."""
    replace: Callable[[grpc.aio.Channel, grpc.aio.Channel], Awaitable[bool]]
    """
    Replaces a dead channel by another one. Returns False if it is not the current one.
    """
    patience_s: float
    """A ping that is unanswered for this time makes the connection suspect."""
    _slowness: int = 1
    """How many times as long to wait, because the last pings were answered late."""

    async def run(self) -> None:
        """Ping, and replace connections that do not answer."""
        while True:
            await asyncio.sleep(self.patience_s / 2)
            channel = self.channel()
            if channel.get_state() is not grpc.ChannelConnectivity.READY:
                continue  # gRPC knows, and connects again.
            try:
                await self._check(channel)
            except Exception:
                # It concerns one ping only. If this loop ended, a later death of the
                # connection would not be noticed.
                log.exception("ping_failed", extra={"peer": self.peer})

    async def _check(self, channel: grpc.aio.Channel) -> None:
        """Return when this channel has answered, has failed, or is replaced."""
        answer = asyncio.create_task(ping(channel), name=f"ping of {self.peer}")
        try:
            if await self._in_time(answer):
                self._slowness = 1
            elif not answer.done():
                self._slowness = min(2 * self._slowness, SLOWNESS_MAX)
            while not answer.done() and not await self._is_replaced(channel, answer):
                await asyncio.wait({answer}, timeout=RETRY_S)
            if answer.done():
                answer.result()
        finally:
            answer.cancel()

    async def _in_time(self, answer: "asyncio.Task[bool]") -> bool:
        """Return whether the ping is answered in time. Wait longer if not, while slow."""
        # In two halves: the answer may have come while this event loop was held up.
        for _ in range(2):
            await asyncio.wait({answer}, timeout=self.patience_s / 2)
        in_time = answer.done()
        if not in_time and self._slowness > 1:
            await asyncio.wait({answer}, timeout=(self._slowness - 1) * self.patience_s)
        return in_time

    async def _is_replaced(
        self, suspect: grpc.aio.Channel, answer: "asyncio.Task[bool]"
    ) -> bool:
        """Open another connection, and replace the suspect one if it answers later."""
        other, replaced = self.dial(), False
        other_answer = asyncio.create_task(
            ping(other, timeout_s=DIAL_S), name=f"ping of {self.peer}, dialed again"
        )
        try:
            await asyncio.wait(
                {answer, other_answer}, return_when=asyncio.FIRST_COMPLETED
            )
            if not answer.done() and other_answer.result():
                log.warning("link_replaced", extra={"peer": self.peer})
                replaced = await self.replace(suspect, other)
            return replaced
        finally:
            other_answer.cancel()
            if not replaced:
                await other.close()
