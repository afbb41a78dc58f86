# SPDX-License-Identifier: Apache-2.0
"""Requested resets of administrators, for announcements (P4)."""

from dataclasses import dataclass

from sparecode_node.domain.ids import AdministratorName
from sparecode_node.queries.state import ReadTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingReset:
    """A requested reset of an administrator, without the password."""

    administrator: str
    node_id: str
    """The node on whose machine it was requested."""
    uid: int
    """User id of the calling process."""
    second_factor: bool
    enables: bool
    """Whether the administrator is disabled: the reset enables them."""
    """Whether it also removes the second factor."""
    asked_at_ms: int
    due_at_ms: int


async def pending(transaction: ReadTransaction) -> tuple[PendingReset, ...]:
    """Return the requested resets that are not in force yet, by name."""
    rows = await transaction.all(
        "SELECT name, node_id, uid, second_factor, asked_at_ms, due_at_ms, "
        "(SELECT NOT enabled FROM administrators "
        "WHERE administrators.name = administrator_resets.name) AS enables "
        "FROM administrator_resets ORDER BY name"
    )
    return tuple(
        PendingReset(
            administrator=row["name"],
            node_id=row["node_id"],
            uid=row["uid"],
            second_factor=bool(row["second_factor"]),
            enables=bool(row["enables"]),
            asked_at_ms=row["asked_at_ms"],
            due_at_ms=row["due_at_ms"],
        )
        for row in rows
    )


async def pending_of(
    transaction: ReadTransaction, name: AdministratorName
) -> PendingReset | None:
    """Return the requested reset of one administrator."""
    resets = await pending(transaction)
    return next((each for each in resets if each.administrator == name), None)
