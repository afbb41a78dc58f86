# SPDX-License-Identifier: Apache-2.0
"""
Waiting for answers of other members.

A channel closes when its member was removed, has moved, or must see another
certificate. gRPC then cancels the calls on it, and a task that waits for one of them
gets the same exception as if the task itself were cancelled. These functions tell the
two cases apart.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from typing import TypeVar

import grpc
import grpc.aio

from sparecode.internal.v1 import peers_pb2_grpc

_T = TypeVar("_T")


def is_to_end() -> bool:
    """Return whether the task itself is cancelled, and not a call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def stub_of(channel: grpc.aio.Channel) -> "peers_pb2_grpc.PeerServiceAsyncStub":
    """
    Return the methods of a member. Raises `AioRpcError` if its channel is closed.

    gRPC 1.85 registers methods without a look at whether the channel is still there. If
    it is not, the whole process may end.
    """
    if channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN:
        raise _closed()
    return peers_pb2_grpc.PeerServiceStub(channel)


async def answered(call: Awaitable[_T]) -> _T:
    """Return the answer to a call. Raises `AioRpcError`, also if its channel closes."""
    try:
        return await call
    except asyncio.CancelledError:
        if is_to_end():
            raise
        raise _closed() from None


async def each_of(parts: AsyncIterable[_T]) -> AsyncIterator[_T]:
    """Yield the parts of a streamed answer. Raises as `answered`."""
    iterator = aiter(parts)
    while True:
        try:
            part = await answered(anext(iterator))
        except StopAsyncIteration:
            return
        yield part


def _closed() -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        grpc.StatusCode.CANCELLED,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(),
        "the channel was closed",
    )
