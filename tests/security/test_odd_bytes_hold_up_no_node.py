# SPDX-License-Identifier: Apache-2.0
"""
Bytes that are no request end no listener, fill no log, and reveal no session.

Strangers send them before any of our code runs: in messages, paths, metadata and HTTP.
"""

import asyncio
import contextlib
import datetime as dt
import io
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from local_cluster.cluster import free_ports
from prometheus_client import CollectorRegistry

from sparecode_node.console.server import ConsoleListener, ConsoleServer
from sparecode_node.daemon.logs import FloodFilter, TextFormatter
from sparecode_node.daemon.metrics.listener import MetricsListener
from sparecode_node.domain.ids import NodeId
from sparecode_node.membership.certificates import Issued, write_certificates
from sparecode_node.replication.links.key_exchange import KeyExchange, NoKeys
from sparecode_node.replication.links.tls import target_name
from sparecode_node.replication.links.transport import PeerAddresses, PeerTransport
from sparecode_node.replication.replica.engine_thread import LoopCalls
from sparecode_node.rpc.joining import JoiningServicer
from sparecode_node.services.access.refusals import Refusals
from sparecode_node.services.access.security_log import MALFORMED
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.errors import NotSignedInError
from tests.console.desk import desk
from tests.replication.cluster import member_tls, new_authority
from tests.replication.test_transport import Answering, FakeEngine, shown
from tests.rpc import bare_http2
from tests.rpc.edge import AGENT, BEARER, Edge, failure, running_edge
from tests.security.test_metrics_are_read_by_monitoring_alone import Ready

pytestmark = pytest.mark.asyncio

CODE = grpc.StatusCode
UNIMPLEMENTED = CODE.UNIMPLEMENTED.value[0]
ODD = b"\xff\xfe\xfd"
SECRET = b"s3cret-bearer"
CALLS = 40


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """Return what a node would write to its log."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(TextFormatter())
    handler.addFilter(FloodFilter())
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield written
    finally:
        root.removeHandler(handler)


def harmless(output: io.StringIO, words: str, since_s: float) -> None:
    """Assert that a flood has left at most a line a second, and no trace of a bug."""
    text = output.getvalue()
    assert "Traceback" not in text
    assert " bug" not in text
    lines = [line for line in text.splitlines() if words in line]
    assert 1 <= len(lines) <= 1 + time.monotonic() - since_s, text


async def ended(
    channel: grpc.aio.Channel, path: str, messages: list[bytes], metadata: Any = None
) -> grpc.aio.AioRpcError:
    """Send messages; return the error of the call."""
    method = channel.stream_stream(path)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in method(iter(messages), timeout=60, metadata=metadata):
            pass
    return caught.value


async def is_alive(edge: Edge) -> bool:
    """Return whether both listeners answer on new connections."""
    for channel in (edge.admin(), edge.agents()):
        async with channel:
            await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=60
            )
    return True


@pytest.mark.parametrize(
    ("listener", "path", "before"),
    [
        ("agents", "/sparecode.v1.AuthenticationService/Authenticate", []),
        ("agents", "/grpc.health.v1.Health/Check", []),
        ("admin", "/sparecode.v1.SessionService/Login", []),
        ("admin", "/sparecode.v1.AuditService/ExportAuditEvents", []),
        ("admin", "/sparecode.v1.TokenService/ImportTokens", []),
        ("admin", "/grpc.health.v1.Health/Watch", []),
        (
            "admin",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            [b""],
        ),
    ],
)
async def test_a_message_that_does_not_decode(
    output: io.StringIO, listener: str, path: str, before: list[bytes]
) -> None:
    """(U1) It is the caller's error, counted, with at most a line a second."""
    since_s = time.monotonic()
    async with running_edge(reflection=True) as edge:

        async def read(*arguments: Any, **_: Any) -> None:
            async for _ in arguments[-1]:
                pass

        edge.services["token_import"].answer = read
        async with edge.agents() if listener == "agents" else edge.admin() as channel:
            errors = await asyncio.gather(
                *(ended(channel, path, [*before, ODD], BEARER) for _ in range(CALLS))
            )
        assert edge.refusals.log.counts[MALFORMED] == CALLS
    for error in errors:
        refusal = failure(error)
        assert (refusal.code, refusal.reason) == (CODE.INVALID_ARGUMENT, "MALFORMED")
    harmless(output, MALFORMED, since_s)


