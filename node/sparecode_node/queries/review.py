# SPDX-License-Identifier: Apache-2.0
"""What has to be looked at before a restored cluster serves agents (E2)."""

from dataclasses import dataclass

from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.handlers.epochs import FIRST_EPOCH
from sparecode_node.statemachine.tables.review import REVIEWED, mark_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedAdministrator:
    """Somebody who may sign in, or might again."""

    name: str
    role: str
    enabled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedAgent:
    """Somebody who may ask."""

    name: str
    identity: str
    enabled: bool
    restricted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedCertificate:
    """A certificate that is denied."""

    mark: str
    value: str
    denied_at_ms: int
    denied_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A state of the past, as far as it decides who gets in."""

    cluster_id: str
    open: bool
    epoch: int
    cause: str
    """`restore`, `recover`; empty in a first epoch."""
    began_at_ms: int | None
    state_index: int
    state_at_ms: int | None
    """What was changed after it may be missing."""
    mark: str
    """Of all below; opening names it."""
    administrators: tuple[ReviewedAdministrator, ...]
    agents: tuple[ReviewedAgent, ...]
    disabled_users: tuple[str, ...]
    """Empty for those who may not see users; the number is for all."""
    disabled_users_count: int
    denied_certificates: tuple[ReviewedCertificate, ...]


async def find(transaction: ReadTransaction, *, names_users: bool) -> Review:
    """Read the review; *names_users*: whoever asks may see users."""
    answers = [
        [tuple(row) for row in await transaction.all(query)] for query in REVIEWED
    ]
    administrators, agents, users, certificates = answers
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
    )
