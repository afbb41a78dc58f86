# SPDX-License-Identifier: Apache-2.0
"""
gRPC between simulated processes: channels, calls and servers over connections that die.

Only what the links of a node use, with the behavior that they rely on: a call ends
once; a call whose channel closes is cancelled; a connection carries messages in order
or ends, and a dead one is noticed by gRPC's own pings within four seconds.
"""

import asyncio
import collections
import functools
import itertools
import random
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from typing import Any, Protocol

import grpc
import grpc.aio

from sparecode_node.replication.members import MEMBER_URI
from tests.simulation.fault_effects import Effect
from tests.simulation.nodes.bandwidth import (
    FAST_BYTES_S,
    MESSAGE_BYTES,
    Bandwidth,
    Line,
)
from tests.simulation.nodes.loops import NodeLoop, Timeline

CONNECT_S = 1.0
"""gRPC gives an attempt to connect up after this time (`min_reconnect_backoff_ms`)."""

BACKOFF_S = 0.1, 0.5
KEEPALIVE_S = 3.0, 4.0
"""
A connection that carries nothing is closed after this time, at each end: two seconds
without a byte, and two for the answer to a ping.
"""

CLIENT, SERVER = 0, 1
State = grpc.ChannelConnectivity
Code = grpc.StatusCode


class Process(Protocol):
    """A process, as the network sees it."""

    node_id: str
    loop: NodeLoop
    server: "Server | None"
    has_power: bool

    def is_up(self) -> bool: ...


class Connection:
    """A TCP connection with TLS and HTTP/2, which may be dead and not look so."""

    def __init__(self, network: "Wires", channel: "Channel", server: "Server") -> None:
        self.network = network
        self.serial = next(network.serials)
        self.ends = channel.process, server.process
        self._channel = channel
        self._server = server
        self._open = [True, True]
        self.swallowing = [False, False]
        """By the end that sends: whether its bytes are acknowledged, and lost."""
        self.damage_next = [False, False]
        self._lines = [network.line(self.direction(end)) for end in (CLIENT, SERVER)]
        self._due = [0.0, 0.0]
        self._parked: tuple[list[Callable[[], object]], ...] = [], []
        self._numbers = itertools.count()
        self.calls: dict[int, Call] = {}
        self.served: dict[int, Served] = {}

    def direction(self, end: int) -> tuple[str, str]:
        """Return who sends to whom from that end."""
        return self.ends[end].node_id, self.ends[1 - end].node_id

    def send(
        self, end: int, arrive: Callable[[], object], size: int = 0, call: int = -1
    ) -> None:
        """Let something happen at the other end, after all that the call sent before."""
        if not self._open[end]:
            return
        line, size = self._lines[end], size + MESSAGE_BYTES
        if line is None:
            self._travel(end, arrive, size / FAST_BYTES_S)
        else:
            line.send(call, size, lambda: self._travel(end, arrive, 0.0))

    async def sent(self, end: int, call: int) -> None:
        """Wait until all that the call has sent is on its way: its window is full."""
        line, loop = self._lines[end], self.ends[end].loop
        if line is None:
            await asyncio.sleep(0)
            return
        is_sent = loop.create_future()
        line.send(call, 0, lambda: loop.call_soon(_resolve, is_sent))
        await is_sent

    def _travel(self, end: int, arrive: Callable[[], object], seconds: float) -> None:
        network = self.network
        due = max(self._due[end], network.timeline.now + seconds + network.latency())
        self._due[end] = due
        network.timeline.at(due, lambda: self._arrive(end, arrive))

    def _arrive(self, end: int, arrive: Callable[[], object]) -> None:
        if self.swallowing[end]:
            self.network.count(Effect.BYTES_SWALLOWED)
        elif self.direction(end) in self.network.blocked or self._parked[end]:
            self.network.count(Effect.MESSAGE_HELD)
            self._parked[end].append(arrive)
        elif self.damage_next[end]:
            self.network.count(Effect.RECORD_DAMAGED)
            self.damage_next[end] = False
            self.close(1 - end)
        elif self._open[1 - end]:
            self.ends[1 - end].loop.call_soon(arrive)

    def unpark(self) -> None:
        """Deliver what a partition has held back: TCP sends it again."""
        for end in (CLIENT, SERVER):
            if self.direction(end) not in self.network.blocked:
                parked = self._parked[end][:]
                self._parked[end].clear()
                for arrive in parked:
                    self._arrive(end, arrive)

    def impair(self) -> None:
        """Let gRPC's pings find out, at each end in its own time."""
        for end in (CLIENT, SERVER):
            wait_s = self.network.rng.uniform(*KEEPALIVE_S)
            self.network.timeline.after(wait_s, lambda end=end: self._look(end))

    def _look(self, end: int) -> None:
        if self._open[end] and self.is_dead():
            self.network.count(Effect.KEEPALIVE)
            self.close(end)

    def is_dead(self) -> bool:
        """Return whether no answer to a ping can arrive."""
        cut = {self.direction(CLIENT), self.direction(SERVER)} & self.network.blocked
        return bool(any(self.swallowing) or cut or not all(self._open))

    @property
    def is_open(self) -> bool:
        """Whether either end believes that it is open."""
        return any(self._open)

    def close(self, end: int, *, tell: bool = True, late_s: float = 0.0) -> None:
        """Close one end; the other one is told, if bytes get there."""
        if not self._open[end]:
            return
        if line := self._lines[end]:
            line.drop()
        if tell:
            if late_s:
                self._due[end] = self.network.timeline.now + late_s
            self.send(end, lambda: self.close(1 - end, tell=False))
        self._open[end] = False
        if end == CLIENT:
            for call in tuple(self.calls.values()):
                call.finish(Code.UNAVAILABLE, "the connection ended")
            self._channel.lost(self)
        else:
            for served in tuple(self.served.values()):
                served.hang_up()
        if not any(self._open):
            self.network.connections.discard(self)

    def start(self, call: "Call", more: dict[str, Any]) -> None:
        """Carry a call to the server."""
        call.number, call.connection = next(self._numbers), self
        self.calls[call.number] = call
        served = Served(self, call.number, self._server, **more)
        size = len(more["request"] or b"")
        self.send(CLIENT, served.begin, size, call.number)


