# SPDX-License-Identifier: Apache-2.0
"""RADIUS clients, their settings and their sealed secrets."""

import sqlite3
from dataclasses import dataclass, field

from sparecode_node.domain.agents import Protects
from sparecode_node.domain.ids import AgentIdentity, KeyId
from sparecode_node.domain.radius import RadiusSettings
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.tables.radius import COLUMNS


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecret:
    """A shared secret of a RADIUS client, as the state holds it."""

    secret_id: str
    identity: AgentIdentity
    sealed: bytes = field(repr=False)
    key_id: KeyId
    ends_at_ms: int | None
    """None: the current secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredClient:
    """A RADIUS client with its sealed secrets, the current one first."""

    name: str
    identity: AgentIdentity
    protects: Protects
    enabled: bool
    settings: RadiusSettings
    secrets: tuple[SealedSecret, ...]


async def every(transaction: ReadTransaction) -> list[StoredClient]:
    """Return every RADIUS client, ordered by identity."""
    rows = await transaction.all(
        f"SELECT identity, name, protects, enabled, {COLUMNS} "
        "FROM radius_clients JOIN agents USING (identity) ORDER BY identity"
    )
    networks: dict[str, list[str]] = {}
    for row in await transaction.all(
        "SELECT identity, network FROM radius_networks ORDER BY network"
    ):
        networks.setdefault(row["identity"], []).append(row["network"])
    secrets: dict[str, list[SealedSecret]] = {}
    for row in await transaction.all(
        "SELECT secret_id, identity, sealed, key_id, ends_at_ms FROM radius_secrets "
        "ORDER BY ends_at_ms IS NOT NULL, ends_at_ms DESC"
    ):
        secrets.setdefault(row["identity"], []).append(_secret(row))
    return [
        StoredClient(
            name=row["name"],
            identity=AgentIdentity(row["identity"]),
            protects=Protects(row["protects"]),
            enabled=bool(row["enabled"]),
            settings=settings_in(row, tuple(networks.get(row["identity"], ()))),
            secrets=tuple(secrets.get(row["identity"], ())),
        )
        for row in rows
    ]


async def settings_of(
    transaction: ReadTransaction, identity: str
) -> tuple[RadiusSettings, int | None] | None:
    """
    Return a client's settings, and when its replaced secret ends.

    None: the agent is no RADIUS client. No end: it has only the current secret.
    """
    row = await transaction.one(
        f"SELECT {COLUMNS} FROM radius_clients WHERE identity = :identity",
        identity=identity,
    )
    if row is None:
        return None
    networks = await transaction.all(
        "SELECT network FROM radius_networks WHERE identity = :identity "
        "ORDER BY network",
        identity=identity,
    )
    former = await transaction.one(
        "SELECT max(ends_at_ms) AS ends_at_ms FROM radius_secrets "
        "WHERE identity = :identity",
        identity=identity,
    )
    return (
        settings_in(row, tuple(each["network"] for each in networks)),
        former["ends_at_ms"] if former else None,
    )


def settings_in(row: sqlite3.Row, networks: tuple[str, ...]) -> RadiusSettings:
    """Return the settings in a row of `COLUMNS`."""
    return RadiusSettings(
        networks=networks,
        allow_unsigned=bool(row["allow_unsigned"]),
        allow_unsigned_proxied=bool(row["allow_unsigned_proxied"]),
        repeats_with_new_authenticator=bool(row["repeats_with_new_authenticator"]),
        filter_id=row["filter_id"],
        class_attribute=row["class_attribute"],
        session_timeout_s=row["session_timeout_s"],
    )


def _secret(row: sqlite3.Row) -> SealedSecret:
    return SealedSecret(
        secret_id=row["secret_id"],
        identity=AgentIdentity(row["identity"]),
        sealed=row["sealed"],
        key_id=KeyId(row["key_id"]),
        ends_at_ms=row["ends_at_ms"],
    )
