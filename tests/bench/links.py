# SPDX-License-Identifier: Apache-2.0
"""
What a link between two nodes costs: a gRPC stream beside a TLS socket of asyncio.

`make bench-links`. Two processes send a message of the size of a small entry of the log,
and its acknowledgement. Nothing is computed or stored. Both kinds use mutual TLS and
uvloop, as nodes do, and take turns.
"""

import argparse
import asyncio
import contextlib
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import uvloop
from local_cluster.cluster import AGENT, HOST, LocalCluster
from local_cluster.setup import set_up
from rich.console import Console
from rich.table import Table

from tests.bench import paired
from tests.bench.estate import cpu_s
from tests.bench.limits import channel, serve_method, server

MESSAGE, ACKNOWLEDGEMENT = bytes(1024), bytes(64)
METHOD = "/sparecode.bench.Link/Carry"
KINDS = ("gRPC stream", "TLS socket")
ROUNDS = 12
TIMES = 1000
"""Messages of a round, one after the other."""


@dataclass(frozen=True, kw_only=True)
class RoundTrip:
    """A message and its acknowledgement."""

    p50_ms: float
    cpu_us: float
    """Of both processes together."""


async def measured(
    cluster: LocalCluster, kind: str, address: str, pid: int, times: int
) -> RoundTrip:
    """Send messages one after the other."""
    took = []
    connect = _over_grpc if kind == KINDS[0] else _over_tls
    async with contextlib.aclosing(connect(cluster.certificates, address)) as link:
        await anext(link)
        cpu = time.process_time() + cpu_s(pid)
        for _ in range(times):
            began = time.perf_counter()
            await anext(link)
            took.append(time.perf_counter() - began)
        cpu = time.process_time() + cpu_s(pid) - cpu
    return RoundTrip(
        p50_ms=statistics.median(took) * 1000, cpu_us=cpu * 1e6 / len(took)
    )


async def _over_grpc(certificates: Path, address: str) -> AsyncIterator[None]:
    async with channel(certificates, address) as opened:
        call = opened.stream_stream(METHOD)()
        while True:
            await call.write(MESSAGE)
            await call.read()
            yield


async def _over_tls(certificates: Path, address: str) -> AsyncIterator[None]:
    context = ssl.create_default_context(cafile=certificates / "members-ca.pem")
    context.load_cert_chain(
        certificates / f"{AGENT}.pem", certificates / f"{AGENT}.key"
    )
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        while True:
            writer.write(MESSAGE)
            await reader.readexactly(len(ACKNOWLEDGEMENT))
            yield
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
    await serve_method(certificates, member, METHOD, handler)


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
) -> dict[str, list[RoundTrip]]:
    """Measure both kinds in turn."""
    seen: dict[str, list[RoundTrip]] = {kind: [] for kind in KINDS}
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
        for _ in range(rounds):
            for kind, (address, pid) in addresses.items():
                trip = await measured(cluster, kind, address, pid, times)
                seen[kind].append(trip)
    return seen


def table(seen: dict[str, list[RoundTrip]]) -> Table:
    """Return the medians, and the socket as a multiple of the stream, with 95 % interval."""
    rows = Table("a message and its acknowledgement", *KINDS, "socket to stream (95 %)")
    for words, of in (
        ("p50, ms", lambda each: each.p50_ms),
        ("processor time of both, us", lambda each: each.cpu_us),
    ):
        stream, socket = ([of(each) for each in seen[kind]] for kind in KINDS)
        ratio = paired.ratio(socket, stream)
        rows.add_row(
            words,
            *(f"{statistics.median(each):.3g}" for each in (stream, socket)),
            f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.links")
    parser.add_argument("--serve", choices=KINDS, help="acknowledge until killed")
    parser.add_argument("certificates", type=Path, nargs="?")
    parser.add_argument("member", nargs="?")
    arguments = parser.parse_args()
    if arguments.serve:
        serve = serve_grpc if arguments.serve == KINDS[0] else serve_tls
        uvloop.run(serve(arguments.certificates, arguments.member))
        return 0
    with tempfile.TemporaryDirectory(prefix="sparecode-bench-") as name:
        cluster = set_up(Path(name) / "certificates")
        Console().print(table(uvloop.run(compare(cluster))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
