# SPDX-License-Identifier: Apache-2.0
"""The policy that governs."""

import json

from sparecode_node.domain.policy import Policy
from sparecode_node.queries.state import ReadTransaction


async def current(transaction: ReadTransaction) -> Policy:
    """Return the newest policy; the defaults before the cluster is initialized."""
    row = await transaction.one(
        "SELECT value FROM policy ORDER BY version DESC LIMIT 1"
    )
    return Policy(**json.loads(row["value"])) if row else Policy()
