# SPDX-License-Identifier: Apache-2.0
"""
Who may read `/metrics`: TLS, a bearer token, a client certificate; all are optional.

The files are read again for each connection, so new ones need no restart. Probes of
`/healthz` and `/readyz` need no token and no certificate: they learn whether the node
serves, and if not, one word. What is wrong is for callers who may read the metrics.
"""

import hmac
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

TOKEN_BYTES_MAX = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsAccess:
    """The files that protect the listener."""

    certificate: Path | None = None
    """None: plain HTTP."""
    key: Path | None = None
    ca: Path | None = None
    """Callers of `/metrics` show a certificate of this authority."""
    token_file: Path | None = None
    """Callers of `/metrics` send its first line as a bearer token."""

    @property
    def is_tls(self) -> bool:
        """Whether callers connect by TLS."""
        return self.certificate is not None

    @property
    def is_restricted(self) -> bool:
        """Whether callers of `/metrics` need a token or a certificate."""
        return self.ca is not None or self.token_file is not None

    def context(self) -> ssl.SSLContext | None:
        """Return the context of the next connection. Raises `OSError`, `SSLError`."""
        if self.certificate is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        if self.ca is not None:
            context.load_verify_locations(self.ca)
            # Optional here: probes show none. `allows` requires it for the metrics.
            context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def allows(self, connection: socket.socket, authorization: str) -> bool:
        """Return whether a caller may read the metrics. Raises `OSError`."""
        if self.ca is not None and not (
            isinstance(connection, ssl.SSLSocket) and connection.getpeercert()
        ):
            return False
        if self.token_file is None:
            return True
        with self.token_file.open("rb") as file:
            token = file.read(TOKEN_BYTES_MAX).partition(b"\n")[0].strip()
        sent = authorization.encode(errors="replace")
        return bool(token) and hmac.compare_digest(sent, b"Bearer " + token)


OPEN = MetricsAccess()
"""Plain HTTP, for a network that only monitoring reaches."""
