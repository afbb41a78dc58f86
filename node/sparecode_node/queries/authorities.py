# SPDX-License-Identifier: Apache-2.0
"""The members that have had authorities' keys, and the authorities that are due (P6a)."""

from dataclasses import dataclass

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import AuthorityKey, Successor
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.tables.authorities import (
    ALL_SUCCESSORS,
    keys_in,
    successors_in,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DueAuthority:
    """An authority that is to be replaced: a removed member has had its key."""

    authority: str
    """An `AuthorityKind`."""
    fingerprint: str
    """See `AuthorityKey`."""
    node_id: NodeId
    """The removed member."""
    since_ms: int
    cause: str
    """A `DueCause`."""
    started: bool = False
    """Whether a member is to make its successor."""


async def in_place(transaction: ReadTransaction) -> frozenset[AuthorityKey]:
    """
    Return the authorities whose keys any member has had, now or earlier.

    Not a successor that is only announced: no member trusts it yet.
    """
    rows = await transaction.all(
        "SELECT authority, fingerprint FROM authority_keys "
        "UNION SELECT authority, fingerprint FROM due_authorities "
        "EXCEPT SELECT authority, fingerprint FROM authority_successors WHERE NOT sole"
    )
    return frozenset(keys_in(rows))


async def keys_of(
    transaction: ReadTransaction, node_id: NodeId
) -> frozenset[AuthorityKey]:
    """Return the authorities whose keys a member has had."""
    rows = await transaction.all(
        "SELECT authority, fingerprint FROM authority_keys WHERE node_id = :node_id",
        node_id=node_id,
    )
    return frozenset(keys_in(rows))


async def due(transaction: ReadTransaction) -> tuple[DueAuthority, ...]:
    """Return the authorities that are to be replaced, by member; members' ones first."""
    rows = await transaction.all(
        "SELECT authority, fingerprint, node_id, since_ms, cause, started "
        "FROM due_authorities "
        "ORDER BY node_id, authority DESC, fingerprint"
    )
    return tuple(
        DueAuthority(
            authority=row["authority"],
            fingerprint=row["fingerprint"],
            node_id=NodeId(row["node_id"]),
            since_ms=row["since_ms"],
            cause=row["cause"],
            started=bool(row["started"]),
        )
        for row in rows
    )


async def holders(transaction: ReadTransaction, key: AuthorityKey) -> frozenset[NodeId]:
    """Return the nodes that have had the key of an authority, also removed ones."""
    rows = await transaction.all(
        "SELECT node_id FROM authority_keys "
        "WHERE authority = :authority AND fingerprint = :fingerprint",
        authority=key.authority.value,
        fingerprint=key.fingerprint,
    )
    return frozenset(NodeId(row["node_id"]) for row in rows)


async def successors(transaction: ReadTransaction) -> tuple[Successor, ...]:
    """Return the announced successors, the earliest first. Their proofs are not checked."""
    return successors_in(await transaction.all(ALL_SUCCESSORS))
