# SPDX-License-Identifier: Apache-2.0
"""
What a link between two nodes costs: a gRPC stream beside a TLS socket of asyncio.

`make bench-links`. Two processes send a message of the size of a small entry of the log,
and its acknowledgement: one message after the other, and with many in flight, so that
messages share packets. Nothing is computed or stored. Both kinds use mutual TLS and
uvloop, as nodes do, and take turns, in reverse order every second round.
"""

import argparse
import asyncio
import collections
import contextlib
import itertools
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio
import uvloop
from local_cluster.cluster import AGENT, HOST, LocalCluster
from local_cluster.setup import set_up
from rich.console import Console
from rich.table import Table

from tests.bench import paired
from tests.bench.estate import cpu_s
from tests.bench.limits import channel, serve_methods, server
from tests.bench.report import Report
from tests.results import ROOT

MESSAGE, ACKNOWLEDGEMENT = bytes(1024), bytes(64)
METHOD = "/sparecode.bench.Link/Carry"
KINDS = ("gRPC stream", "TLS socket")
IN_FLIGHT = (1, 64)
"""Messages that are sent and not acknowledged: a lone client's, and those of many."""
ROUNDS = 12
TIMES = 2000
"""Messages of a round and a number in flight."""


@dataclass(frozen=True, kw_only=True)
class RoundTrip:
    """A message and its acknowledgement."""

    p50_ms: float
    cpu_us: float
    """Of both processes together."""
    per_s: float


Seen = dict[tuple[str, int], list[RoundTrip]]
"""Kind and messages in flight -> what each round has measured."""
FIGURES: dict[str, Callable[[RoundTrip], float]] = {
    "p50, ms": lambda each: each.p50_ms,
    "processor time of both, us": lambda each: each.cpu_us,
    "messages a second": lambda each: each.per_s,
}


class Link(Protocol):
    """An open link."""

    async def send(self) -> None:
        """Send a message."""

    async def receive(self) -> None:
        """Return when the next acknowledgement has come."""


async def measured(link: Link, pid: int, times: int, in_flight: int) -> RoundTrip:
    """Send messages over a link to process *pid*, with at most *in_flight* at once."""
    took: list[float] = []
    sent: collections.deque[float] = collections.deque()
    room = asyncio.Semaphore(in_flight)

    async def send() -> None:
        for _ in range(times):
            await room.acquire()
            sent.append(time.perf_counter())
            await link.send()

    async def receive() -> None:
        for _ in range(times):
            await link.receive()
            took.append(time.perf_counter() - sent.popleft())
            room.release()

    began, cpu = time.perf_counter(), time.process_time() + cpu_s(pid)
    if in_flight == 1:  # Without another task for each message, as one would do it.
        for _ in range(times):
            sent.append(time.perf_counter())
            await link.send()
            await link.receive()
            took.append(time.perf_counter() - sent.popleft())
    else:
        async with asyncio.TaskGroup() as both:
            both.create_task(send())
            both.create_task(receive())
    lasted_s = time.perf_counter() - began
    cpu = time.process_time() + cpu_s(pid) - cpu
    return RoundTrip(
        p50_ms=statistics.median(took) * 1000,
        cpu_us=cpu * 1e6 / times,
        per_s=times / lasted_s,
    )


@dataclass(frozen=True, slots=True)
class _Stream:
    call: "grpc.aio.StreamStreamCall[bytes, bytes]"

    async def send(self) -> None:
        await self.call.write(MESSAGE)

    async def receive(self) -> None:
        await self.call.read()


@dataclass(frozen=True, slots=True)
class _Socket:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self) -> None:
        self.writer.write(MESSAGE)

    async def receive(self) -> None:
        await self.reader.readexactly(len(ACKNOWLEDGEMENT))


@asynccontextmanager
async def _over_grpc(certificates: Path, address: str) -> AsyncIterator[Link]:
    async with channel(certificates, address) as opened:
        yield _Stream(opened.stream_stream(METHOD)())


@asynccontextmanager
async def _over_tls(certificates: Path, address: str) -> AsyncIterator[Link]:
    context = ssl.create_default_context(cafile=certificates / "members-ca.pem")
    context.load_cert_chain(
        certificates / f"{AGENT}.pem", certificates / f"{AGENT}.key"
    )
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        yield _Socket(reader, writer)
    finally:
        writer.close()


