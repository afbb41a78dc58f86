# SPDX-License-Identifier: Apache-2.0
"""The review that an operator makes before a restored cluster serves agents (E2)."""

from dataclasses import dataclass

from sparecode_node.domain.radius import NO_ATTRIBUTES, AcceptAttributes
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.handlers.epochs import FIRST_EPOCH
from sparecode_node.statemachine.tables.review import REVIEWED, mark_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedAdministrator:
    """An administrator of the restored state."""

    name: str
    role: str
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedAgent:
    """An agent of the restored state."""

    name: str
    identity: str
    enabled: bool
    restricted: bool
    key_created_at_ms: int | None
    """When its bearer key was drawn; None: it has none. A later one is not valid."""
    accept_attributes: AcceptAttributes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedCertificate:
    """A certificate on the deny list."""

    mark: str
    value: str
    denied_at_ms: int
    denied_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedRadiusClient:
    """A RADIUS client of the restored state, which is one of the agents, too."""

    name: str
    networks: tuple[str, ...]
    allow_unsigned: bool
    allow_unsigned_proxied: bool
    unsigned_until_signed: bool
    secret_created_at_ms: int | None
    """When its secret was drawn. One that was drawn later is not valid any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """The parts of a restored state that decide who has access."""

    cluster_id: str
    open: bool
    epoch: int
    cause: str
    """`restore` or `recover`; empty in the first epoch."""
    began_at_ms: int | None
    state_index: int
    state_at_ms: int | None
    """The log's time of the restored state; later changes may be missing."""
    mark: str
    """Hash of everything below; opening the cluster names it."""
    administrators: tuple[ReviewedAdministrator, ...]
    agents: tuple[ReviewedAgent, ...]
    disabled_users: tuple[str, ...]
    """Empty for callers who may not read users; all callers see the count."""
    disabled_users_count: int
    denied_certificates: tuple[ReviewedCertificate, ...]
    radius_clients: tuple[ReviewedRadiusClient, ...]


async def find(transaction: ReadTransaction, *, names_users: bool) -> Review:
    """Return the review. *names_users*: the caller may read users."""
    answers = [
        [tuple(row) for row in await transaction.all(query)] for query in REVIEWED
    ]
    administrators, agents, users, certificates, *added = answers
    radius_clients, networks, keys, accepts = added
    attributes = {
        row[0]: AcceptAttributes(
            filter_id=row[1], class_attribute=row[2], session_timeout_s=row[3]
        )
        for row in accepts
    }
    key_times = {row[0]: row[3] for row in keys}
    meta = {
        row["name"]: row["value"]
        for row in await transaction.all("SELECT name, value FROM meta")
    }
    return Review(
        cluster_id=str(meta.get("cluster_id", "")),
        open=not meta.get("not_open", 0),
        epoch=meta.get("epoch", FIRST_EPOCH),
        cause=meta.get("epoch_cause", ""),
        began_at_ms=meta.get("epoch_at_ms"),
        state_index=meta.get("epoch_state_index", 0),
        state_at_ms=meta.get("epoch_state_at_ms"),
        mark=mark_of(answers),
        administrators=tuple(
            ReviewedAdministrator(name=row[0], role=row[1], enabled=bool(row[2]))
            for row in administrators
        ),
        agents=tuple(
            ReviewedAgent(
                name=row[0],
                identity=row[1],
                enabled=bool(row[2]),
                restricted=bool(row[3]),
                key_created_at_ms=key_times.get(row[1]),
                accept_attributes=attributes.get(row[1], NO_ATTRIBUTES),
            )
            for row in agents
        ),
        disabled_users=tuple(row[0] for row in users) if names_users else (),
        disabled_users_count=len(users),
        denied_certificates=tuple(
            ReviewedCertificate(
                mark=row[0], value=row[1], denied_at_ms=row[2], denied_by=row[3]
            )
            for row in certificates
        ),
        radius_clients=tuple(
            ReviewedRadiusClient(
                name=row[1],
                networks=tuple(each[1] for each in networks if each[0] == row[0]),
                allow_unsigned=bool(row[2]),
                allow_unsigned_proxied=bool(row[3]),
                unsigned_until_signed=bool(row[4]),
                secret_created_at_ms=row[6],
            )
            for row in radius_clients
        ),
    )
