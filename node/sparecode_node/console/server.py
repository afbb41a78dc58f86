# SPDX-License-Identifier: Apache-2.0
"""The listener for browsers: HTTPS, in the node's own event loop."""

import asyncio
import contextlib
import dataclasses
import logging
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sparecode_node.console.app import build_app
from sparecode_node.console.connections import Acceptor, Tracked
from sparecode_node.console.kit.site import Site
from sparecode_node.replication.links.limits import BROWSERS, most_open

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 256
"""Requests beyond this are shed; beyond twice as many, connections wait."""
BACKLOG = 128
IDLE_S = 15
REQUEST_S = 15.0
"""
Time for a handshake, and for a whole request to arrive: idle connections are closed.
"""


class ConsoleListenError(Exception):
    """The listener could not be opened; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleListener:
    """The console's address and certificate."""

    host: str
    port: int
    certificate: Path
    key: Path


class Connection(H11Protocol, Tracked):
    """
    A browser's connection, closed when a request does not arrive completely.

    uvicorn waits forever for the first byte and for the last one: a few hundred
    silent connections would keep everyone else out.
    """

    _waiting: asyncio.TimerHandle | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's.
        super().__init__(*args, **kwargs)
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start waiting for a request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait for the rest of the request."""
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop_waiting()
        elif self._waiting is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        self.ended.set()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._waiting = self.loop.call_later(REQUEST_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


class _Server(uvicorn.Server):
    """A server that does not capture the process's signals: the node handles them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture no signals."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections as uvicorn does, but bound how many are open."""
        await self.lifespan.startup()
        context = self.config.ssl
        if context is None or sockets is None:
            raise ValueError("the console has sockets and a certificate")
        free = asyncio.Semaphore(most_open(BROWSERS))
        acceptors = [
            Acceptor(
                each,
                connect=self._connect,
                context=context,
                handshake_s=REQUEST_S,
                free=free,
            )
            for each in sockets
        ]
        # uvicorn only closes these objects and waits for their end.
        self.servers = cast("list[asyncio.Server]", acceptors)
        self.started = True

    def _connect(self) -> Connection:
        return Connection(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )


class ConsoleServer:
    """Serves a console. `start` once, `stop` once."""

    def __init__(self, listener: ConsoleListener, site: Site) -> None:
        self._listener = listener
        self._site = site
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._context: ssl.SSLContext | None = None
        self.port = 0
        """The bound port; 0 before `start`."""

    async def start(self, *, grace_s: int) -> None:
        """
        Bind the port, then serve.

        *grace_s*: how long running requests may take after `stop`. Raises
        `ConsoleListenError`.
        """
        sockets = _bound(self._listener)
        self.port = sockets[0].getsockname()[1]
        self._server = _Server(
            uvicorn.Config(
                build_app(self._site),
                ssl_certfile=self._listener.certificate,
                ssl_keyfile=self._listener.key,
                ssl_context_factory=lambda _, default: self._own(default()),
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=CONNECTIONS_MAX,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=grace_s,
            )
        )
        self._serving = asyncio.create_task(
            self._server.serve(sockets=sockets), name="console"
        )
        log.info("listening", extra={"listener": "console", "port": self.port})

    def _own(self, context: ssl.SSLContext) -> ssl.SSLContext:
        self._context = _strict(context)
        return self._context

    def use(self, certificate: Path, key: Path) -> None:
        """Read the certificate from these files at the next renewal."""
        self._listener = dataclasses.replace(
            self._listener, certificate=certificate, key=key
        )

    def renew(self) -> None:
        """Present the certificate that is now in the files to new connections."""
        if self._context is not None:
            self._context.load_cert_chain(
                self._listener.certificate, self._listener.key
            )

    async def stop(self) -> None:
        """Accept no new requests, let running ones end, and close."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        await asyncio.gather(self._serving, return_exceptions=True)


def _strict(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _bound(listener: ConsoleListener) -> list[socket.socket]:
    """Listen at every address of the host name. Raises `ConsoleListenError`."""
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
        raise ConsoleListenError(
            f"[console] listen {listener.host}:{listener.port}: cannot listen: "
            f"{error.strerror or error}"
        ) from error
    return sockets
