# SPDX-License-Identifier: Apache-2.0
"""
The ceilings of this machine, which Sparecode is compared with.

Uses nothing of Sparecode except its certificates. `python -m tests.bench.limits
DIRECTORY MEMBER` serves the echo.
"""

import argparse
import asyncio
import contextlib
import os
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
from argon2.low_level import Type, hash_secret_raw
from local_cluster.cluster import AGENT, HOST, LocalCluster
from nacl.pwhash import argon2id

from tests.bench.load import Load, Measurement, do

ECHO = "/sparecode.bench.Echo/Echo"
ECHO_STREAM = "/sparecode.bench.Echo/EchoStream"
"""Answers each message of a stream, in their order."""
REQUEST_BYTES = 110
"""The size of an authentication request."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The ceilings, measured before anything else. Each is a median."""

    echo: dict[int, Measurement]
    """Number of clients -> measurement of a raw echo with mutual TLS."""
    sync_ms: float
    """Time of one append of 4 KiB with its fdatasync."""
    argon2id_per_s: float
    """Hashes with the production parameters by libsodium, one thread per core."""
    argon2id_ms: float
    """Time of a single hash by libsodium."""
    argon2_cffi_per_s: float
    """As above by argon2-cffi, which release 0.1.0 used."""
    argon2_cffi_ms: float
    commits_per_s: float
    """SQLite transactions of one row, with WAL and `synchronous=NORMAL`."""


def measure(
    cluster: LocalCluster, directory: Path, clients: tuple[int, ...], seconds: float
) -> Limits:
    """Measure all ceilings, on an otherwise idle machine."""
    with echo_server(cluster) as address:
        echo = {
            count: median_of(
                lambda count=count: call_echo(cluster, address, count, seconds)
            )
            for count in clients
        }
    return Limits(
        echo=echo,
        sync_ms=statistics.median(sync_ms(directory) for _ in range(3)),
        commits_per_s=statistics.median(commits_per_s(directory) for _ in range(3)),
        **hashing(),
    )


def hashing(rounds: int = 5) -> dict[str, float]:
    """Return what both libraries hash on this machine. They take turns."""
    seen: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, hash_once in (("argon2id", libsodium), ("argon2_cffi", argon2_cffi)):
            one_ms = statistics.median(argon2id_ms(hash_once) for _ in range(5))
            seen.setdefault(f"{name}_ms", []).append(one_ms)
            seen.setdefault(f"{name}_per_s", []).append(argon2id_per_s(hash_once))
    return {name: statistics.median(values) for name, values in seen.items()}


