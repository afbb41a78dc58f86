# SPDX-License-Identifier: Apache-2.0
"""Channels to nodes: addresses, TLS and connection timeouts."""

import contextlib
import ipaddress
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

log = logging.getLogger(__name__)

AGENTS_PORT = 7300
PEERS_PORT = 7301
"""For addresses of new nodes: the client itself never connects to it."""
ADMIN_PORT = 7304
CONNECT_TIMEOUT_MS = 2_000
LOOK_S = 5.0
"""Seconds between two checks of the certificate files."""

Connect = Callable[[str], grpc.aio.Channel]
"""Opens a channel to the address of a node. Tests replace it."""

PathLike = str | os.PathLike[str]
Nodes = str | Sequence[str]
"""Addresses of nodes, as `host` or `host:port`: a sequence, or one address."""

_HOST_AND_PORT = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]\s/]+)(:(?P<port>\d+))?"
)
_PORT_MAX = 65_535

OPTIONS: list[tuple[str, int]] = [
    # Reconnect to a restarted node within a second, not within two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Despite its name, this is the connection timeout.
    ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
    # A channel beside a dead one must open a connection of its own.
    ("grpc.use_local_subchannel_pool", 1),
    # The library retries, with a request id and on other nodes; gRPC must not.
    ("grpc.enable_retries", 0),
]


def address(node: str, default_port: int) -> str:
    """
    Return *node* as `host:port`.

    Raises:
        ValueError: *node* is not a host name or address with an optional port.
    """
    try:
        if ipaddress.ip_address(node).version == 6:  # noqa: PLR2004
            node = f"[{node}]"
    except ValueError:
        pass  # A host name, or an address with a port.
    match = _HOST_AND_PORT.fullmatch(node)
    port = int(match["port"] or default_port) if match else 0
    if match is None or not 0 < port <= _PORT_MAX:
        raise ValueError(
            f"{node!r} is not HOST:PORT with a port from 1 to {_PORT_MAX}, "
            f"as in localhost:{default_port}"
        )
    return f"{match['host']}:{port}"


def addresses(nodes: Nodes, default_port: int) -> list[str]:
    """
    Return every address in *nodes* as `host:port`.

    Raises:
        ValueError: *nodes* is empty, or has a wrong address.
    """
    if isinstance(nodes, str):
        nodes = [nodes]
    if not nodes:
        raise ValueError("at least one node is needed")
    return [address(node, default_port) for node in nodes]


class TlsConnect:
    """
    Opens channels with TLS; with mutual TLS if there is a *certificate* and *key*.

    The files are PEM. They are read at once, so that a wrong file is reported early.
    They are read again when they have changed, because a long-running program outlives
    its certificate. If the changed files cannot be used, for example because only one
    of two has been copied yet, the old ones stay in use and are checked again later.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is not named, or has the wrong content.
    """

    def __init__(
        self,
        ca: PathLike,
        *,
        certificate: PathLike | None = None,
        key: PathLike | None = None,
        look_s: float = LOOK_S,
    ) -> None:
        if not ca:
            raise ValueError(f"ca is {ca!r}: name the {_CONTENT['ca']}")
        if (certificate is None) != (key is None):
            raise ValueError("certificate and key belong together: name both files")
        self._ca, self._certificate, self._key = ca, certificate, key
        self._look_s = look_s
        self._looked_s = time.monotonic()
        self._marks = self._mark()
        self._credentials = self._read()
        self._version = 0

    def __call__(self, node: str) -> grpc.aio.Channel:
        """Open a channel with the current files."""
        return grpc.aio.secure_channel(node, self._credentials, options=OPTIONS)

    def version(self) -> int:
        """Return how often the files have changed. Check them first if it is time to."""
        now_s = time.monotonic()
        if now_s - self._looked_s < self._look_s:
            return self._version
        self._looked_s = now_s
        try:
            marks = self._mark()
            if marks != self._marks:
                self._credentials, self._marks = self._read(), marks
                self._version += 1
        except (OSError, ValueError) as error:
            log.warning("certificate_not_renewed", extra={"cause": str(error)})
        return self._version

    def _mark(self) -> tuple[tuple[int, ...], ...]:
        """Return values that differ once a file has been replaced."""
        files = {"ca": self._ca, "certificate": self._certificate, "key": self._key}
        marks = []
        for argument, path in files.items():
            if path is not None:
                with _explained(argument):
                    stat = Path(path).stat()
                marks.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
        return tuple(marks)

    def _read(self) -> grpc.ChannelCredentials:
        ca = _read_pem("ca", self._ca, "CERTIFICATE")
        if self._certificate is None or self._key is None:
            return grpc.ssl_channel_credentials(ca)
        certificate = _read_pem("certificate", self._certificate, "CERTIFICATE")
        key = _read_pem("key", self._key, "PRIVATE KEY")
        private = serialization.load_pem_private_key(key, None)
        if x509.load_pem_x509_certificate(certificate).public_key() != (
            private.public_key()
        ):
            raise ValueError(
                f"{os.fspath(self._key)} is not the key of {os.fspath(self._certificate)}"
            )
        return grpc.ssl_channel_credentials(ca, key, certificate)


_CONTENT = {
    "ca": "file with the authority of the nodes' certificates (members-ca.pem)",
    "certificate": "file with the certificate of this client",
    "key": "file with the key of this client's certificate",
}
"""What each argument names."""


@contextlib.contextmanager
def _explained(argument: str) -> Iterator[None]:
    """Let the error about a file also say what the file is for."""
    try:
        yield
    except OSError as error:
        words = f"{error.strerror}: {argument} must name the {_CONTENT[argument]}"
        raise OSError(error.errno, words, error.filename) from None


def _read_pem(argument: str, path: PathLike, label: str) -> bytes:
    with _explained(argument):
        content = Path(path).read_bytes()
    # Without this check, gRPC would only report a failed connection later.
    if not re.search(rb"-----BEGIN [A-Z ]*%b-----" % label.encode(), content):
        raise ValueError(f"{os.fspath(path)} is not a PEM file with a {label}")
    return content
