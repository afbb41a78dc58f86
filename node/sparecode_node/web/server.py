# SPDX-License-Identifier: Apache-2.0
"""An application on an address: HTTPS, in the node's own event loop."""

import asyncio
import contextlib
import dataclasses
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from sparecode_node.domain.caller_addresses import canonical
from sparecode_node.replication.links.limits import Connections, most_open
from sparecode_node.web.connections import Acceptor, Tracked
from sparecode_node.web.messages import Messages

log = logging.getLogger(__name__)

BACKLOG = 128
IDLE_S = 15
AGE_MAX_S = 30 * 60.0
"""
A connection closes after this time, so that the next handshake checks the client's
certificate again. Otherwise an expired certificate would stay valid forever.
"""
HEAD_BYTES_MAX = 16 * 1024
"""Of a request line and headers."""


class WebListenError(Exception):
    """A listener could not be opened; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebListener:
    """A listener's name, address, certificate and limits."""

    section: str
    """Of node.toml, such as `console`."""
    host: str
    port: int
    certificate: Path
    key: Path
    connections: Connections
    requests_max: int | None = None
    """Requests are shed while this many connections are open. None: no such limit."""
    request_s: float
    """
    Time for a handshake, and for a whole request to arrive: idle connections are closed.
    """
    client_authority: Callable[[], bytes] | None = None
    """
    The authority (PEM) whose clients are named to the application, see `certificate_of`.

    None: clients are not asked for a certificate.
    """
    on_handshake_failed: Callable[[OSError], None] | None = None
    on_malformed: Callable[[str], object] = lambda _: None
    """Called with the client's address when bytes are no request."""


def certificate_of(state: object) -> bytes:
    """Return the client's certificate (DER) by a request's state; empty: it has none."""
    certificate = getattr(state, "client_certificate", b"")
    return certificate if isinstance(certificate, bytes) else b""


class Connection(H11Protocol, Tracked):
    """
    A client's connection, closed when a request does not arrive completely.

    uvicorn waits forever for the first byte and for the last one: a few hundred
    silent connections would keep everyone else out.
    """

    _waiting: asyncio.TimerHandle | None = None
    _aging: asyncio.TimerHandle | None = None

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - uvicorn's.
        request_s: float,
        on_malformed: Callable[[str], object],
        **kwargs: Any,  # noqa: ANN401 - uvicorn's.
    ) -> None:
        super().__init__(*args, **kwargs)
        self.conn = Messages(head_bytes_max=HEAD_BYTES_MAX)
        # Otherwise the handlers of other loggers would decide: a URL may hold a secret.
        self.access_log = False
        self._request_s = request_s
        self._on_malformed = on_malformed
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for a request."""
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls else None
        # A copy of it is the state of each request.
        self.app_state = {"client_certificate": certificate or b""}
        self._aging = self.loop.call_later(AGE_MAX_S, self.shutdown)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of the request."""
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_waiting()
        elif self._waiting is None:
            self._wait()

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are no request."""
        self._on_malformed(canonical(self.client[0]) if self.client else "")
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:  # The answer has begun: the end of the connection cuts it off.
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        if self._aging is not None:
            self._aging.cancel()
        self.ended.set()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(self._request_s, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


class _Server(uvicorn.Server):
    """A server that does not capture the process's signals: the node handles them."""

    def __init__(
        self,
        config: uvicorn.Config,
        listener: WebListener,
        context: Callable[[], ssl.SSLContext],
    ) -> None:
        super().__init__(config)
        self._listener = listener
        self._context = context

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections as uvicorn does, but bound how many are open."""
        await self.lifespan.startup()
        free = asyncio.Semaphore(most_open(self._listener.connections))
        acceptors = [
            Acceptor(
                each,
                name=self._listener.section,
                connect=self._connect,
                context=self._context,
                handshake_s=self._listener.request_s,
                free=free,
                on_failed=self._listener.on_handshake_failed,
            )
            for each in sockets or ()
        ]
        # uvicorn only closes these objects and waits for their end.
        self.servers = cast("list[asyncio.Server]", acceptors)
        self.started = True

    def _connect(self) -> Connection:
        return Connection(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
            request_s=self._listener.request_s,
            on_malformed=self._listener.on_malformed,
        )


class WebServer:
    """Serves an application. `start` once, `stop` once."""

    def __init__(self, listener: WebListener, app: ASGIApp) -> None:
        self._listener = listener
        self._app = app
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._context: ssl.SSLContext | None = None
        self.port = 0
        """The bound port; 0 before `start`."""

    async def start(self, *, grace_s: int) -> None:
        """
        Bind the port, then serve.

        *grace_s*: how long running requests may take after `stop`. Raises
        `WebListenError`.
        """
        listener = self._listener
        self.renew()
        sockets = _bound(listener)
        self.port = sockets[0].getsockname()[1]
        self._server = _Server(
            uvicorn.Config(
                self._app,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=HEAD_BYTES_MAX,
                limit_concurrency=listener.requests_max,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=grace_s,
            ),
            listener,
            self._current,
        )
        self._serving = asyncio.create_task(
            self._server.serve(sockets=sockets), name=listener.section
        )
        log.info("listening", extra={"listener": listener.section, "port": self.port})

    def _current(self) -> ssl.SSLContext:
        if self._context is None:
            raise ValueError("the listener has not started")
        return self._context

    def use(self, certificate: Path, key: Path) -> None:
        """Read the certificate from these files at the next renewal."""
        self._listener = dataclasses.replace(
            self._listener, certificate=certificate, key=key
        )

    def renew(self) -> None:
        """Use the certificates that are now in the files for new connections."""
        listener = self._listener
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(listener.certificate, listener.key)
        if listener.client_authority is not None:
            context.load_verify_locations(
                cadata=listener.client_authority().decode("ascii")
            )
            context.verify_mode = ssl.CERT_OPTIONAL
            # A resumed session would not check the certificate again.
            context.num_tickets = 0
            context.options |= ssl.OP_NO_TICKET
        self._context = context

    async def stop(self) -> None:
        """Accept no new requests, let running ones end, and close."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        await asyncio.gather(self._serving, return_exceptions=True)


def _bound(listener: WebListener) -> list[socket.socket]:
    """Listen at every address of the host name. Raises `WebListenError`."""
    sockets: list[socket.socket] = []
    try:
        addresses = socket.getaddrinfo(
            listener.host.strip("[]"),
            listener.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
        for family, kind, protocol, _, place in addresses:
            bound = socket.socket(family, kind, protocol)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(place)
            bound.listen(BACKLOG)
            bound.setblocking(False)  # noqa: FBT003
    except OSError as error:
        for each in sockets:
            each.close()
        raise WebListenError(
            f"[{listener.section}] listen {listener.host}:{listener.port}: cannot "
            f"listen: {error.strerror or error}"
        ) from error
    return sockets
