# SPDX-License-Identifier: Apache-2.0
"""The listener for agents over HTTP."""

from collections.abc import Callable
from pathlib import Path

from sparecode_node.http.app import LISTENER, REQUEST_S, Parts, build_app
from sparecode_node.replication.links.limits import HTTP_AGENTS
from sparecode_node.web.server import WebListener, WebServer


class HttpServer(WebServer):
    """Serves the HTTP door. `start` once, `stop` once."""

    def __init__(
        self,
        parts: Parts,
        *,
        host: str,
        port: int,
        certificate: Path,
        key: Path,
        authority: Callable[[], bytes],
    ) -> None:
        """Serve on this address; *authority* returns that of the agents (PEM)."""
        security = parts.refusals.log
        super().__init__(
            WebListener(
                section=LISTENER,
                host=host,
                port=port,
                certificate=certificate,
                key=key,
                connections=HTTP_AGENTS,
                request_s=REQUEST_S,
                client_authority=authority,
                on_handshake_failed=lambda error: security.handshake_failed(
                    LISTENER, error
                ),
                on_malformed=lambda peer: security.malformed(LISTENER, peer),
            ),
            build_app(parts),
        )
