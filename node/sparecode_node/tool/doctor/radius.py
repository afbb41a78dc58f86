# SPDX-License-Identifier: Apache-2.0
"""Checks of the RADIUS clients that this node serves."""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sparecode_node.config import Config
from sparecode_node.daemon.local_socket import LocalSocketError, radius_packets
from sparecode_node.domain.outcomes import plural
from sparecode_node.membership.preparation import STATE
from sparecode_node.services.access.packet_counts import UNREADABLE
from sparecode_node.statemachine.feature_level import FIRST, RADIUS_CLIENTS
from sparecode_node.statemachine.tables.schema import read_only_uri
from sparecode_node.tool.doctor.findings import Finding, ok, warn

WRONG_SECRET = ("wrong_secret", UNREADABLE)


class _Client(NamedTuple):
    """A client in the state."""

    name: str
    allow_unsigned: bool
    allow_unsigned_proxied: bool
    unsigned_until_signed: bool


def check_radius(config: Config, *, running: bool = False) -> Iterator[Finding]:
    """
    Check the clients; yield nothing without `[radius]`, or without a state.

    *running*: the node runs, and knows which packets have come.
    """
    path = config.node.data_dir / STATE
    if config.radius is None or not path.exists():
        return
    clients: list[_Client] | None = None
    with (
        contextlib.suppress(sqlite3.DatabaseError),  # `check_state` reports it.
        contextlib.closing(sqlite3.connect(read_only_uri(path), uri=True)) as db,
    ):
        clients = _clients(db)
    if clients is None:
        # A stopped node has the tables of its level, without those of RADIUS.
        yield warn(
            "RADIUS",
            f"no packet is answered before feature level {RADIUS_CLIENTS}: install this "
            "release on every member",
        )
        return
    if not clients:
        yield warn(
            "RADIUS",
            "no client is registered, so no packet is answered: sparecode agents "
            "add --radius, or remove [radius] from node.toml",
        )
        return
    yield from _check_signatures(clients)
    if running:
        yield from _check_packets(config, clients)


def _clients(db: sqlite3.Connection) -> list[_Client] | None:
    """Return the clients; None: the cluster's level knows none."""
    level = db.execute(
        "SELECT value FROM meta WHERE name = 'feature_level'"
    ).fetchone() or (FIRST,)
    if level[0] < RADIUS_CLIENTS:
        return None
    rows = db.execute(
        "SELECT name, allow_unsigned, allow_unsigned_proxied, unsigned_until_signed "
        "FROM radius_clients JOIN agents USING (identity) ORDER BY name_key"
    )
    return [_Client(name, *map(bool, settings)) for name, *settings in rows]


def _check_signatures(clients: Sequence[_Client]) -> Iterator[Finding]:
    unsigned = [each for each in clients if each.allow_unsigned]
    for client in unsigned:
        words = ", even with Proxy-State" if client.allow_unsigned_proxied else ""
        if client.unsigned_until_signed:
            words += ", until it has sent a signed one"
        yield warn(
            "RADIUS",
            f"{client.name} may send requests without Message-Authenticator{words} "
            "(BlastRADIUS): update the client, then run: sparecode agents "
            f"update-radius {client.name} --require-signed",
        )
    if not unsigned:
        yield ok("RADIUS", f"every request is signed; clients: {len(clients)}")


def _check_packets(config: Config, clients: Sequence[_Client]) -> Iterator[Finding]:
    try:
        packets = radius_packets(config.node.data_dir)
    except LocalSocketError as error:
        yield warn("RADIUS", f"packets are not checked: {error}")
        return
    for client in clients:
        count = sum(packets.get((client.name, each), 0) for each in WRONG_SECRET)
        if count:
            yield warn(
                "RADIUS",
                f"{client.name} has a wrong secret, or another sender has its address: "
                f"{plural(count, 'packet')} since the node started; enter the secret "
                f"again, or run: sparecode agents rotate-secret {client.name}",
            )
    seen = {name for name, _ in packets}
    silent = [each.name for each in clients if each.name not in seen]
    if silent:
        # It may have another node as its first server.
        yield ok(
            "RADIUS", f"no packet since the node started from: {', '.join(silent)}"
        )
