# SPDX-License-Identifier: Apache-2.0
"""Administrators' sessions."""

from dataclasses import dataclass

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import AdministratorName, SessionId
from sparecode_node.queries import cluster
from sparecode_node.queries import policy as policies
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.session_limits import session_limits


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """A session that was not closed. It may have ended by time."""

    administrator: AdministratorName
    role: Role
    ends_at_ms: int
    used_at_ms: int
    """When it was last used, to the minute."""
    unused_end_ms: int
    """When it ends if it is not used again."""
    proved_at_ms: int
    """When password and second factor were last shown (P7)."""
    temporary: bool
    """Whether the administrator has to change a temporary password first."""


async def find(
    transaction: ReadTransaction, session_id: SessionId
) -> StoredSession | None:
    """Return a session with its administrator's role; None if they are disabled."""
    row = await transaction.one(
        """
        SELECT name, role, ends_at_ms, used_at_ms, proved_at_ms, temporary
        FROM sessions JOIN administrators ON name = administrator
        WHERE session_id = :session_id AND enabled
        """,
        session_id=session_id,
    )
    if row is None:
        return None
    role = Role(row["role"])
    limits = session_limits(
        await policies.current(transaction),
        role,
        await cluster.feature_level(transaction),
    )
    return StoredSession(
        administrator=AdministratorName(row["name"]),
        role=role,
        ends_at_ms=row["ends_at_ms"],
        used_at_ms=row["used_at_ms"],
        unused_end_ms=row["used_at_ms"] + limits.idle_ms,
        proved_at_ms=row["proved_at_ms"],
        temporary=bool(row["temporary"]),
    )