@pytest.mark.parametrize(("listener", "own"), [("agents", AGENT), ("admin", None)])
async def test_a_path_of_any_bytes(listener: str, own: Issued | None) -> None:
    """(U1) It ended the listener for good, and all calls in progress."""
    async with running_edge() as edge, edge.agents() as agent, edge.admin() as admin:
        watches = [
            health_pb2_grpc.HealthStub(each).Watch(health_pb2.HealthCheckRequest())
            for each in (agent, admin)
        ]
        for watch in watches:
            await watch.read()
        for path in (b"/" + ODD, b"/sparecode.v1.A/" + ODD, b"", b"\0"):
            sent = bare_http2.request(path, ODD)
            status = await bare_http2.status_of(edge.address(listener), sent, own)
            assert status == UNIMPLEMENTED
        assert await is_alive(edge)
        assert not any(watch.done() for watch in watches)


async def test_metadata_of_any_bytes(output: io.StringIO) -> None:
    """(U1) A session with a wrong byte does not get into the log."""
    since_s = time.monotonic()
    sent = bare_http2.request(
        b"/sparecode.v1.SessionService/WhoAmI",
        metadata=[(b"authorization", b"Bearer " + SECRET + ODD), (b"x-" + ODD, b"a")],
    )
    good = bare_http2.request(
        b"/sparecode.v1.UserService/ListUsers",
        metadata=[(b"authorization", b"Bearer " + SECRET + ODD)],
    )
    async with running_edge() as edge:
        for name in ("sessions", "users"):
            edge.services[name].answer = NotSignedInError("no session")
        for _ in range(4):
            for each in (sent, good):
                assert await bare_http2.status_of(edge.address("admin"), each)
        assert await is_alive(edge)
    assert SECRET.decode() not in output.getvalue()
    harmless(output, "metadata of a call is not UTF-8", since_s)


@contextlib.asynccontextmanager
async def listener_for_members() -> AsyncIterator[tuple[Any, str, list[str]]]:
    """Yield a member's TLS, the address of a member's listener, and what it reports."""
    authority, reports = new_authority(), list[str]()
    address = f"127.0.0.1:{free_ports(1)[0]}"
    addresses = PeerAddresses(
        node_id=NodeId("n2"),
        listen=address,
        members={NodeId("n1"): "127.0.0.1:1", NodeId("n2"): address},
        joiner_service=JoiningServicer(
            tuple, Refusals(clock=SystemClock(), entropy=SystemEntropy())
        ),
    )
    listener = PeerTransport(
        addresses,
        member_tls(authority, "n2"),
        "test",
        KeyExchange(NoKeys()),
        on_malformed=lambda method, _: reports.append(method),
    )
    listener.wire(LoopCalls(asyncio.get_running_loop()))
    engine: Any = FakeEngine(addresses)
    calls: Any = Answering()
    await listener.start(engine, calls)
    try:
        yield member_tls(authority, "n1"), address, reports
    finally:
        await listener.stop()


async def test_members_and_joiners_send_any_bytes(output: io.StringIO) -> None:
    """(U1) A removed member's certificate, or a ticket, is enough to reach this listener."""
    paths = (
        "/sparecode.internal.v1.PeerService/Link",
        "/sparecode.internal.v1.PeerService/Forward",
        "/sparecode.internal.v1.PeerService/FetchSnapshot",
        "/sparecode.internal.v1.JoiningService/Join",
    )
    async with listener_for_members() as (tls, address, reports):
        own = Issued(tls.certificate, tls.key)
        sent = bare_http2.request(b"/" + ODD)
        assert await bare_http2.status_of(address, sent, own) == UNIMPLEMENTED
        channel = grpc.aio.secure_channel(
            address,
            tls.channel_credentials(),
            options=[("grpc.ssl_target_name_override", target_name(NodeId("n2")))],
        )
        async with channel:
            for path in paths:
                error = await ended(channel, path, [ODD], shown("n1"))
                assert error.code() is CODE.INVALID_ARGUMENT, path
    assert [f"/{each}" for each in reports] == list(paths)
    assert "Traceback" not in output.getvalue()


