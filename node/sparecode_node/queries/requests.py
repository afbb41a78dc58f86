# SPDX-License-Identifier: Apache-2.0
"""Remembered request ids, as this node looks them up (Q1, Q2)."""

from sparecode_node.queries import policy as policies
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.commands import RequestKey
from sparecode_node.statemachine.requests import REQUESTS_TIME, answer_of, due_before
from sparecode_node.statemachine.results import Result


async def decided_ms_ago(
    transaction: ReadTransaction,
    caller: str,
    method: str,
    request_id: str,
    *,
    now_ms: int,
) -> int | None:
    """
    Return the age of a remembered request in ms; None: the id is not known here.

    *now_ms*: the primary's time. The time of the state stands still while nothing is
    committed.
    """
    row = await transaction.one(
        """
        SELECT coalesce((SELECT value FROM meta WHERE name = :requests_time),
            (SELECT value FROM meta WHERE name = 'now_ms'), 0) - at_ms
            + max(0, :now_ms
                - coalesce((SELECT value FROM meta WHERE name = 'now_ms'), :now_ms))
            AS age_ms
        FROM requests
        WHERE caller = :caller AND method = :method AND request_id = :request_id
        """,
        caller=caller,
        method=method,
        request_id=request_id,
        requests_time=REQUESTS_TIME,
        now_ms=now_ms,
    )
    return None if row is None else int(row["age_ms"])


async def find(transaction: ReadTransaction, key: RequestKey) -> Result | None:
    """Return the remembered result, as apply would; None: the id is not known here."""
    row = await transaction.one(
        """
        SELECT tag, result, at_ms,
            coalesce((SELECT value FROM meta WHERE name = :requests_time),
                (SELECT value FROM meta WHERE name = 'now_ms'), 0) AS now_ms
        FROM requests
        WHERE caller = :caller AND method = :method AND request_id = :request_id
        """,
        caller=key.caller,
        method=key.method,
        request_id=key.request_id,
        requests_time=REQUESTS_TIME,
    )
    if row is None:
        return None
    # Due rows may stay for some more entries, but they count as forgotten.
    policy = await policies.current(transaction)
    if row["at_ms"] < due_before(row["now_ms"], policy):
        return None
    return answer_of(key, row["tag"], row["result"])
