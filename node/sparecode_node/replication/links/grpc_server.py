# SPDX-License-Identifier: Apache-2.0
"""
A gRPC server that no bytes of a caller can end.

grpcio takes calls to methods that are not registered in one loop, outside of every
handler. An exception there would end the listener and all calls in progress. So these
calls never reach that loop: they are refused here, whatever their path.

This overrides a private method of grpcio.
tests/security/test_odd_bytes_hold_up_no_node.py fails if a release of grpcio no longer
calls it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import grpc
import grpc.aio
from grpc._cython import cygrpc  # type: ignore[attr-defined]

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Refuse = Callable[[Context], Awaitable[object]]


async def refuse_unknown_method(context: Context) -> None:
    """End a call to a method that the listener does not have."""
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not a method of this listener")


class _AioServer(cygrpc.AioServer):  # type: ignore[misc]
    """grpcio's server; *refuse* ends each call to a method that is not registered."""

    refuse: Refuse = staticmethod(refuse_unknown_method)

    async def _request_call(self) -> None:
        """Refuse calls, one after the other. The loop waits for a first one forever."""
        loop, refusing = asyncio.get_running_loop(), set[asyncio.Task[None]]()
        while True:
            state = await super()._request_call()
            context = cygrpc._ServicerContext(state, None, None, loop)
            task = loop.create_task(
                cygrpc._schedule_rpc_coro(
                    self.refuse(context), state, loop, "unknown method"
                )
            )
            refusing.add(task)
            task.add_done_callback(refusing.discard)


def new_server(
    *,
    options: Sequence[tuple[str, int]],
    maximum_concurrent_rpcs: int,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    refuse: Refuse = refuse_unknown_method,
) -> grpc.aio.Server:
    """Return a server; *refuse* ends each call to a method that it does not have."""
    original, cygrpc.AioServer = cygrpc.AioServer, _AioServer
    try:
        server = grpc.aio.server(
            interceptors=interceptors,
            options=options,
            maximum_concurrent_rpcs=maximum_concurrent_rpcs,
        )
    finally:
        cygrpc.AioServer = original
    server._server.refuse = refuse  # type: ignore[attr-defined]
    return server
