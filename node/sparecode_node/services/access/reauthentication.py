# SPDX-License-Identifier: Apache-2.0
"""
Whether a session must show password and second factor again (P7).

Apply decides it for every command. `Proposer` checks it earlier, before the work for a
command or effects ahead of it.
"""

from sparecode_node.domain.administrators import REAUTHENTICATION_MS
from sparecode_node.domain.ids import SessionId
from sparecode_node.queries import cluster, sessions
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.feature_level import REAUTHENTICATIONS


async def needed(
    transaction: ReadTransaction, session_id: SessionId, now_ms: int
) -> bool:
    """Return whether the session may not change power now."""
    if await cluster.feature_level(transaction) < REAUTHENTICATIONS:
        return False
    session = await sessions.find(transaction, session_id)
    return session is None or now_ms - session.proved_at_ms > REAUTHENTICATION_MS
