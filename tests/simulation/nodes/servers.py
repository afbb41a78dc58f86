# SPDX-License-Identifier: Apache-2.0
"""The called side of gRPC between simulated processes: servers, and calls that arrive."""

import asyncio
import collections
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from sparecode_node.replication.members import MEMBER_URI
from tests.simulation.nodes.channels import Call
from tests.simulation.nodes.connections import CLIENT, SERVER, Code, Connection, Process


class Served:
    """The called side of a call: also the `ServicerContext` of its handler."""

    def __init__(
        self,
        connection: Connection,
        number: int,
        server: "Server",
        *,
        path: str,
        metadata: tuple[tuple[str, str | bytes], ...],
        timeout_s: float | None,
        request: bytes | None,
    ) -> None:
        self._connection = connection
        self._number = number
        self._server = server
        self._loop = server.process.loop
        self._path = path
        self._metadata = metadata
        self._timeout_s = timeout_s
        self._until: float | None = None
        self._request = request
        self._frames: collections.deque[bytes] = collections.deque()
        self._news: asyncio.Future[None] | None = None
        self._is_over = False
        self._task: asyncio.Task[None] | None = None

    # --- The connection

    def begin(self) -> None:
        """Start the handler, in the loop of the server."""
        if self._server.process.server is not self._server:
            return
        self._connection.served[self._number] = self
        if self._timeout_s is not None:
            self._until = self._loop.time() + self._timeout_s
            self._loop.call_at(self._until, self.hang_up)
        self._task = self._loop.create_task(self._run(), name=self._path)

    def take(self, data: bytes) -> None:
        """Take a message of a stream."""
        self._frames.append(data)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def hang_up(self) -> None:
        """End the handler: its caller is gone."""
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def _send(self, act: Callable[["Call"], object], size: int = 0) -> None:
        connection, number = self._connection, self._number

        def arrive() -> None:
            if call := connection.calls.get(number):
                act(call)

        connection.send(SERVER, arrive, size, number)

    def _end(self, code: grpc.StatusCode, why: str = "") -> None:
        if not self._is_over:
            self._is_over = True
            self._send(lambda call: call.finish(code, why))

    # --- The handler

    async def _run(self) -> None:
        try:
            await self._handle()
        except (grpc.aio.AbortError, asyncio.CancelledError):
            self._end(Code.CANCELLED)
        except Exception as error:  # noqa: BLE001 - as gRPC does.
            self._server.on_error(f"{self._path}: {error!r}")
            self._end(Code.UNKNOWN, repr(error))
        finally:
            self._connection.served.pop(self._number, None)

    async def _handle(self) -> None:
        handler = await self._server.handler(self._path)
        decode, encode = handler.request_deserializer, handler.response_serializer
        if handler.request_streaming:
            answer = await handler.stream_unary(self._requests(decode), self)
            self._message(encode(answer))
        elif handler.response_streaming:
            async for each in handler.unary_stream(decode(self._request), self):
                self._message(encode(each))
                await self._connection.sent(SERVER, self._number)
        else:
            answer = await handler.unary_unary(decode(self._request), self)
            self._message(encode(answer))
        self._end(Code.OK)

    async def _requests(self, decode: Callable[[bytes], Any]) -> AsyncIterator[Any]:
        while True:
            while self._frames:
                yield decode(self._frames.popleft())
            self._news = self._loop.create_future()
            await self._news

    def _message(self, data: bytes) -> None:
        self._send(lambda call: call.on_message(data), len(data))

    # --- The context of the handler

    def auth_context(self) -> dict[str, list[bytes]]:
        uri = f"{MEMBER_URI}{self._connection.ends[CLIENT].node_id}"
        return {"x509_subject_alternative_name": [uri.encode()]}

    def peer(self) -> str:
        return f"ipv4:{self._connection.ends[CLIENT].node_id}"

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._metadata

    def time_remaining(self) -> float | None:
        return None if self._until is None else self._until - self._loop.time()

    async def send_initial_metadata(
        self, metadata: tuple[tuple[str, str | bytes], ...]
    ) -> None:
        self._send(lambda call: call.on_initial(metadata))

    async def abort(self, code: grpc.StatusCode, why: str = "") -> None:
        self._end(code, why)
        raise grpc.aio.AbortError(why)


class Server:
    """A `grpc.aio.Server` of one process."""

    def __init__(
        self,
        process: Process,
        interceptors: Sequence[Any],
        on_error: Callable[[str], object],
    ) -> None:
        self.process = process
        self.on_error = on_error
        self._interceptors = interceptors
        self._handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Do nothing: the handlers are registered by name, too."""

    def add_registered_method_handlers(
        self, service: str, handlers: dict[str, Any]
    ) -> None:
        self._handlers.update({f"/{service}/{name}": h for name, h in handlers.items()})

    def add_secure_port(self, address: str, _credentials: object) -> int:
        return int(address.rpartition(":")[2])

    async def start(self) -> None:
        self.process.server = self

    async def stop(self, grace: float | None) -> None:
        self.process.server = None

    def take(self, connection: Connection, number: int, **more: Any) -> Served:
        """Return the called side of a call that arrives here."""
        return Served(connection, number, self, **more)

    async def handler(self, path: str) -> Any:
        """Return the handler of a method, behind the interceptors."""

        async def found(_details: object) -> Any:
            return self._handlers.get(path)

        details = _Details(path)
        handler = found
        for interceptor in reversed(self._interceptors):
            inner = handler

            async def intercepted(
                given: Any, inner: Any = inner, interceptor: Any = interceptor
            ) -> Any:
                return await interceptor.intercept_service(inner, given)

            handler = intercepted
        return await handler(details)


class _Details:
    def __init__(self, method: str) -> None:
        self.method = method
        self.invocation_metadata = ()
