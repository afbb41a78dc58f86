# SPDX-License-Identifier: Apache-2.0
"""Bearer keys of agents. The state has their digests alone."""

import json
from dataclasses import dataclass

from sparecode_node.domain.ids import AgentIdentity
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.queries.views import AgentKeysView


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """The agent that a key names, and from where."""

    bearer_id: str
    identity: AgentIdentity
    networks: tuple[str, ...]
    """The addresses that it may call from; empty: any."""
    ends_at_ms: int | None
    """None: the current key."""


async def find(transaction: ReadTransaction, digest: bytes) -> KnownKey | None:
    """Return the key of this digest; None: there is none."""
    row = await transaction.one(
        "SELECT bearer_id, identity, networks, ends_at_ms FROM agent_keys "
        "WHERE digest = :digest",
        digest=digest,
    )
    if row is None:
        return None
    return KnownKey(
        bearer_id=row["bearer_id"],
        identity=AgentIdentity(row["identity"]),
        networks=tuple(json.loads(row["networks"])),
        ends_at_ms=row["ends_at_ms"],
    )


async def facts_of(
    transaction: ReadTransaction, identity: str, now_ms: int
) -> AgentKeysView | None:
    """Return what administrators may know of an agent's keys; None: it has none."""
    rows = await transaction.all(
        "SELECT networks, created_at_ms, ends_at_ms FROM agent_keys "
        "WHERE identity = :identity AND (ends_at_ms IS NULL OR ends_at_ms > :now_ms)",
        identity=identity,
        now_ms=now_ms,
    )
    if not rows:
        return None
    current = [row for row in rows if row["ends_at_ms"] is None]
    return AgentKeysView(
        created_at_ms=current[0]["created_at_ms"] if current else None,
        networks=tuple(json.loads(current[0]["networks"])) if current else (),
        former_ends_at_ms=max(
            (row["ends_at_ms"] for row in rows if row["ends_at_ms"] is not None),
            default=None,
        ),
    )
