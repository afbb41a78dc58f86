# SPDX-License-Identifier: Apache-2.0
"""
Notices a connection to a node that carries nothing any more, whatever gRPC thinks.

A proxy or firewall may go on acknowledging bytes that never arrive. A node limits how
often gRPC may ping it, so the client asks only while a call stays unanswered: over the
same connection, whether the node lives. If that stays unanswered too, the client opens
another connection and asks there. Whichever answers first is kept: a node that is only
slow answers the earlier question first.
"""

import asyncio
from collections.abc import Callable

import grpc

QUIET_S = 2.0
"""A call that is unanswered for this time makes its connection suspect."""

ANSWER_S = 2.0
"""
For the answer. So a dead connection is noticed within four seconds, and replaced as soon
as another one answers.
"""

OTHER_S = 4.0
"""For another connection to be open and to answer."""

METHOD = "/grpc.health.v1.Health/Check"
EMPTY = b""
"""The request: is the whole server alive?"""

_UNANSWERED = {
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
}
"""gRPC itself reports these. With any other status, something has answered."""


async def failure(
    channel: grpc.aio.Channel,
    *,
    timeout_s: float | None = None,
    wait_for_ready: bool = False,
) -> grpc.aio.AioRpcError | None:
    """Return why nothing answers over this channel, or None if something does."""
    check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
    try:
        await check(EMPTY, timeout=timeout_s, wait_for_ready=wait_for_ready)
    except grpc.aio.AioRpcError as error:
        return error if error.code() in _UNANSWERED else None
    return None


async def answers(channel: grpc.aio.Channel, *, timeout_s: float | None = None) -> bool:
    """Return whether the node answers over this channel, once it is connected."""
    return await failure(channel, timeout_s=timeout_s, wait_for_ready=True) is None


async def successor(
    channel: grpc.aio.Channel, dial: Callable[[], grpc.aio.Channel]
) -> grpc.aio.Channel | None:
    """Return another channel if *channel* carries nothing any more, else None."""
    if channel.get_state() is not grpc.ChannelConnectivity.READY:
        return None  # gRPC knows, and connects again.
    answer = asyncio.create_task(answers(channel))
    other: grpc.aio.Channel | None = None
    other_answer: asyncio.Task[bool] | None = None
    try:
        await asyncio.wait({answer}, timeout=ANSWER_S)
        if answer.done():
            return None
        other = dial()
        other_answer = asyncio.create_task(answers(other, timeout_s=OTHER_S))
        await asyncio.wait({answer, other_answer}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done() or not other_answer.result():
            return None
        found, other = other, None
        return found
    finally:
        answer.cancel()
        if other_answer is not None:
            other_answer.cancel()
        if other is not None:
            await other.close()