class Wires:
    """All connections, and the faults of the network between machines."""

    def __init__(
        self,
        timeline: Timeline,
        rng: random.Random,
        count: Callable[..., object],
        bandwidth: Bandwidth | None = None,
    ) -> None:
        """*count* takes an effect, and how often it took place; without: once."""
        self.timeline = timeline
        self.rng = rng
        self.count = count
        self._bandwidth = bandwidth
        self._waited_s = 0.0
        self.processes: dict[str, Process] = {}
        """By address."""
        self.connections: set[Connection] = set()
        self.serials = itertools.count()
        self.blocked: set[tuple[str, str]] = set()
        self.slowness = 0.0
        self.storms: dict[str, float] = {}
        """By machine: until then, its new connections end at once."""

    def ordered(self) -> list[Connection]:
        """Return the connections in an order that each run repeats."""
        return sorted(self.connections, key=lambda connection: connection.serial)

    def line(self, direction: tuple[str, str]) -> Line | None:
        """Return what carries a new connection's bytes; None: a fast link."""
        bytes_s = self._bandwidth.of(direction) if self._bandwidth else FAST_BYTES_S
        if bytes_s >= FAST_BYTES_S:
            return None
        return Line(self.timeline, bytes_s, self._waited)

    def _waited(self, seconds: float) -> None:
        before, self._waited_s = self._waited_s, self._waited_s + seconds
        whole = int(self._waited_s * 1000) - int(before * 1000)
        self.count(Effect.WAITED_FOR_BANDWIDTH, whole)

    def latency(self) -> float:
        """Return how long a message takes now."""
        slow = self.rng.random() < 0.01 + self.slowness
        return self.rng.uniform(0.02, 0.4) if slow else self.rng.uniform(0.0003, 0.003)

    def between(self, a: str, b: str) -> list[Connection]:
        """Return the connections of two machines."""
        return [c for c in self.ordered() if {e.node_id for e in c.ends} == {a, b}]

    def in_storm(self, connection: Connection) -> bool:
        """Return whether a storm goes on at either end."""
        ends = (self.storms.get(end.node_id, 0.0) for end in connection.ends)
        return self.timeline.now < max(ends)

    def cut(self, pairs: set[tuple[str, str]], *, seconds: float) -> None:
        """Block directions for a while."""
        self.blocked |= pairs
        for connection in self.ordered():
            if connection.is_dead():
                connection.impair()
        self.timeline.after(seconds, lambda: self.mend(pairs))

    def mend(self, pairs: set[tuple[str, str]]) -> None:
        """End a block."""
        self.blocked -= pairs
        for connection in self.ordered():
            connection.unpark()

    def process_ended(self, process: Process, *, power: bool) -> None:
        """Close the ends of a process. Without power, no machine is told."""
        for connection in self.ordered():
            for end in (CLIENT, SERVER):
                if connection.ends[end] is process:
                    connection.close(end, tell=not power)
                    if power:
                        connection.impair()


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


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _hang_up(connection: Connection, number: int) -> None:
    if served := connection.served.get(number):
        served.hang_up()


def _take(connection: Connection, number: int, data: bytes) -> None:
    if served := connection.served.get(number):
        served.take(data)


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