def median_of(measure_once: Callable[[], Measurement], times: int = 3) -> Measurement:
    """Repeat a measurement; return the one with the median throughput."""
    runs = sorted((measure_once() for _ in range(times)), key=lambda m: m.per_s)
    return runs[times // 2]


@contextlib.contextmanager
def echo_server(
    cluster: LocalCluster,
    *,
    beyond: str = "",
    streams: bool = False,
    journal: Path | None = None,
) -> Iterator[str]:
    """
    Serve the echo in a separate process; yield its address.

    With *beyond*, the address of another echo, it asks that one before it answers: by a
    call for each request, or else over one stream. With *journal*, a file, it appends the
    request and syncs it meanwhile.
    """
    arguments = [str(cluster.certificates), cluster.nodes[0].node_id]
    arguments += ["--beyond", beyond] if beyond else []
    arguments += ["--streams"] if streams else []
    arguments += ["--journal", str(journal)] if journal else []
    with server("tests.bench.limits", *arguments) as (address, _):
        yield address


@contextlib.contextmanager
def server(module: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """Run a module that prints its address; yield this and the process's number."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def bare_commit(
    cluster: LocalCluster, directory: Path, *, streams: bool
) -> Iterator[str]:
    """
    Serve the messages and the syncs of a commit by three nodes; yield the address.

    Nothing is computed. The called server asks a second one, for the primary, which
    syncs while it asks a third one, for a follower, which syncs. A sign-in takes at least
    this long if each message is a unary call, or else goes over *streams*, which stay
    open as the links of nodes do.
    """
    with contextlib.ExitStack() as servers:
        follower = servers.enter_context(
            echo_server(cluster, journal=directory / "follower")
        )
        primary = servers.enter_context(
            echo_server(
                cluster,
                beyond=follower,
                streams=streams,
                journal=directory / "primary",
            )
        )
        yield servers.enter_context(
            echo_server(cluster, beyond=primary, streams=streams)
        )


def call_echo(
    cluster: LocalCluster, address: str, clients: int, seconds: float
) -> Measurement:
    """Let clients call the echo the way they call Sparecode."""
    return do(
        Load(
            addresses=(address,),
            ca=str(cluster.members_ca),
            certificate=str(cluster.certificates / f"{AGENT}.pem"),
            key=str(cluster.certificates / f"{AGENT}.key"),
            method=ECHO,
            requests=(os.urandom(REQUEST_BYTES).hex(),),
            repeat=True,
            clients=clients,
            seconds=seconds,
        )
    )


class Stream:
    """A stream to another echo, which answers in the order of the requests."""

    def __init__(self, call: "grpc.aio.StreamStreamCall[bytes, bytes]") -> None:
        self._call = call
        self._turn = asyncio.Lock()

    async def __call__(self, request: bytes) -> object:
        async with self._turn:
            await self._call.write(request)
            return await self._call.read()


async def serve(
    certificates: Path, member: str, beyond: str, journal: str, *, streams: bool
) -> None:
    """Serve the echo, by calls and by streams: each answer is its request."""
    ask: Callable[[bytes], Awaitable[object]] | None = None
    if beyond:
        opened = channel(certificates, beyond)
        ask = opened.unary_unary(ECHO)
        if streams:
            ask = Stream(opened.stream_stream(ECHO_STREAM)())
    disk = ThreadPoolExecutor(1)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    file = os.open(journal, flags, 0o600) if journal else -1

    def write(request: bytes) -> None:
        os.write(file, request)
        os.fdatasync(file)

    async def echo(request: bytes, _context: object) -> bytes:
        loop = asyncio.get_running_loop()
        synced = loop.run_in_executor(disk, write, request) if journal else None
        if ask is not None:
            await ask(request)
        if synced is not None:
            await synced
        return request

    async def echo_stream(
        requests: AsyncIterator[bytes], context: object
    ) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await echo(request, context)

    await serve_methods(
        certificates,
        member,
        {
            ECHO: grpc.unary_unary_rpc_method_handler(echo),
            ECHO_STREAM: grpc.stream_stream_rpc_method_handler(echo_stream),
        },
    )


async def serve_methods(
    certificates: Path,
    member: str,
    handlers: "Mapping[str, grpc.RpcMethodHandler[bytes, bytes]]",
) -> None:
    """Serve methods by their paths with mutual TLS, and print the address."""
    server = grpc.aio.server()
    for path, handler in handlers.items():
        service, method = path.strip("/").split("/")
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, {method: handler}),)
        )
    pair = (
        (certificates / f"{member}.key").read_bytes(),
        (certificates / f"{member}.pem").read_bytes(),
    )
    credentials = grpc.ssl_server_credentials(
        [pair],
        (certificates / "agents-ca.pem").read_bytes(),
        require_client_auth=True,
    )
    port = server.add_secure_port(f"{HOST}:0", credentials)
    await server.start()
    print(f"{HOST}:{port}", flush=True)  # noqa: T201
    await server.wait_for_termination()


def channel(certificates: Path, address: str) -> grpc.aio.Channel:
    """Return a channel with mutual TLS."""
    credentials = grpc.ssl_channel_credentials(
        (certificates / "members-ca.pem").read_bytes(),
        (certificates / f"{AGENT}.key").read_bytes(),
        (certificates / f"{AGENT}.pem").read_bytes(),
    )
    return grpc.aio.secure_channel(address, credentials)


def sync_ms(directory: Path, times: int = 200) -> float:
    """Return the median time of one append with its fdatasync."""
    path = directory / "sync"
    took = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(times):
            began = time.perf_counter()
            os.write(descriptor, bytes(4096))
            os.fdatasync(descriptor)
            took.append(time.perf_counter() - began)
    finally:
        os.close(descriptor)
        path.unlink()
    return statistics.median(took) * 1000


def libsodium(_: object = None) -> bytes:
    """Hash once with the production parameters, as a node does."""
    return argon2id.kdf(32, b"secret", bytes(16), opslimit=2, memlimit=19 * 1024 * 1024)


def argon2_cffi(_: object = None) -> bytes:
    """Compute the same hash, as release 0.1.0 did."""
    return hash_secret_raw(
        secret=b"secret",
        salt=bytes(16),
        time_cost=2,
        memory_cost=19 * 1024,
        parallelism=1,
        hash_len=32,
        type=Type.ID,
    )


def argon2id_ms(hash_once: Callable[[], bytes] = libsodium) -> float:
    """Return the time of a single hash."""
    began = time.perf_counter()
    hash_once()
    return (time.perf_counter() - began) * 1000


def argon2id_cpu_ms(hash_once: Callable[[], bytes], times: int = 10) -> float:
    """Return the processor time of a hash, which other work on the machine changes least."""
    began = time.thread_time()
    for _ in range(times):
        hash_once()
    return (time.thread_time() - began) * 1000 / times


def argon2id_per_s(
    hash_once: Callable[[object], bytes] = libsodium, times: int = 100
) -> float:
    """Return the hashes per second of all cores together."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(hash_once, range(8)))
        began = time.perf_counter()
        list(pool.map(hash_once, range(times)))
        return times / (time.perf_counter() - began)


def commits_per_s(directory: Path, times: int = 2000) -> float:
    """Return the SQLite transactions of one row per second."""
    path = directory / "commits.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, value BLOB)")
        began = time.perf_counter()
        for number in range(times):
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO t VALUES (?, ?)", (number, bytes(100)))
            db.execute("COMMIT")
        took = time.perf_counter() - began
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return times / took


def main() -> None:
    """Serve an echo until this process is killed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.limits")
    parser.add_argument("certificates", type=Path)
    parser.add_argument("member")
    parser.add_argument("--beyond", default="", help="address of another echo")
    parser.add_argument(
        "--streams", action="store_true", help="ask that one over a stream"
    )
    parser.add_argument("--journal", default="", help="file that each request goes to")
    asyncio.run(serve(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