async def serve_grpc(certificates: Path, member: str) -> None:
    """Acknowledge each message of a stream."""

    async def carry(
        requests: AsyncIterator[bytes], _context: object
    ) -> AsyncIterator[bytes]:
        async for _ in requests:
            yield ACKNOWLEDGEMENT

    handler = grpc.stream_stream_rpc_method_handler(carry)
    await serve_methods(certificates, member, {METHOD: handler})


async def serve_tls(certificates: Path, member: str) -> None:
    """Acknowledge each message of a connection."""
    context = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cafile=certificates / "agents-ca.pem"
    )
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(
        certificates / f"{member}.pem", certificates / f"{member}.key"
    )

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # The caller has closed.
            while await reader.readexactly(len(MESSAGE)):
                writer.write(ACKNOWLEDGEMENT)
        writer.close()

    listening = await asyncio.start_server(carry, HOST, 0, ssl=context)
    print(f"{HOST}:{listening.sockets[0].getsockname()[1]}", flush=True)  # noqa: T201
    await listening.serve_forever()


async def compare(
    cluster: LocalCluster, rounds: int = ROUNDS, times: int = TIMES
) -> Seen:
    """Measure both kinds in turn, with each number of messages in flight."""
    seen: Seen = {each: [] for each in itertools.product(KINDS, IN_FLIGHT)}
    with contextlib.ExitStack() as servers:
        member = cluster.nodes[0].node_id
        addresses = {
            kind: servers.enter_context(
                server(
                    "tests.bench.links",
                    "--serve",
                    kind,
                    str(cluster.certificates),
                    member,
                )
            )
            for kind in KINDS
        }
        for kind, in_flight in turns(rounds):
            address, pid = addresses[kind]
            connect = _over_grpc if kind == KINDS[0] else _over_tls
            async with connect(cluster.certificates, address) as link:
                await link.send()
                await link.receive()
                trip = await measured(link, pid, times, in_flight)
            seen[kind, in_flight].append(trip)
    return seen


def turns(rounds: int) -> Iterator[tuple[str, int]]:
    """Yield what is measured next: every second round in reverse."""
    loads = list(itertools.product(KINDS, IN_FLIGHT))
    for number in range(rounds):
        yield from loads[:: -1 if number % 2 else 1]


def add_results(report: Report, seen: Seen) -> None:
    """Add each figure of both kinds, and the ratio within the rounds."""
    for in_flight, (words, of) in itertools.product(IN_FLIGHT, FIGURES.items()):
        stream, socket = (
            [of(each) for each in seen[kind, in_flight]] for kind in KINDS
        )
        ratio = paired.ratio(socket, stream)
        report.add(
            f"a message and its acknowledgement, {in_flight} in flight: {words}",
            grpc_stream=statistics.median(stream),
            tls_socket=statistics.median(socket),
            socket_to_stream=ratio.median,
            interval=[ratio.low, ratio.high],
        )


def table(report: Report) -> Table:
    """Return the medians, and the socket as a multiple of the stream, with 95 % interval."""
    rows = Table("figure", *KINDS, "socket to stream (95 %)")
    for each in report.results:
        low, high = each["interval"]
        rows.add_row(
            each["name"],
            *(f"{each[kind]:.3g}" for kind in ("grpc_stream", "tls_socket")),
            f"{each['socket_to_stream']:.2f} ({low:.2f} to {high:.2f})",
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench-links")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench-links.json")
    parser.add_argument("--serve", choices=KINDS, help="acknowledge until killed")
    parser.add_argument("certificates", type=Path, nargs="?")
    parser.add_argument("member", nargs="?")
    arguments = parser.parse_args()
    if arguments.serve:
        serve = serve_grpc if arguments.serve == KINDS[0] else serve_tls
        uvloop.run(serve(arguments.certificates, arguments.member))
        return 0
    report = Report(path=arguments.out, command="make bench-links")
    with tempfile.TemporaryDirectory(prefix="sparecode-bench-") as name:
        cluster = set_up(Path(name) / "certificates")
        add_results(report, uvloop.run(compare(cluster)))
    report.write()
    Console().print(table(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
