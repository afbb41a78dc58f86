# SPDX-License-Identifier: Apache-2.0
"""Sets that have ended by time and whose users have not heard of it yet (N6)."""

from dataclasses import dataclass

from sparecode_node.queries.state import ReadTransaction


@dataclass(frozen=True, slots=True, kw_only=True)
class DueSetEnds:
    """What the primary needs to know before it has ends told."""

    oldest_ms: int | None
    """The oldest end that is due; None: none is."""
    have_room: bool
    """Whether no channel keeps many notices that wait; dead letters do not count."""


async def due(transaction: ReadTransaction, now_ms: int, *, room: int) -> DueSetEnds:
    """
    Return whether the end of a set is due, and whether channels have room for it.

    *room*: a channel with more notices that wait has none. A full channel drops dead
    letters first, so they take no room.
    """
    row = await transaction.one(
        "SELECT (SELECT min(due_ms) FROM set_ends WHERE due_ms <= :now_ms) AS oldest, "
        "NOT EXISTS (SELECT 1 FROM channels WHERE enabled AND kept > :room AND "
        "(SELECT count(*) FROM notices WHERE notices.channel = channels.channel "
        "AND dead = 0) > :room) AS have_room",
        now_ms=now_ms,
        room=room,
    )
    if row is None:
        raise AssertionError("a SELECT without a table has one row")
    return DueSetEnds(oldest_ms=row["oldest"], have_room=bool(row["have_room"]))
