# SPDX-License-Identifier: Apache-2.0
"""The listener for browsers."""

from dataclasses import dataclass
from pathlib import Path

from sparecode_node.console.app import build_app
from sparecode_node.console.kit.site import Site
from sparecode_node.replication.links.limits import BROWSERS
from sparecode_node.web.server import WebListener, WebServer

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

    def __init__(self, listener: ConsoleListener, site: Site) -> None:
        super().__init__(
            WebListener(
                section="console",
                host=listener.host,
                port=listener.port,
                certificate=listener.certificate,
                key=listener.key,
                connections=BROWSERS,
                requests_max=CONNECTIONS_MAX,
                request_s=REQUEST_S,
            ),
            build_app(site),
        )
