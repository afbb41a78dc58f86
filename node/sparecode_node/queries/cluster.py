# SPDX-License-Identifier: Apache-2.0
"""The cluster's own rows."""

from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.feature_level import FIRST


async def cluster_id(transaction: ReadTransaction) -> str:
    """Return the cluster's id; empty before it is initialized."""
    row = await transaction.one("SELECT value FROM meta WHERE name = 'cluster_id'")
    return str(row["value"]) if row else ""


async def feature_level(transaction: ReadTransaction) -> int:
    """Return the level that all members know, as it was raised."""
    row = await transaction.one("SELECT value FROM meta WHERE name = 'feature_level'")
    return int(row["value"]) if row else FIRST
