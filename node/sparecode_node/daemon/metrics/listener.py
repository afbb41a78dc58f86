# SPDX-License-Identifier: Apache-2.0
"""
`/metrics`, `/healthz` and `/readyz` over HTTP or HTTPS, for Prometheus and probes.

The listener has its own threads: they answer even if the event loop hangs, which
`/healthz` then reports. Nothing from a request is stored or logged.
"""

import collections
import http.server
import io
import json
import logging
import socket
import socketserver
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from sparecode_node.daemon.metrics.access import OPEN, MetricsAccess
from sparecode_node.services.ambient import SystemClock
from sparecode_node.services.load.condition import Condition

log = logging.getLogger(__name__)

_CLOCK = SystemClock()
REQUEST_S = 10.0
"""
For the TLS handshake, for the whole request, and for each part of the answer. A caller
that takes longer is cut off, however often it sends a byte.
"""
CONNECTIONS_MAX = 128
"""Maximum connections, each with a thread; further ones are closed at once."""
ADDRESS_CONNECTIONS_MAX = 32
"""And of one address: it leaves room for the probes of the others."""


class MetricsListener:
    """The listener. `start` it once, `stop` it once."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        registry: CollectorRegistry,
        condition: Condition,
        access: MetricsAccess = OPEN,
    ) -> None:
        self._address = (host.strip("[]"), port)
        self._access = access
        self._registry = registry
        self._condition = condition
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that the listener is bound to; 0 before that."""
        return 0 if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Bind the port and start serving. Raises `OSError`."""
        host, port = self._address
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._access.context()  # Fail at the start, rather than at the first scrape.
        self._server = _Server(
            family, address, self._registry, self._condition, self._access
        )
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="metrics",
            daemon=True,
        )
        self._thread.start()
        log.info("listening", extra={"listener": "metrics", "port": self.port})

    def stop(self) -> None:
        """Stop serving and close the port."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = self._thread = None


class _Places:
    """The places for connections: a number in total, and a number for each address."""

    def __init__(self) -> None:
        self._taken: collections.Counter[str] = collections.Counter()
        self._counting = threading.Lock()

    def take(self, address: str) -> bool:
        """Take a place, if one is free."""
        with self._counting:
            free = (
                self._taken.total() < CONNECTIONS_MAX
                and self._taken[address] < ADDRESS_CONNECTIONS_MAX
            )
            if free:
                self._taken[address] += 1
            return free

    def release(self, address: str) -> None:
        """Free a place."""
        with self._counting:
            self._taken[address] -= 1
            if not self._taken[address]:
                del self._taken[address]


class _RequestStream(io.RawIOBase):
    """Reads a request from a socket until its deadline, however slowly it arrives."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._ends_at_s = _CLOCK.monotonic_s() + REQUEST_S

    def readable(self) -> bool:
        """Return true."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer.
        """Read what has arrived. Raises `TimeoutError` once the deadline has passed."""
        left_s = self._ends_at_s - _CLOCK.monotonic_s()
        if left_s <= 0:
            raise TimeoutError("the request took too long")
        self._connection.settimeout(left_s)
        return self._connection.recv_into(buffer)


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    # Slow callers must not delay the stop of the node.
    block_on_close = False

    def __init__(
        self,
        family: socket.AddressFamily,
        address: Any,  # noqa: ANN401 - a socket address of this family.
        registry: CollectorRegistry,
        condition: Condition,
        access: MetricsAccess,
    ) -> None:
        self.address_family = family
        self.access = access
        self.registry = registry
        self.condition = condition
        self._places = _Places()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer in a new thread, or close the connection if there are too many."""
        if not self._places.take(client_address[0]):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # No thread was started that would release it.
            self._places.release(client_address[0])
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer, then free the place for another connection."""
        try:
            try:
                # In this thread, with its deadline: a handshake holds up no other.
                request.settimeout(REQUEST_S)
                context = self.access.context()
                if context is not None:
                    request = context.wrap_socket(request, server_side=True)
            except OSError as error:  # `SSLError` is one.
                log.debug("metrics connection refused", extra={"cause": str(error)})
                self.shutdown_request(request)
                return
            super().process_request_thread(request, client_address)
        finally:
            self._places.release(client_address[0])

    def handle_error(self, *_: object) -> None:
        """Do not log callers that hang up; `do_GET` has logged bugs already."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    server_version = "sparecode"
    sys_version = ""

    def setup(self) -> None:
        """Read the request until a deadline; `socketserver` limits only each pause."""
        super().setup()
        self.rfile = io.BufferedReader(_RequestStream(self.connection))

    def do_GET(self) -> None:
        """Answer one request."""
        try:
            status, kind, body = self._answer()
        except Exception:
            log.exception("metrics failed by a bug")
            status, kind, body = HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b""
        self.connection.settimeout(REQUEST_S)  # For the whole answer.
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        if self.server.access.is_tls:
            self.send_header("Strict-Transport-Security", "max-age=31536000")
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - as above.

    def _answer(self) -> tuple[HTTPStatus, str, bytes]:
        condition = self.server.condition
        match self.path.partition("?")[0]:
            case "/metrics":
                if not self._is_allowed():
                    words = b"the metrics need a bearer token or a client certificate\n"
                    return HTTPStatus.UNAUTHORIZED, "text/plain", words
                encode, kind = _encoder(self.headers.get("Accept", ""))
                return HTTPStatus.OK, kind, encode(self.server.registry)
            case "/healthz":
                return _json(condition.alive, {"alive": condition.alive})
            case "/readyz":
                reason = condition.reason()
                report: dict[str, object] = {"ready": reason is None}
                if reason is not None:
                    report["reason"] = reason.value
                if self._is_allowed():
                    report["problems"] = condition.problems()
                    report["warnings"] = condition.warnings()
                return _json(reason is None, report)
            case _:
                known = "not found; try /metrics, /healthz or /readyz\n"
                return HTTPStatus.NOT_FOUND, "text/plain", known.encode()

    def _is_allowed(self) -> bool:
        """Return whether the caller may read what monitoring reads."""
        sent = self.headers.get("Authorization", "")
        return self.server.access.allows(self.connection, sent)

    def log_message(self, *_: object) -> None:
        """Do not log scrapes."""


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    """Return the encoder that a caller accepts; the usual one for an odd header."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        return choose_encoder("")


def _json(
    fine: bool,  # noqa: FBT001 - callers pass named values.
    report: dict[str, object],
) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "application/json", json.dumps(report).encode() + b"\n"
