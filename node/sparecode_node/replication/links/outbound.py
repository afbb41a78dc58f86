# SPDX-License-Identifier: Apache-2.0
"""
Links to the other members: one long-lived call to each, in order, or not at all.

Messages sent while a link is down are dropped, and so are messages meant for an earlier
link. A full queue ends the link: within a link no message is ever missing.
"""

import asyncio
import collections
import logging
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.answers import is_to_end, stub_of
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.links.hello import HELLO, Introduction, introduction_of

log = logging.getLogger(__name__)

QUEUE_FRAMES_MAX = 4096
QUEUE_BYTES_MAX = 16 * 1024 * 1024
"""Twice what the window of entries allows in flight."""

RETRY_S = 0.1
"""After a link has ended; a channel that cannot connect waits longer on its own."""


class OutboundLink:
    """The link to one member; opened again whenever it ends. Lives in the loop."""

    def __init__(
        self,
        peer: NodeId,
        channel: grpc.aio.Channel,
        *,
        hello: Callable[[], Awaitable[bytes]],
        on_up: Callable[[NodeId, int, Introduction], object],
        on_down: Callable[[NodeId], object],
        on_refused: Callable[[NodeId, str], object],
        epoch: int = 0,
    ) -> None:
        """
        *hello* returns what to show; *on_up* gets what the other side has shown.

        What is shown must be newer than every message on the link before it.
        *on_refused* gets the reason, if the other side does not accept this node as a
        member of its cluster.
        """
        self._peer = peer
        self._hello = hello
        self._on_refused = on_refused
        self._channel = channel
        self._stub = stub_of(channel)
        self._on_up = on_up
        self._on_down = on_down
        self._queue: collections.deque[peers_pb2.LinkRequest] = collections.deque()
        self._queued_bytes = 0
        self._ready = asyncio.Event()
        self.epoch = epoch
        """Counts the links to this member, so that none is mistaken for another."""
        self._call: (
            grpc.aio.StreamUnaryCall[peers_pb2.LinkRequest, peers_pb2.LinkResponse]
            | None
        ) = None
        self._task: asyncio.Task[None]  # Set by `start`.

    def start(self) -> None:
        """Start to dial."""
        self._task = asyncio.create_task(self._keep(), name=f"link to {self._peer}")

    async def stop(self) -> None:
        """End the link, and do not dial again."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def send(self, epoch: int, frame: peers_pb2.LinkRequest) -> None:
        """Send a frame, if it is meant for the current link."""
        if self._call is None or epoch != self.epoch:
            return
        size = frame.ByteSize()
        if (
            len(self._queue) >= QUEUE_FRAMES_MAX
            or self._queued_bytes + size > QUEUE_BYTES_MAX
        ):
            log.warning("link_reset", extra={"peer": self._peer, "cause": "queue full"})
            self.epoch += 1
            self._call.cancel()
            return
        self._queue.append(frame)
        self._queued_bytes += size
        self._ready.set()

    async def _keep(self) -> None:
        while True:
            try:
                await self._hold_one()
            except grpc.aio.AioRpcError as error:
                log.info("link_ended", extra={"peer": self._peer, "code": error.code()})
            except ProposeError as error:  # The engine has not said what to show.
                log.info("link_ended", extra={"peer": self._peer, "code": str(error)})
            except asyncio.CancelledError:
                if is_to_end():
                    raise
                # gRPC raises this for a cancelled call, which ends one link only.
                log.info("link_ended", extra={"peer": self._peer, "code": "cancelled"})
            except Exception:
                # It concerns one link only. If this loop ended, the two members would
                # stay apart forever.
                log.exception("link_broken", extra={"peer": self._peer})
            await asyncio.sleep(RETRY_S)

    async def _hold_one(self) -> None:
        """Open a link, and return when it has ended."""
        # A call that waits for the connection would do, too. But once it was cancelled,
        # gRPC 1.85 does not forget it, and its channel goes on connecting after `close`.
        await self._channel.channel_ready()
        metadata = ((HELLO, await self._hello()),)
        call = self._stub.Link(wait_for_ready=True, metadata=metadata)
        try:
            # The other side sends it when it has accepted the caller.
            introduction = await introduction_of(call)
            if introduction is None:
                return
            self._call = call
            self.epoch += 1
            self._queue.clear()
            self._queued_bytes = 0
            self._on_up(self._peer, self.epoch, introduction)
            writer = asyncio.create_task(self._write(call))
            try:
                await call.code()
            finally:
                self._call = None
                writer.cancel()
                await asyncio.gather(writer, return_exceptions=True)
                self._on_down(self._peer)
        finally:
            call.cancel()
            if await call.code() is grpc.StatusCode.PERMISSION_DENIED:
                self._on_refused(self._peer, str(await call.details()))

    async def _write(
        self,
        call: grpc.aio.StreamUnaryCall[peers_pb2.LinkRequest, peers_pb2.LinkResponse],
    ) -> None:
        try:
            while True:
                await self._ready.wait()
                self._ready.clear()
                while self._queue:
                    frame = self._queue.popleft()
                    self._queued_bytes -= frame.ByteSize()
                    await call.write(frame)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass  # It has ended.
        finally:
            call.cancel()  # Do not wait for frames that are not written any more.
