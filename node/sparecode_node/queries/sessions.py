# SPDX-License-Identifier: Apache-2.0
"""Administrators' sessions."""

import re
from dataclasses import dataclass

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import (
    PUBLIC_SESSION_DIGITS,
    AdministratorName,
    SessionId,
)
from sparecode_node.domain.passkeys import ShownFactor
from sparecode_node.domain.policy import TIME_MS_MAX, FactorRule
from sparecode_node.queries import cluster, pages
from sparecode_node.queries import policy as policies
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.queries.views import Page
from sparecode_node.statemachine.session_limits import session_limits

_DIGITS = re.compile("[0-9]{1,15}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """A session that was not closed. It may have ended by time."""

    administrator: AdministratorName
    role: Role
    ends_at_ms: int
    used_at_ms: int
    """When it was last used, to the minute."""
    idle_ms: int
    """It ends when it was not used for this long."""
    proved_at_ms: int
    """When password and second factor were last shown (P7)."""
    temporary: bool
    """Whether the administrator has to change a temporary password first."""
    lacks_factor: bool
    """Whether it has not shown the second factor that the policy requires (P8)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionListing:
    """An open session, as people see it."""

    public_id: str
    """The first digits of its id."""
    administrator: str
    opened_at_ms: int
    used_at_ms: int
    """When it was last used, to the minute."""
    ends_at_ms: int
    """When it ends, if it is used until then."""
    unused_end_ms: int
    """When it ends if it is not used again."""
    node_id: str
    """The node that it was opened on. Empty: it was opened before feature level 2."""
    address: str
    door: str
    """`console` or `api`."""
    calling: bool
    """Whether it is the session of the call."""


async def page(
    transaction: ReadTransaction,
    *,
    administrator: AdministratorName | None,
    calling: SessionId,
    now_ms: int,
    size: int,
    page_token: str,
) -> Page[SessionListing]:
    """Return a page of open sessions, newest first; of all administrators if None."""
    policy = await policies.current(transaction)
    level = await cluster.feature_level(transaction)
    opened_at_ms, after = _position(page_token)
    rows = await transaction.all(
        """
        SELECT sessions.*, role FROM sessions JOIN administrators ON name = administrator
        WHERE (opened_at_ms, session_id) < (:opened_at_ms, :after)
            AND (:administrator IS NULL OR administrator = :administrator)
            AND ends_at_ms > :now_ms AND enabled
        ORDER BY opened_at_ms DESC, session_id DESC LIMIT :rows
        """,
        opened_at_ms=opened_at_ms,
        after=after,
        administrator=administrator,
        now_ms=now_ms,
        rows=size + 1,
    )
    kept = pages.page(
        rows, size, lambda row: f"{row['opened_at_ms']} {row['session_id']}"
    )
    listings = tuple(
        SessionListing(
            public_id=row["session_id"][:PUBLIC_SESSION_DIGITS],
            administrator=row["administrator"],
            opened_at_ms=row["opened_at_ms"],
            used_at_ms=row["used_at_ms"],
            ends_at_ms=row["ends_at_ms"],
            unused_end_ms=min(
                row["ends_at_ms"],
                row["used_at_ms"]
                + session_limits(policy, Role(row["role"]), level).idle_ms,
            ),
            node_id=row["node_id"],
            address=row["address"],
            door=row["door"],
            calling=row["session_id"] == calling,
        )
        for row in kept.items
    )
    return Page(items=listings, next_page_token=kept.next_page_token)


def _position(page_token: str) -> tuple[int, str]:
    """Return the session after which the page begins. Raises `PageTokenError`."""
    if not page_token:
        return TIME_MS_MAX, ""
    opened_at_ms, _, session_id = pages.decode(page_token).partition(" ")
    if not _DIGITS.fullmatch(opened_at_ms):
        raise pages.PageTokenError
    return int(opened_at_ms), session_id


async def by_public_id(
    transaction: ReadTransaction, public_id: str
) -> SessionId | None:
    """Return the session whose id begins so."""
    first, after = pages.prefix_range(public_id)
    row = await transaction.one(
        "SELECT session_id FROM sessions "
        "WHERE session_id >= :first AND session_id < :after",
        first=first,
        after=after,
    )
    return SessionId(row["session_id"]) if row else None


async def find(
    transaction: ReadTransaction, session_id: SessionId
) -> StoredSession | None:
    """Return a session with its administrator's role; None if they are disabled."""
    row = await transaction.one(
        """
        SELECT name, role, ends_at_ms, used_at_ms, proved_at_ms, temporary, factor
        FROM sessions JOIN administrators ON name = administrator
        WHERE session_id = :session_id AND enabled
        """,
        session_id=session_id,
    )
    if row is None:
        return None
    role = Role(row["role"])
    policy = await policies.current(transaction)
    limits = session_limits(
        policy,
        role,
        await cluster.feature_level(transaction),
    )
    return StoredSession(
        administrator=AdministratorName(row["name"]),
        role=role,
        ends_at_ms=row["ends_at_ms"],
        used_at_ms=row["used_at_ms"],
        idle_ms=limits.idle_ms,
        proved_at_ms=row["proved_at_ms"],
        temporary=bool(row["temporary"]),
        lacks_factor=not ShownFactor(row["factor"]).satisfies(
            FactorRule(policy.administrators_second_factor)
        ),
    )