# --- HTTP/1.1 ----------------------------------------------------------------

HOST = b"host: node\r\n"
ODD_HTTP = (
    *(ODD + b"\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n"),
    *(b"GET /" + ODD + b" HTTP/1.1\r\n" + HOST + b"\r\n", bare_http2.PREFACE),
    b"GET /sign-in HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    b"GET /%ff%00/static/%2e%2e HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /sign-in?next=%ff%00&a;b=%zz HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /static/%00 HTTP/1.1\r\n" + HOST + b"range: bytes=a-b\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"cookie: __Host-sparecode=" + ODD + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"upgrade: websocket\r\n\r\n",
    b"POST /sign-in HTTP/1.1\r\n" + HOST + b"content-length: -1\r\n\r\n",
    b"POST /sign-in HTTP/1.1\r\n" + HOST + b"content-length: 3\r\n\r\n" + ODD,
    b"POST /sign-in HTTP/1.1\r\n" + HOST + b"content-length: 3\r\n\r\na=b",
    b"POST /sign-in HTTP/1.1\r\n" + HOST + b"transfer-encoding: chunked\r\n\r\nz\r\n",
)


async def exchange(port: int, sent: bytes, context: Any) -> bytes:
    """Send bytes on a connection of their own; return the beginning of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    try:
        async with asyncio.timeout(60):
            writer.write(sent)
            return await reader.read(200)
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


async def test_requests_of_any_bytes_to_the_console(
    output: io.StringIO, tmp_path: Path
) -> None:
    since_s = time.monotonic()
    write_certificates(
        tmp_path / "tls", members=["n1"], hosts=["node"], now=dt.datetime.now(dt.UTC)
    )
    async with desk(tmp_path) as running:
        console = ConsoleServer(
            ConsoleListener(
                host="127.0.0.1",
                port=0,
                certificate=tmp_path / "tls" / "n1.pem",
                key=tmp_path / "tls" / "n1.key",
            ),
            running.site,
            running.node.refusals.log,
        )
        await console.start(grace_s=1)
        try:
            context = httpx.create_ssl_context(verify=False)
            for sent in ODD_HTTP * 2:
                answer = await exchange(console.port, sent, context)
                assert not answer.startswith(b"HTTP/1.1 5"), (sent, answer)
        finally:
            await console.stop()
    harmless(output, "Invalid HTTP request", since_s)
    harmless(output, "form refused", since_s)


@pytest.mark.parametrize(
    "accept",
    [
        *(b"application/openmetrics-text;version=" + ODD, b"text/plain;version=x"),
        *(b"application/openmetrics-text;version=9.9;escaping=" + ODD, b";;,=,;="),
        b"text/plain;version=" + b"9" * 5000,
    ],
)
async def test_requests_of_any_bytes_for_the_metrics(
    output: io.StringIO, accept: bytes
) -> None:
    listener = MetricsListener(
        host="127.0.0.1",
        port=0,
        registry=CollectorRegistry(),
        condition=Ready(),  # type: ignore[arg-type]
    )
    listener.start()
    try:
        for sent in ODD_HTTP:
            await exchange(listener.port, sent, None)
        request = b"GET /metrics HTTP/1.1\r\naccept: " + accept + b"\r\n\r\n"
        answer = await exchange(listener.port, request, None)
        assert answer.startswith(b"HTTP/1.0 200"), answer
    finally:
        await asyncio.to_thread(listener.stop)
    assert " ERROR" not in output.getvalue()
