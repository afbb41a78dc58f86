# SPDX-License-Identifier: Apache-2.0
"""
Connections between simulated processes, and how they die.

A connection carries messages in order or ends, and a dead one is noticed by gRPC's own
pings within four seconds.
"""

import asyncio
import itertools
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio

from tests.simulation.cuts import Cuts
from tests.simulation.fault_effects import Effect
from tests.simulation.nodes.bandwidth import (
    FAST_BYTES_S,
    MESSAGE_BYTES,
    Bandwidth,
    Line,
)
from tests.simulation.nodes.loops import NodeLoop, Timeline

if TYPE_CHECKING:
    from tests.simulation.nodes.channels import Call, Channel
    from tests.simulation.nodes.servers import Served, Server

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
            self.network.cuts.keep_back(self.direction(end))
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
        served = self._server.take(self, call.number, **more)
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
        self.cuts = Cuts(count)
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

    def cut(
        self,
        pairs: set[tuple[str, str]],
        *,
        seconds: float,
        effect: Effect | None = None,
    ) -> None:
        """Block directions for a while; *effect* is counted when that holds a message."""
        self.blocked |= pairs
        if effect is not None:
            self.cuts.begin(pairs, effect)
        for connection in self.ordered():
            if connection.is_dead():
                connection.impair()
        self.timeline.after(seconds, lambda: self.mend(pairs))

    def mend(self, pairs: set[tuple[str, str]]) -> None:
        """End a block."""
        self.blocked -= pairs
        self.cuts.end(pairs)
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


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
