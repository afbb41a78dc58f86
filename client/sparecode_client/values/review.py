# SPDX-License-Identifier: Apache-2.0
"""What to check before a restored cluster serves agents."""

from dataclasses import dataclass
from datetime import datetime

from sparecode_client.values.agents import NO_ATTRIBUTES, AcceptAttributes
from sparecode_client.values.results import ReadPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedAdministrator:
    """An administrator in the restored state."""

    name: str
    role: str
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedAgent:
    """An agent in the restored state."""

    name: str
    identity: str
    enabled: bool
    restricted: bool
    key_create_time: datetime | None
    """When its bearer key was drawn; None: it has none. A later one is not valid."""
    accept_attributes: AcceptAttributes = NO_ATTRIBUTES
    """What an Access-Accept tells it, over RADIUS and RadSec."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedCertificate:
    """A denied certificate in the restored state."""

    mark: str
    """`fingerprint` or `serial_number`."""
    value: str
    denied_time: datetime | None
    denied_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedRadiusClient:
    """A RADIUS client in the restored state. It is one of the agents, too."""

    name: str
    networks: tuple[str, ...]
    allow_unsigned: bool
    """Whether requests without Message-Authenticator are answered, too."""
    allow_unsigned_proxied: bool
    unsigned_until_signed: bool
    """Whether a node requires it once the client has sent it."""
    secret_create_time: datetime | None
    """When its secret was drawn. One that was drawn later is not valid any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReview:
    """The part of a cluster's state that decides who is let in."""

    cluster_id: str
    open: bool
    """Whether the cluster serves agents."""
    epoch: int
    cause: str
    """`restore` or `recover`; empty: the cluster was never restored or recovered."""
    begin_time: datetime | None
    state_index: int
    state_time: datetime | None
    """Changes made after this time may be missing."""
    review: str
    """Identifies this content, for `open_cluster`."""
    administrators: tuple[ReviewedAdministrator, ...]
    agents: tuple[ReviewedAgent, ...]
    disabled_users: tuple[str, ...]
    """Empty if the administrator's role may not see users."""
    disabled_users_count: int
    denied_certificates: tuple[ReviewedCertificate, ...]
    radius_clients: tuple[ReviewedRadiusClient, ...]
    position: ReadPosition | None
