# SPDX-License-Identifier: Apache-2.0
"""
`/metrics`, `/healthz` and `/readyz` over HTTP, for Prometheus and probes.

In threads of its own: they answer when the event loop hangs, and that is what
`/healthz` tells. Nothing of what it is sent finds its way anywhere.
"""

import http.server
import json
import logging
import socket
import socketserver
import threading
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from sparecode_node.services.load.condition import Condition

log = logging.getLogger(__name__)

REQUEST_S = 10.0
"""A caller that says nothing for so long is cut off."""
CONNECTIONS_MAX = 128
"""At once, each with a thread; who comes beyond is cut off."""


class MetricsListener:
    """The listener. `start` it once, `stop` it once."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        registry: CollectorRegistry,
        condition: Condition,
    ) -> None:
        self._address = (host.strip("[]"), port)
        self._registry = registry
        self._condition = condition
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """Where it is bound, once it is."""
        return 0 if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Bind and serve. Raises `OSError`."""
        host, port = self._address
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._server = _Server(family, address, self._registry, self._condition)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="metrics",
            daemon=True,
        )
        self._thread.start()
        log.info("listening", extra={"listener": "metrics", "port": self.port})

    def stop(self) -> None:
        """Take no more requests."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = self._thread = None


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    # Whoever is slow must not hold up the node's end.
    block_on_close = False

    def __init__(
        self,
        family: socket.AddressFamily,
        address: Any,  # noqa: ANN401 - a socket address, as its family has it.
        registry: CollectorRegistry,
        condition: Condition,
    ) -> None:
        self.address_family = family
        self.registry = registry
        self.condition = condition
        self._free = threading.BoundedSemaphore(CONNECTIONS_MAX)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer in a thread, if there is one left."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # No thread was started that would give it back.
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """Answer, and leave the place to the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, *_: object) -> None:
        """Log nothing of a caller that hangs up; a bug has been logged before."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    server_version = "sparecode"
    sys_version = ""
    timeout = REQUEST_S

    def do_GET(self) -> None:
        """Answer one request."""
        try:
            status, kind, body = self._answer()
        except Exception:
            log.exception("metrics failed by a bug")
            status, kind, body = HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - as above.

    def _answer(self) -> tuple[HTTPStatus, str, bytes]:
        condition = self.server.condition
        match self.path.partition("?")[0]:
            case "/metrics":
                encode, kind = choose_encoder(self.headers.get("Accept", ""))
                return HTTPStatus.OK, kind, encode(self.server.registry)
            case "/healthz":
                return _json(condition.alive, {"alive": condition.alive})
            case "/readyz":
                problems = condition.problems()
                report = {
                    "ready": not problems,
                    "problems": problems,
                    "warnings": condition.warnings(),
                }
                return _json(not problems, report)
            case _:
                known = "known are /metrics, /healthz, /readyz\n"
                return HTTPStatus.NOT_FOUND, "text/plain", known.encode()

    def log_message(self, *_: object) -> None:
        """Log nothing: a scrape is no event."""


def _json(
    fine: bool,  # noqa: FBT001 - what is said of it is in the words.
    report: dict[str, object],
) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.OK if fine else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "application/json", json.dumps(report).encode() + b"\n"
