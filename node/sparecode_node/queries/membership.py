# SPDX-License-Identifier: Apache-2.0
"""Tickets, and the nodes that joined or left."""

import json
from dataclasses import dataclass

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import KnownNode
from sparecode_node.queries.state import ReadTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class TicketTerms:
    """The node that a ticket is for, and what the node may get."""

    node_id: NodeId
    address: str | None
    """None: a ticket of release 0.1.0, which binds neither address nor hosts."""
    hosts: tuple[str, ...]
    with_authority: bool


async def ticket_terms(
    transaction: ReadTransaction, ticket_id: str
) -> TicketTerms | None:
    """Return the terms of a ticket; None: the ticket is unknown."""
    row = await transaction.one(
        "SELECT node_id, address, hosts, with_authority FROM join_tickets "
        "WHERE ticket_id = :ticket_id",
        ticket_id=ticket_id,
    )
    if row is None:
        return None
    return TicketTerms(
        node_id=NodeId(row["node_id"]),
        address=row["address"],
        hosts=tuple(json.loads(row["hosts"])),
        with_authority=bool(row["with_authority"]),
    )


async def nodes(transaction: ReadTransaction) -> tuple[KnownNode, ...]:
    """Return the nodes that joined or left after the cluster was initialized."""
    rows = await transaction.all("SELECT * FROM nodes ORDER BY node_id")
    return tuple(
        KnownNode(
            node_id=NodeId(row["node_id"]),
            address=row["address"],
            removed=bool(row["removed"]),
            changed_at_ms=row["changed_at_ms"],
            suspect=bool(row["suspect"]),
            hosts=None if row["hosts"] is None else tuple(json.loads(row["hosts"])),
        )
        for row in rows
    )
