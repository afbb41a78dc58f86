# SPDX-License-Identifier: Apache-2.0
"""The listener: connections without a complete request are closed."""

import asyncio
import contextlib
import datetime as dt
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from starlette.responses import PlainTextResponse, Response

from sparecode_node.console import server
from sparecode_node.console.pages import sign_in
from sparecode_node.console.server import ConsoleListener, ConsoleServer
from sparecode_node.membership.certificates import write_certificates
from sparecode_node.replication.links.limits import Connections
from sparecode_node.services.access.security_log import HANDSHAKE_FAILED, MALFORMED
from tests.console.desk import Desk
from tests.http.test_framing import AMBIGUOUS
from tests.replication.cluster import until

pytestmark = pytest.mark.asyncio

HOST = "127.0.0.1"
SHORT_S = 1.5
PATIENCE_S = 60.0
HEAD = b"GET /sign-in HTTP/1.1\r\nhost: console.test\r\n"
Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def connections_max() -> int:
    """Return the bound of open connections; a test may override it."""
    return server.CONNECTIONS_MAX


@pytest.fixture
def open_max() -> int:
    """Return the bound of accepted connections; a test may override it."""
    return server.BROWSERS.most


@pytest.fixture
def request_s() -> float:
    """Return how long a handshake or a request may take."""
    return SHORT_S


@pytest_asyncio.fixture
async def port(
    desk: Desk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    connections_max: int,
    open_max: int,
    request_s: float,
) -> AsyncIterator[int]:
    """Serve the console by HTTPS with short timeouts; return the port."""
    monkeypatch.setattr(server, "REQUEST_S", request_s)
    monkeypatch.setattr(server, "CONNECTIONS_MAX", connections_max)
    monkeypatch.setattr(server, "BROWSERS", Connections(most=open_max, share=1))
    folder = tmp_path / "certificates"
    write_certificates(
        folder, members=["n1"], hosts=[HOST], now=dt.datetime.now(dt.UTC)
    )
    listener = ConsoleListener(
        host=HOST, port=0, certificate=folder / "n1.pem", key=folder / "n1.key"
    )
    console = ConsoleServer(listener, desk.site, desk.node.refusals.log)
    await console.start(grace_s=1)
    try:
        yield console.port
    finally:
        await console.stop()


@contextlib.asynccontextmanager
async def connection(port: int) -> AsyncIterator[Pair]:
    """Connect without verifying the certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(HOST, port, ssl=context)
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def until_cut(reader: asyncio.StreamReader) -> bytes:
    """Return the data received until the other side closes the connection."""
    came = b""
    with contextlib.suppress(OSError):
        while part := await reader.read(4096):
            came += part
    return came


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Return one complete answer; the connection stays open."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.splitlines()
        if line.startswith(b"content-length:")
    )
    return head + await reader.readexactly(length)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEAD,
        b"POST /sign-in HTTP/1.1\r\nhost: console.test\r\ncontent-length: 99\r\n\r\na=",
    ],
)
async def test_an_incomplete_request_is_cut_off(port: int, data: bytes) -> None:
    """Otherwise a few hundred silent connections would keep all others out."""
    async with connection(port) as (reader, writer):
        writer.write(data)
        assert await until_cut(reader) == b""


async def test_single_bytes_do_not_extend_the_timeout(port: int) -> None:
    async with connection(port) as (reader, writer):
        writer.write(HEAD)
        came = asyncio.ensure_future(until_cut(reader))
        while not came.done():
            writer.write(b"x")
            await asyncio.wait({came}, timeout=SHORT_S / 10)
        assert await came == b""


async def test_the_next_request_of_a_connection_has_the_same_timeout(
    port: int,
) -> None:
    async with connection(port) as (reader, writer):
        for _ in range(2):
            writer.write(HEAD + b"\r\n")
            assert (await answer(reader)).startswith(b"HTTP/1.1 200")
        writer.write(HEAD)
        assert await until_cut(reader) == b""


async def test_a_browser_that_waits_for_an_answer_is_not_cut_off(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is complete, and a commit may take long."""

    async def slow(_: object) -> Response:
        await asyncio.wait({asyncio.ensure_future(asyncio.Event().wait())}, timeout=1)
        return PlainTextResponse("at last")

    monkeypatch.setattr(sign_in, "open_session", slow)
    async with connection(port) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        assert (await answer(reader)).endswith(b"at last")


async def test_a_connection_without_a_handshake_is_cut_off(port: int) -> None:
    reader, writer = await asyncio.open_connection(HOST, port)
    async with asyncio.timeout(PATIENCE_S):
        assert await until_cut(reader) == b""
    writer.close()


@pytest.mark.parametrize(("open_max", "request_s"), [(2, PATIENCE_S)])
async def test_open_connections_are_bounded_before_the_handshake_too(port: int) -> None:
    """Otherwise any caller could use up the files that the node needs to commit."""
    _, silent = await asyncio.open_connection(HOST, port)
    async with connection(port):
        third = asyncio.ensure_future(response(port))
        await asyncio.wait({third}, timeout=2 * SHORT_S)
        assert not third.done()
        silent.close()
        # A closed connection makes room for the next.
        assert (await third).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("open_max", "request_s"), [(2, PATIENCE_S)])
async def test_a_failed_handshake_makes_room_and_is_counted(
    desk: Desk, port: int
) -> None:
    counts = desk.node.refusals.log.counts
    assert counts[HANDSHAKE_FAILED] == 0
    for data in (b"", b"GET / HTTP/1.1\r\n\r\n"):
        for _ in range(3):
            _, writer = await asyncio.open_connection(HOST, port)
            writer.write(data)
            writer.close()
    assert (await response(port)).startswith(b"HTTP/1.1 200")
    async with asyncio.timeout(PATIENCE_S):
        await until(lambda: counts[HANDSHAKE_FAILED] >= 3)


@pytest.mark.parametrize("request_s", [PATIENCE_S])
async def test_bytes_that_are_no_request_are_counted(desk: Desk, port: int) -> None:
    async with connection(port) as (reader, writer):
        writer.write(b"\x00\x01\r\n\r\n")
        assert b" 400 " in await until_cut(reader)
    assert desk.node.refusals.log.counts[MALFORMED] == 1


async def response(port: int) -> bytes:
    """Return the answer to one request."""
    async with connection(port) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        return await answer(reader)


@pytest.mark.parametrize(("connections_max", "request_s"), [(3, PATIENCE_S)])
async def test_a_request_is_shed_while_too_many_connections_are_open(port: int) -> None:
    async with connection(port), connection(port), connection(port) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        assert (await until_cut(reader)).startswith(b"HTTP/1.1 503")
    async with connection(port) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        assert (await answer(reader)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("name", AMBIGUOUS)
@pytest.mark.parametrize("request_s", [PATIENCE_S])
async def test_a_request_with_two_readings_is_refused(
    desk: Desk, port: int, name: str
) -> None:
    """As at the HTTP door: the same table."""
    async with connection(port) as (reader, writer):
        writer.write(AMBIGUOUS[name] + HEAD + b"\r\n")
        came = await until_cut(reader)
    assert came.count(b"HTTP/1.1 ") == 1
    assert came.startswith(b"HTTP/1.1 400 ")
    assert desk.node.refusals.log.counts[MALFORMED] == 1
