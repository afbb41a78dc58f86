# SPDX-License-Identifier: Apache-2.0
"""Request ids that have been decided, as a node looks for them itself (Q1, Q2)."""

from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.commands import RequestKey
from sparecode_node.statemachine.requests import answer_of
from sparecode_node.statemachine.results import Result


async def find(transaction: ReadTransaction, key: RequestKey) -> Result | None:
    """Return what apply would answer to a known id; None: it is not known here."""
    row = await transaction.one(
        """
        SELECT tag, result FROM requests
        WHERE caller = :caller AND method = :method AND request_id = :request_id
        """,
        caller=key.caller,
        method=key.method,
        request_id=key.request_id,
    )
    return None if row is None else answer_of(key, row["tag"], row["result"])
