# SPDX-License-Identifier: Apache-2.0
"""Request ids that have been decided, as a node looks for them itself (Q1, Q2)."""

from sparecode_node.queries import policies
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.commands import RequestKey
from sparecode_node.statemachine.requests import answer_of, due_before
from sparecode_node.statemachine.results import Result


async def find(transaction: ReadTransaction, key: RequestKey) -> Result | None:
    """Return what apply would answer to a known id; None: it is not known here."""
    row = await transaction.one(
        """
        SELECT tag, result, at_ms,
            coalesce((SELECT value FROM meta WHERE name = 'now_ms'), 0) AS now_ms
        FROM requests
        WHERE caller = :caller AND method = :method AND request_id = :request_id
        """,
        caller=key.caller,
        method=key.method,
        request_id=key.request_id,
    )
    if row is None:
        return None
    # What is due may be there for some entries more, and is forgotten all the same.
    policy = await policies.current(transaction)
    if row["at_ms"] < due_before(row["now_ms"], policy):
        return None
    return answer_of(key, row["tag"], row["result"])
