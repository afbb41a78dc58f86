# SPDX-License-Identifier: Apache-2.0
"""
gRPC between simulated processes: channels and calls over connections that die.

Only what the links of a node use, with the behavior that they rely on: a call ends
once; a call whose channel closes is cancelled. The called side is in `servers`.
"""

import asyncio
import collections
import functools
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from tests.simulation.fault_effects import Effect
from tests.simulation.nodes.connections import (
    CLIENT,
    SERVER,
    Code,
    Connection,
    Process,
    State,
    Wires,
)

if TYPE_CHECKING:
    from tests.simulation.nodes.servers import Server

CONNECT_S = 1.0
"""gRPC gives an attempt to connect up after this time (`min_reconnect_backoff_ms`)."""

BACKOFF_S = 0.1, 0.5


class Channel:
    """A `grpc.aio.Channel` of one process to one address."""

    def __init__(self, wires: Wires, process: Process, address: str) -> None:
        self.wires = wires
        self.process = process
        self._address = address
        self._state = State.IDLE
        self._attempt = 0
        self.connection: Connection | None = None
        self._ready: list[asyncio.Future[None]] = []
        self._pending: list[tuple[Call, dict[str, Any], bool]] = []
        self._calls: dict[Call, None] = {}

    # --- Connecting

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        if try_to_connect and self._state is State.IDLE:
            self._connect()
        return self._state

    async def channel_ready(self) -> None:
        while self._state is not State.READY:
            if self._state is State.SHUTDOWN:
                raise grpc.aio.UsageError("Channel is closed.")
            if self._state is State.IDLE:
                self._connect()
            ready = self.process.loop.create_future()
            self._ready.append(ready)
            try:
                await ready
            finally:
                if ready in self._ready:
                    self._ready.remove(ready)

    def _connect(self) -> None:
        self._state = State.CONNECTING
        self._attempt += 1
        attempt, wires = self._attempt, self.wires
        wires.timeline.after(CONNECT_S, lambda: self._failed(attempt))
        wires.timeline.after(wires.latency(), lambda: self._reach(attempt))

    def _reach(self, attempt: int) -> None:
        wires, target = self.wires, self.wires.processes[self._address]
        here, there = self.process.node_id, target.node_id
        if {(here, there), (there, here)} & wires.blocked or not target.has_power:
            return  # No answer: the attempt ends by its time.
        if not target.is_up() or target.server is None:
            wires.timeline.after(wires.latency(), lambda: self._failed(attempt))
            return
        target.loop.call_soon(lambda: self._accepted(attempt, target))

    def _accepted(self, attempt: int, target: Process) -> None:
        if target.server is None:
            return
        server, wires = target.server, self.wires
        wires.timeline.after(
            wires.latency(),
            lambda: self.process.loop.call_soon(
                lambda: self._established(attempt, server)
            ),
        )

    def _established(self, attempt: int, server: "Server") -> None:
        if attempt != self._attempt or self._state is not State.CONNECTING:
            return
        if not server.process.is_up() or server.process.server is not server:
            self._failed(attempt)
            return
        self.connection = Connection(self.wires, self, server)
        self.wires.connections.add(self.connection)
        self._set(State.READY)
        pending, self._pending = self._pending, []
        for call, more, _ in pending:
            if not call.done():
                self.connection.start(call, more)
        if self.wires.in_storm(self.connection):
            self.wires.count(Effect.SHORT_LIVED)
            connection = self.connection
            self.wires.timeline.after(
                self.wires.rng.uniform(0, 0.3), lambda: connection.close(SERVER)
            )

    def _failed(self, attempt: int) -> None:
        if attempt != self._attempt or self._state is not State.CONNECTING:
            return
        if self.process.loop.is_dead:
            return
        self._set(State.TRANSIENT_FAILURE)
        waiting = [each for each in self._pending if each[2]]
        failed = [each for each in self._pending if not each[2]]
        self._pending = waiting
        for call, _, _ in failed:
            call.finish(Code.UNAVAILABLE, "failed to connect")
        self.wires.timeline.after(
            self.wires.rng.uniform(*BACKOFF_S), lambda: self._again(attempt)
        )

    def _again(self, attempt: int) -> None:
        if attempt == self._attempt and self._state is State.TRANSIENT_FAILURE:
            self._set(State.IDLE)
            if self._pending:
                self._connect()

    def _set(self, state: grpc.ChannelConnectivity) -> None:
        self._state = state
        ready, self._ready = self._ready, []
        for future in ready:
            if not future.done():
                future.set_result(None)

    def lost(self, connection: Connection) -> None:
        """Record that a connection has ended."""
        if connection is self.connection:
            self.connection = None
            if self._state is State.READY:
                self._set(State.IDLE)

    async def close(self, grace: float | None = None) -> None:
        """Cancel all calls and close the connection."""
        if self._state is State.SHUTDOWN:
            return
        if grace and self._calls:
            await asyncio.wait({call.ended for call in self._calls}, timeout=grace)
        self._set(State.SHUTDOWN)
        for call in tuple(self._calls):
            call.cancel()
        if self.connection is not None:
            if self.connection.is_dead():
                self.wires.count(Effect.LINK_REPLACED)
            self.connection.close(CLIENT)

    # --- Calls

    def begin(self, call: "Call", more: dict[str, Any], *, wait: bool) -> None:
        """Send a call, or keep it until there is a connection."""
        self._calls[call] = None
        call.ended.add_done_callback(lambda _: self._calls.pop(call, None))
        if self._state is State.SHUTDOWN:
            raise grpc.aio.UsageError("Channel is closed.")
        if self.connection is not None:
            self.connection.start(call, more)
        elif self._state is State.TRANSIENT_FAILURE and not wait:
            self.process.loop.call_soon(call.finish, Code.UNAVAILABLE, "no connection")
        else:
            self._pending.append((call, more, wait))
            if self._state is State.IDLE:
                self._connect()

    def _method(self, kind: type["Call"]) -> Callable[..., Any]:
        def method(
            path: str,
            request_serializer: Callable[[Any], bytes],
            response_deserializer: Callable[[bytes], Any],
            _registered_method: bool = False,
        ) -> Callable[..., Call]:
            def invoke(
                request: Any = None,
                *,
                timeout: float | None = None,
                metadata: Sequence[tuple[str, str | bytes]] = (),
                wait_for_ready: bool | None = None,
            ) -> Call:
                call = kind(self, request_serializer, response_deserializer, timeout)
                more = {
                    "path": path,
                    "metadata": tuple(metadata),
                    "timeout_s": timeout,
                    "request": None if request is None else request_serializer(request),
                }
                self.begin(call, more, wait=bool(wait_for_ready))
                return call

            return invoke

        return method

    @property
    def unary_unary(self) -> Callable[..., Any]:
        return self._method(Call)

    @property
    def stream_unary(self) -> Callable[..., Any]:
        return self._method(Call)

    @property
    def unary_stream(self) -> Callable[..., Any]:
        return self._method(Call)


