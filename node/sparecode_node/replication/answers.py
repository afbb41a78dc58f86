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

_T = TypeVar("_T")


def is_to_end() -> bool:
    """Return whether the task itself is cancelled, and not a call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def answered(call: Awaitable[_T]) -> _T:
    """Return the answer to a call. Raises `AioRpcError`, also if its channel closes."""
    try:
        return await call
    except asyncio.CancelledError:
        if is_to_end():
            raise
        raise grpc.aio.AioRpcError(
            grpc.StatusCode.CANCELLED,
            grpc.aio.Metadata(),
            grpc.aio.Metadata(),
            "the channel was closed",
        ) from None


async def each_of(parts: AsyncIterable[_T]) -> AsyncIterator[_T]:
    """Yield the parts of a streamed answer. Raises as `answered`."""
    iterator = aiter(parts)
    while True:
        try:
            part = await answered(anext(iterator))
        except StopAsyncIteration:
            return
        yield part
