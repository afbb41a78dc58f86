# SPDX-License-Identifier: Apache-2.0
"""The listener for browsers."""

from dataclasses import dataclass
from pathlib import Path

from sparecode_node.console.app import build_app
from sparecode_node.console.kit.site import Site
from sparecode_node.replication.links.limits import BROWSERS
from sparecode_node.services.access.security_log import SecurityLog
from sparecode_node.web.server import WebListener, WebServer

LISTENER = "console"
CONNECTIONS_MAX = 256
"""Requests beyond this are shed; beyond twice as many, connections wait."""
REQUEST_S = 15.0
"""
Time for a handshake, and for a whole request to arrive: idle connections are closed.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleListener:
    """The console's address and certificate."""

    host: str
    port: int
    certificate: Path
    key: Path


class ConsoleServer(WebServer):
    """Serves a console. `start` once, `stop` once."""

    def __init__(
        self, listener: ConsoleListener, site: Site, security_log: SecurityLog
    ) -> None:
        super().__init__(
            WebListener(
                section=LISTENER,
                host=listener.host,
                port=listener.port,
                certificate=listener.certificate,
                key=listener.key,
                connections=BROWSERS,
                requests_max=CONNECTIONS_MAX,
                request_s=REQUEST_S,
                on_handshake_failed=lambda error: security_log.handshake_failed(
                    LISTENER, error
                ),
                on_malformed=lambda peer: security_log.malformed(LISTENER, peer),
            ),
            build_app(site),
        )
