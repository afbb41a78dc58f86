# SPDX-License-Identifier: Apache-2.0
"""Tickets, and the nodes that joined or left."""

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import KnownNode
from sparecode_node.queries.state import ReadTransaction


async def ticket_node(transaction: ReadTransaction, ticket_id: str) -> NodeId | None:
    """Return the node that a ticket is for; None: the ticket is unknown."""
    row = await transaction.one(
        "SELECT node_id FROM join_tickets WHERE ticket_id = :ticket_id",
        ticket_id=ticket_id,
    )
    return NodeId(row["node_id"]) if row else None


async def nodes(transaction: ReadTransaction) -> tuple[KnownNode, ...]:
    """Return the nodes that joined or left after the cluster was initialized."""
    rows = await transaction.all("SELECT * FROM nodes ORDER BY node_id")
    return tuple(
        KnownNode(
            node_id=NodeId(row["node_id"]),
            address=row["address"],
            removed=bool(row["removed"]),
            changed_at_ms=row["changed_at_ms"],
        )
        for row in rows
    )
