# SPDX-License-Identifier: Apache-2.0
"""
Whether a session must show password and second factor again (P7).

Apply decides it for every command. This check answers before a use case that has
effects ahead of its command: a new key is handed out, or a secret is shown.
"""

from sparecode_node.domain.administrators import REAUTHENTICATION_MS
from sparecode_node.domain.ids import SessionId
from sparecode_node.queries import cluster, sessions
from sparecode_node.queries.state import LocalState, ReadTransaction
from sparecode_node.services.errors import Refused
from sparecode_node.statemachine.feature_level import REAUTHENTICATIONS
from sparecode_node.statemachine.power import REAUTHENTICATION_NEEDED


async def needed(
    transaction: ReadTransaction, session_id: SessionId, now_ms: int
) -> bool:
    """Return whether the session may not change power now."""
    if await cluster.feature_level(transaction) < REAUTHENTICATIONS:
        return False
    session = await sessions.find(transaction, session_id)
    return session is None or now_ms - session.proved_at_ms > REAUTHENTICATION_MS


async def require(state: LocalState, session_id: SessionId, now_ms: int) -> None:
    """Raise `Refused` (`REAUTHENTICATION_NEEDED`) unless it is recent enough."""
    async with state.transaction() as transaction:
        if await needed(transaction, session_id, now_ms):
            raise Refused(REAUTHENTICATION_NEEDED)
