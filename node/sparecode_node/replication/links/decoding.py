# SPDX-License-Identifier: Apache-2.0
"""
Messages of callers that do not decode.

gRPC decodes a request before any of our code runs. An exception there becomes an error
with a stack trace in the log, and the status `UNKNOWN`. So requests are decoded without
an exception here, and the handler of the call gets `MalformedMessageError`.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio

Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
OnMalformed = Callable[[Context], Awaitable[object]]

WORDS = "the message cannot be decoded as a request of this method"

_MALFORMED = object()
"""Takes the place of a message that does not decode."""

_KINDS: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""By whether the requests and the answers are streams."""


class MalformedMessageError(Exception):
    """A message of the caller does not decode."""


async def _pass_on(_: Context) -> None:
    """Leave the error to the caller of the handler."""


def decoding(handler: Handler, on_malformed: OnMalformed = _pass_on) -> Handler:
    """
    Return *handler* with a decoder that raises no exception.

    If a message does not decode, the behavior of *handler* raises
    `MalformedMessageError`. *on_malformed* may end the call before.
    """
    streams = bool(handler.request_streaming), bool(handler.response_streaming)
    behavior: Any = (
        handler.unary_unary
        or handler.unary_stream
        or handler.stream_unary
        or handler.stream_stream
    )

    async def answer(request: Any, context: Context) -> Any:  # noqa: ANN401
        try:
            return await behavior(_checked(request), context)
        except MalformedMessageError:
            await on_malformed(context)
            raise

    async def answers(request: Any, context: Context) -> AsyncIterator[Any]:  # noqa: ANN401
        try:
            async with contextlib.aclosing(
                behavior(_checked(request), context)
            ) as them:
                async for each in them:
                    yield each
        except MalformedMessageError:
            await on_malformed(context)
            raise

    return _KINDS[streams](
        answers if handler.response_streaming else answer,
        _tolerant(handler.request_deserializer or bytes),
        handler.response_serializer,
    )


def _tolerant(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decoded(message: bytes) -> Any:  # noqa: ANN401 - As the method's requests are.
        try:
            return decode(message)
        except Exception:  # noqa: BLE001 - Whatever a decoder raises.
            return _MALFORMED

    return decoded


def _checked(request: Any) -> Any:  # noqa: ANN401
    """Return a request, or the requests of a stream, and raise where one is malformed."""
    if request is _MALFORMED:
        raise MalformedMessageError
    return _each(request) if isinstance(request, AsyncIterator) else request


async def _each(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if request is _MALFORMED:
            raise MalformedMessageError
        yield request


class Decoding(grpc.aio.ServerInterceptor):
    """Refuses the calls of a listener whose messages do not decode."""

    def __init__(self, report: Callable[[str, str], object]) -> None:
        """*report* is called with the method and the peer of each such call."""
        self._report = report

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:  # noqa: ANN401
        """Return the handler of the method; it refuses such calls."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method.removeprefix("/")

        async def refuse(context: Context) -> None:
            self._report(method, str(context.peer()))
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, WORDS)

        return handler and decoding(handler, refuse)
