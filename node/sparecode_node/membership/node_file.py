# SPDX-License-Identifier: Apache-2.0
"""`node.toml` of a new node: where its files are, where it listens, and its text."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from sparecode_node.config_section import Address

PORTS = {"agents": 7300, "peers": 7301, "console": 7302, "metrics": 7303, "admin": 7304}
_EVERY_ADDRESS = "0.0.0.0"  # noqa: S104  The default of all listeners but metrics.
_LOOPBACK = "127.0.0.1"

Settings = Mapping[str, Mapping[str, object]]
"""The sections of `node.toml`, each with its settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The paths of a node's files, as `node.toml` has them."""

    config: Path
    """`node.toml` itself. Relative paths start at its folder."""
    tls: Path
    data: Path
    key_ring: Path
    wrapping_key: Path


SYSTEM = Places(
    config=Path("/etc/sparecode/node.toml"),
    tls=Path("/etc/sparecode"),
    data=Path("/var/lib/sparecode"),
    key_ring=Path("/var/lib/sparecode-keys/keyring.json"),
    wrapping_key=Path("/etc/sparecode/wrapping.key"),
)
"""The paths that the systemd unit and the packages expect."""


def places_in(folder: Path) -> Places:
    """Return paths below one folder."""
    return Places(
        config=folder / "node.toml",
        tls=Path("tls"),
        data=Path("data"),
        key_ring=Path("keys/keyring.json"),
        wrapping_key=Path("wrapping.key"),
    )


def listening_host(host: str) -> str:
    """
    Return the address to listen on, for a node that others reach at *host*.

    That is *host* itself if it is an address of this machine. A name, or an address that
    only a router translates, is not: then the node listens on every address.
    """
    bare = host.strip("[]")
    try:
        family = socket.AF_INET6 if ":" in bare else socket.AF_INET
        socket.inet_pton(family, bare)
        with socket.socket(family) as probe:
            probe.bind((bare, 0))
    except OSError:
        return _EVERY_ADDRESS
    return host


def node_settings(
    places: Places, node_id: str, address: Address, listen: str
) -> Settings:
    """
    Return the settings of a node alone in its cluster, or one that joins.

    *address* is where the other nodes reach it. The metrics are for this machine only.
    """
    metrics = listen if listen.startswith("127.") else _LOOPBACK
    pair = {
        "certificate": str(places.tls / "node.pem"),
        "key": str(places.tls / "node.key"),
    }
    return {
        "node": {"id": node_id, "data_dir": str(places.data)},
        "agents": {
            "listen": _listen(listen, PORTS["agents"]),
            **pair,
            "ca": str(places.tls / "agents-ca.pem"),
        },
        "peers": {
            "listen": _listen(listen, address.port),
            **pair,
            "ca": str(places.tls / "members-ca.pem"),
        },
        "console": {"listen": _listen(listen, PORTS["console"]), **pair},
        "metrics": {"listen": _listen(metrics, PORTS["metrics"])},
        "admin": {"listen": _listen(listen, PORTS["admin"]), **pair},
        "cluster": {"members": {node_id: str(address)}},
        "keys": {
            "file": str(places.key_ring),
            "wrapping_key": str(places.wrapping_key),
        },
    }


def node_toml(settings: Settings, *, heading: str = "") -> str:
    """Return the text of `node.toml` with these settings, below a comment."""
    return (f"# {heading}\n" if heading else "") + tomli_w.dumps(settings)


def _listen(host: str, port: int) -> str:
    return str(Address(host, port))
