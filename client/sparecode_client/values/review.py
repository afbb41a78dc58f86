# SPDX-License-Identifier: Apache-2.0
"""What has to be looked at before a restored cluster serves agents, as values."""

from dataclasses import dataclass
from datetime import datetime

from sparecode_client.values.results import ReadPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedAdministrator:
    """An administrator, as the state has it."""

    name: str
    role: str
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedAgent:
    """An agent, as the state has it."""

    name: str
    identity: str
    enabled: bool
    restricted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedCertificate:
    """A certificate that is denied."""

    mark: str
    """`fingerprint` or `serial_number`."""
    value: str
    denied_time: datetime | None
    denied_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReview:
    """The state of a cluster, as far as it decides who gets in."""

    cluster_id: str
    open: bool
    """Agents are served."""
    epoch: int
    cause: str
    """`restore` or `recover`; empty: it never was."""
    begin_time: datetime | None
    state_index: int
    state_time: datetime | None
    """What was changed after it may be missing."""
    review: str
    """Names what is here, for `open_cluster`."""
    administrators: tuple[ReviewedAdministrator, ...]
    agents: tuple[ReviewedAgent, ...]
    disabled_users: tuple[str, ...]
    """Empty for a role that may not see users."""
    disabled_users_count: int
    denied_certificates: tuple[ReviewedCertificate, ...]
    position: ReadPosition | None
