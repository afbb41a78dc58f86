# SPDX-License-Identifier: Apache-2.0
"""Channels to nodes: addresses, TLS, and how long a connection may take."""

import ipaddress
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc

AGENTS_PORT = 7300
ADMIN_PORT = 7304
CONNECT_TIMEOUT_MS = 2_000

Connect = Callable[[str], grpc.aio.Channel]
"""Opens a channel to the address of a node: what tests replace."""

PathLike = str | os.PathLike[str]
Nodes = str | Sequence[str]
"""Addresses of nodes, `host` or `host:port`; one alone may be given as it is."""

_HOST_AND_PORT = re.compile(
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]\s/]+)(:(?P<port>\d+))?"
)
_PORT_MAX = 65_535

OPTIONS: list[tuple[str, int]] = [
    # A node that comes back is found within a second, not within two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Despite its name, this is how long gRPC waits for a connection.
    ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
    # We retry, with our request id and on other nodes; gRPC must not do it too.
    ("grpc.enable_retries", 0),
]


def address(node: str, default_port: int) -> str:
    """
    Return *node* as `host:port`.

    Raises:
        ValueError: It is no host name or address with an optional port.
    """
    try:
        if ipaddress.ip_address(node).version == 6:  # noqa: PLR2004
            node = f"[{node}]"
    except ValueError:
        pass  # A name, or with a port.
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
    Return *nodes* as `host:port` each; one alone may be given as it is.

    Raises:
        ValueError: There is none, or one is no address.
    """
    if isinstance(nodes, str):
        nodes = [nodes]
    if not nodes:
        raise ValueError("name one node at least")
    return [address(node, default_port) for node in nodes]


def tls(
    ca: PathLike, *, certificate: PathLike | None = None, key: PathLike | None = None
) -> Connect:
    """
    Return how to connect with TLS, and mutually if *certificate* and *key* are given.

    The files are PEM. They are read now, so that a wrong one is told at once.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is not what it should be.
    """
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_read_pem(ca, "CERTIFICATE"),
        private_key=None if key is None else _read_pem(key, "PRIVATE KEY"),
        certificate_chain=(
            None if certificate is None else _read_pem(certificate, "CERTIFICATE")
        ),
    )

    def connect(node: str) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(node, credentials, options=OPTIONS)

    return connect


def _read_pem(path: PathLike, label: str) -> bytes:
    content = Path(path).read_bytes()
    # gRPC itself would only say later that it cannot connect.
    if not re.search(rb"-----BEGIN [A-Z ]*%b-----" % label.encode(), content):
        raise ValueError(f"{os.fspath(path)} is no PEM file with a {label}")
    return content
