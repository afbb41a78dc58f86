# SPDX-License-Identifier: Apache-2.0
"""The current policy."""

import functools
import json

from sparecode_node.domain.policy import Policy
from sparecode_node.queries.state import ReadTransaction


async def current(transaction: ReadTransaction) -> Policy:
    """Return the current policy, or the defaults if the cluster is not initialized."""
    row = await transaction.one(
        "SELECT value FROM policy ORDER BY version DESC LIMIT 1"
    )
    return parsed(row["value"]) if row else Policy()


async def initialized(transaction: ReadTransaction) -> bool:
    """Return whether the cluster has begun: its first policy comes with its founder."""
    return await transaction.one("SELECT 1 FROM policy LIMIT 1") is not None


@functools.lru_cache(maxsize=4)
def parsed(text: str) -> Policy:
    """Return the policy in a row. Cached: every passcode needs it, and it rarely changes."""
    return Policy(**json.loads(text))