class Call:
    """The calling side of a call of any kind."""

    def __init__(
        self,
        channel: Channel,
        encode: Callable[[Any], bytes],
        decode: Callable[[bytes], Any],
        timeout_s: float | None,
    ) -> None:
        self._loop = channel.process.loop
        self._encode = encode
        self._decode = decode
        self.connection: Connection | None = None
        self.number = -1
        self._is_local = False
        self._messages: collections.deque[bytes] = collections.deque()
        self._news: asyncio.Future[None] | None = None
        self._initial: asyncio.Future[grpc.aio.Metadata] = self._loop.create_future()
        self.ended: asyncio.Future[tuple[grpc.StatusCode, str]]
        self.ended = self._loop.create_future()
        if timeout_s is not None:
            late = Code.DEADLINE_EXCEEDED, "Deadline Exceeded"
            self._loop.call_later(max(0.0, timeout_s), self._abort, *late)

    def done(self) -> bool:
        return self.ended.done()

    def _abort(self, code: grpc.StatusCode, why: str) -> None:
        """End the call here, and tell the server."""
        if self.done():
            return
        connection = self.connection
        self.finish(code, why)
        if connection is not None:
            number = self.number
            connection.send(CLIENT, lambda: _hang_up(connection, number), call=number)

    def cancel(self) -> bool:
        if self.done():
            return False
        self._is_local = True
        self._abort(Code.CANCELLED, "Locally cancelled by application!")
        return True

    def finish(self, code: grpc.StatusCode, why: str) -> None:
        """Let the call be over."""
        if self.connection is not None:
            self.connection.calls.pop(self.number, None)
        if not self.ended.done():
            self.ended.set_result((code, why))
        if not self._initial.done():
            self._initial.set_result(grpc.aio.Metadata())
        self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def on_initial(self, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        """Take what the server sends first."""
        if not self._initial.done():
            self._initial.set_result(grpc.aio.Metadata(*metadata))

    def on_message(self, data: bytes) -> None:
        """Take a message of the server."""
        self.on_initial(())
        if not self.done():
            self._messages.append(data)
            self._tell()

    async def initial_metadata(self) -> grpc.aio.Metadata:
        return await asyncio.shield(self._initial)

    async def code(self) -> grpc.StatusCode:
        return (await asyncio.shield(self.ended))[0]

    async def details(self) -> str:
        return (await asyncio.shield(self.ended))[1]

    def _raise(self) -> None:
        code, why = self.ended.result()
        if self._is_local:
            raise asyncio.CancelledError
        if code is not Code.OK:
            empty = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(code, empty, empty, why)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._answer().__await__()

    async def _answer(self) -> Any:
        try:
            await asyncio.shield(self.ended)
        except asyncio.CancelledError:
            self.cancel()
            raise
        self._raise()
        return self._decode(self._messages.popleft())

    async def write(self, request: Any) -> None:
        if self.done() or self.connection is None:
            raise asyncio.InvalidStateError("the call is over")
        data, connection, number = self._encode(request), self.connection, self.number
        arrive = functools.partial(_take, connection, number, data)
        connection.send(CLIENT, arrive, len(data), number)
        await asyncio.sleep(0)

    def __aiter__(self) -> "Call":
        return self

    async def __anext__(self) -> Any:
        while not self._messages:
            if self.done():
                self._raise()
                raise StopAsyncIteration
            self._news = self._loop.create_future()
            try:
                await self._news
            except asyncio.CancelledError:
                self.cancel()
                raise
        return self._decode(self._messages.popleft())


def _hang_up(connection: Connection, number: int) -> None:
    if served := connection.served.get(number):
        served.hang_up()


def _take(connection: Connection, number: int, data: bytes) -> None:
    if served := connection.served.get(number):
        served.take(data)
