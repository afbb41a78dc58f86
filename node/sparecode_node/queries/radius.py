# SPDX-License-Identifier: Apache-2.0
"""RADIUS clients, their settings and their sealed secrets."""

import sqlite3
from dataclasses import dataclass, field

from sparecode_node.domain.ids import AgentIdentity, KeyId
from sparecode_node.domain.radius import AcceptAttributes, RadiusSettings
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.tables.radius import (
    ATTRIBUTE_COLUMNS,
    COLUMNS,
    attributes_in,
    settings_in,
)


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
    settings: RadiusSettings
    secrets: tuple[SealedSecret, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFacts:
    """What administrators may know of a RADIUS client: its secrets only by their times."""

    settings: RadiusSettings
    secret_created_at_ms: int | None
    former_secret_ends_at_ms: int | None
    """When the replaced secret stops working; None: there is none that works."""


async def every(transaction: ReadTransaction) -> list[StoredClient]:
    """Return every RADIUS client, ordered by identity."""
    rows = await transaction.all(
        f"SELECT identity, name, {COLUMNS} "
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
            settings=settings_in(row, tuple(networks.get(row["identity"], ()))),
            secrets=tuple(secrets.get(row["identity"], ())),
        )
        for row in rows
    ]


async def attributes_of(
    transaction: ReadTransaction, identity: str
) -> AcceptAttributes:
    """Return what an Access-Accept tells an agent of any kind."""
    return attributes_in(
        await transaction.one(
            f"SELECT {ATTRIBUTE_COLUMNS} FROM accept_attributes "
            "WHERE identity = :identity",
            identity=identity,
        )
    )


async def facts_of(
    transaction: ReadTransaction, identity: str, now_ms: int
) -> ClientFacts | None:
    """Return what administrators may know of a client; None: it is no RADIUS client."""
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
    times = await transaction.one(
        """
        SELECT max(created_at_ms) FILTER (WHERE ends_at_ms IS NULL) AS created_at_ms,
            max(ends_at_ms) FILTER (WHERE ends_at_ms > :now_ms) AS ends_at_ms
        FROM radius_secrets WHERE identity = :identity
        """,
        identity=identity,
        now_ms=now_ms,
    )
    return ClientFacts(
        settings=settings_in(row, tuple(each["network"] for each in networks)),
        secret_created_at_ms=times["created_at_ms"] if times else None,
        former_secret_ends_at_ms=times["ends_at_ms"] if times else None,
    )


async def secret(
    transaction: ReadTransaction, identity: str, secret_id: str
) -> SealedSecret | None:
    """Return a secret of a client; None: it has no such secret, or no longer."""
    row = await transaction.one(
        "SELECT secret_id, identity, sealed, key_id, ends_at_ms FROM radius_secrets "
        "WHERE secret_id = :secret_id AND identity = :identity",
        secret_id=secret_id,
        identity=identity,
    )
    return None if row is None else _secret(row)


async def allows_unsigned(transaction: ReadTransaction, identity: str) -> bool | None:
    """
    Return whether a client may send requests without Message-Authenticator.

    None: there is no such client.
    """
    row = await transaction.one(
        "SELECT allow_unsigned FROM radius_clients WHERE identity = :identity",
        identity=identity,
    )
    return None if row is None else bool(row["allow_unsigned"])


def _secret(row: sqlite3.Row) -> SealedSecret:
    return SealedSecret(
        secret_id=row["secret_id"],
        identity=AgentIdentity(row["identity"]),
        sealed=row["sealed"],
        key_id=KeyId(row["key_id"]),
        ends_at_ms=row["ends_at_ms"],
    )
