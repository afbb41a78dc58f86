# SPDX-License-Identifier: Apache-2.0
"""
Audit events of sealed segments, sent between members (U1).

A member that lacks a segment asks the others, one after the other. It trusts none of
them: the chain of hashes in its own state proves the events.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Protocol

import grpc
import grpc.aio

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.answers import each_of, stub_of

Context = grpc.aio.ServicerContext[Any, Any]

PART_EVENTS = 200
"""Events that are read at once: a hundred kilobytes, but each may have many more."""

PART_BYTES = 256 * 1024
"""Of one message, unless an event alone is longer. gRPC refuses those of 1 MiB."""

FETCH_S = 120.0
"""For one segment of a few megabytes, also over a slow link."""


class SegmentNotHeldError(Exception):
    """A member lacks the segment, too, or cannot be reached."""


class SegmentSource(Protocol):
    """Lends the segments of this node. Its method reads files, in any thread."""

    def lend(self, number: int, hash_after: bytes, *, skip: int, most: int) -> bytes:
        """
        Return events of a segment, one line each: at most *most*, after *skip* others.

        Empty: there are no more. Raises `SegmentNotHeldError` if this node lacks it.
        """


class NoSegments:
    """A node without sealed segments, for tests of replication alone."""

    def lend(
        self,
        number: int,  # noqa: ARG002
        hash_after: bytes,  # noqa: ARG002
        *,
        skip: int,  # noqa: ARG002
        most: int,  # noqa: ARG002
    ) -> bytes:
        """Refuse."""
        raise SegmentNotHeldError("this node has no segments")


class SegmentExchange:
    """This node's side: its requests to others, and its answers to them."""

    def __init__(self, source: SegmentSource) -> None:
        self._source = source
        self._channel: Callable[[NodeId], grpc.aio.Channel | None] = lambda _: None
        self._others: Callable[[], Iterable[NodeId]] = tuple

    def connect(
        self,
        *,
        channel: Callable[[NodeId], grpc.aio.Channel | None],
        others: Callable[[], Iterable[NodeId]],
    ) -> None:
        """Set how the other members are reached; until then there are none."""
        self._channel = channel
        self._others = others

    @property
    def others(self) -> tuple[NodeId, ...]:
        """The other voters."""
        return tuple(sorted(self._others()))

    async def fetch(
        self,
        node_id: NodeId,
        number: int,
        hash_after: bytes,
        *,
        lines_max: int,
        bytes_max: int,
    ) -> AsyncGenerator[list[bytes], None]:
        """
        Yield the lines of a segment that another member sends, in parts, not proved yet.

        Raises `SegmentNotHeldError`, also for more lines or bytes than there may be.
        """
        channel = self._channel(node_id)
        if channel is None:
            raise SegmentNotHeldError(f"there is no channel to {node_id}")
        stub = stub_of(channel)
        request = peers_pb2.FetchSegmentRequest(number=number, hash=hash_after)
        call = stub.FetchSegment(request, timeout=FETCH_S)
        try:
            async for part in each_of(call):
                # Counted before they are split: an object costs more than a short line.
                lines_max -= part.lines.count(b"\n")
                bytes_max -= len(part.lines)
                if lines_max < 0 or bytes_max < 0:
                    raise SegmentNotHeldError(f"{node_id} sends too much")
                if not part.lines.endswith(b"\n"):
                    raise SegmentNotHeldError(f"{node_id} sends parts of lines")
                yield part.lines[:-1].split(b"\n")
        except grpc.aio.AioRpcError as error:
            cause = error.details() or error.code().name
            raise SegmentNotHeldError(f"{node_id}: {cause}") from error
        finally:
            call.cancel()

    async def lend(
        self, request: peers_pb2.FetchSegmentRequest
    ) -> AsyncIterator[peers_pb2.FetchSegmentResponse]:
        """Yield a segment in parts. Raises `SegmentNotHeldError`."""
        skip = 0
        while part := await asyncio.to_thread(
            self._source.lend,
            request.number,
            request.hash,
            skip=skip,
            most=PART_EVENTS,
        ):
            for piece in _pieces(part):
                yield peers_pb2.FetchSegmentResponse(lines=piece)
            skip += PART_EVENTS


def _pieces(lines: bytes) -> Iterator[bytes]:
    """Yield whole lines in pieces that fit in a message."""
    begin = 0
    while begin < len(lines):
        end = len(lines)
        if end - begin > PART_BYTES:
            end = lines.rfind(b"\n", begin, begin + PART_BYTES) + 1
            end = end or lines.index(b"\n", begin) + 1
        yield lines[begin:end]
        begin = end


class SegmentCalls:
    """The call of `PeerService` about segments; `PeerServicer` adds the check of callers."""

    _segments: SegmentExchange

    async def _caller(self, context: Context) -> NodeId:
        """Return the calling member, which has a link."""
        raise NotImplementedError

    async def FetchSegment(
        self, request: peers_pb2.FetchSegmentRequest, context: Context
    ) -> AsyncIterator[peers_pb2.FetchSegmentResponse]:
        """Send the events of a sealed segment to a member that lacks them."""
        await self._caller(context)
        try:
            async for part in self._segments.lend(request):
                yield part
        except SegmentNotHeldError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))
