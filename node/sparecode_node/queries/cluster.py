# SPDX-License-Identifier: Apache-2.0
"""The cluster's own row."""

from sparecode_node.queries.state import ReadTransaction


async def cluster_id(transaction: ReadTransaction) -> str:
    """Return the cluster's id; empty before it is initialized."""
    row = await transaction.one("SELECT value FROM meta WHERE name = 'cluster_id'")
    return str(row["value"]) if row else ""
