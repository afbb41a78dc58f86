# SPDX-License-Identifier: Apache-2.0
"""Checks of the RADIUS clients that this node serves."""

import contextlib
import sqlite3
from collections.abc import Iterator

from sparecode_node.config import Config
from sparecode_node.membership.preparation import STATE
from sparecode_node.statemachine.feature_level import FIRST, RADIUS_CLIENTS
from sparecode_node.statemachine.tables.schema import read_only_uri
from sparecode_node.tool.doctor.findings import Finding, ok, warn


def check_radius(config: Config) -> Iterator[Finding]:
    """Check the clients; yield nothing without `[radius]`, or without a state."""
    path = config.node.data_dir / STATE
    if config.radius is None or not path.exists():
        return
    with (
        contextlib.suppress(sqlite3.DatabaseError),  # `check_state` reports it.
        contextlib.closing(sqlite3.connect(read_only_uri(path), uri=True)) as db,
    ):
        yield from _check_clients(db)


def _check_clients(db: sqlite3.Connection) -> Iterator[Finding]:
    level = db.execute(
        "SELECT value FROM meta WHERE name = 'feature_level'"
    ).fetchone() or (FIRST,)
    if level[0] < RADIUS_CLIENTS:
        # A stopped node has the tables of its level, which has no RADIUS clients.
        yield warn(
            "RADIUS",
            f"no packet is answered before feature level {RADIUS_CLIENTS}: install this "
            "release on every member",
        )
        return
    clients = db.execute(
        "SELECT name, allow_unsigned, allow_unsigned_proxied "
        "FROM radius_clients JOIN agents USING (identity) ORDER BY name_key"
    ).fetchall()
    if not clients:
        yield warn(
            "RADIUS",
            "no client is registered, so no packet is answered: sparecode agents "
            "register-radius, or remove [radius] from node.toml",
        )
        return
    unsigned = [(name, proxied) for name, allowed, proxied in clients if allowed]
    for name, proxied in unsigned:
        words = ", even with Proxy-State" if proxied else ""
        yield warn(
            "RADIUS",
            f"{name} may send requests without Message-Authenticator{words} "
            "(BlastRADIUS): update the client, then run: sparecode agents "
            f"update-radius {name} --require-signed",
        )
    if not unsigned:
        yield ok("RADIUS", f"every request is signed; clients: {len(clients)}")
