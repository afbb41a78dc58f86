# SPDX-License-Identifier: Apache-2.0
"""
Sealed segments of the audit log whose events this node lacks, for readers (U1).

A node that joined has the state, and fetches older events in the background. A read
that needs one of them is refused: it must not look as if there were no such events.
"""

from dataclasses import dataclass

from sparecode_node.queries.transaction import ReadTransaction
from sparecode_node.statemachine.tables.archives import (
    NOTHING_REMOVED,
    REMOVED,
    Removed,
)

_MISSING = """
FROM audit_segments AS sealed
WHERE NOT EXISTS (
        -- Events are discarded oldest first, so a segment is whole with its first one.
        SELECT 1 FROM main.audit_events WHERE sequence = sealed.first_sequence
    )
    AND number > (SELECT coalesce(max(through), 0) FROM removed_segments)
    AND last_sequence >= :first AND first_sequence <= :last
    AND NOT EXISTS (SELECT 1 FROM lost_segments WHERE lost_segments.number = sealed.number)
    AND NOT EXISTS (
        SELECT 1 FROM stored_segments AS stored
        WHERE stored.number = sealed.number AND stored.hash = sealed.hash_after
    )
"""
_ANY = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovedEvents:
    """What retention has removed from the beginning of the log, for readers (U4)."""

    last_sequence: int
    last_at_ms: int
    removed_at_ms: int
    archives: str
    """Who had the newest of them, and where, in words."""


def shown(removed: Removed) -> RemovedEvents | None:
    """Return what readers are told; None: nothing was removed."""
    if not removed.through:
        return None
    return RemovedEvents(
        last_sequence=removed.last_sequence,
        last_at_ms=removed.last_at_ms,
        removed_at_ms=removed.at_ms,
        archives=removed.words,
    )


class MissingSegmentError(Exception):
    """This node lacks audit events that the read needs, and fetches them from members."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(f"this node lacks the audit events {first} to {last}")
        self.first = first


async def removed(transaction: ReadTransaction) -> Removed:
    """Return what retention has removed (U4); readers begin after it."""
    row = await transaction.one(REMOVED)
    return NOTHING_REMOVED if row is None else Removed(**dict(row))


async def first_readable(transaction: ReadTransaction) -> int:
    """Return the sequence number from which on this node has all events."""
    row = await transaction.one(
        f"SELECT coalesce(max(last_sequence), 0) + 1 AS first {_MISSING}",
        first=1,
        last=_ANY,
    )
    first = 1 if row is None else int(row["first"])
    return max(first, (await removed(transaction)).last_sequence + 1)


async def require_all(transaction: ReadTransaction) -> None:
    """Raise `MissingSegmentError` if this node lacks an event."""
    await require(transaction, 1, _ANY)


async def require(transaction: ReadTransaction, first: int, last: int) -> None:
    """Raise `MissingSegmentError` if this node lacks one of these events."""
    row = await transaction.one(
        f"SELECT first_sequence, last_sequence {_MISSING} ORDER BY number LIMIT 1",
        first=first,
        last=last,
    )
    if row is not None and first <= last:
        raise MissingSegmentError(row["first_sequence"], row["last_sequence"])


async def readable_part(
    transaction: ReadTransaction, first: int, last: int, *, newest_first: bool
) -> tuple[int, int]:
    """
    Return the range of events that a reader can see before the first missing one.

    With *newest_first* the reader begins with *last*. Raises `MissingSegmentError` if
    this node lacks the first event of all.
    """
    row = await transaction.one(
        f"SELECT first_sequence, last_sequence {_MISSING} "
        f"ORDER BY number {'DESC' if newest_first else 'ASC'} LIMIT 1",
        first=first,
        last=last,
    )
    if row is None or first > last:
        return first, last
    missing_first, missing_last = row["first_sequence"], row["last_sequence"]
    if (missing_last >= last) if newest_first else (missing_first <= first):
        raise MissingSegmentError(missing_first, missing_last)
    return (missing_last + 1, last) if newest_first else (first, missing_first - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentEnd:
    """The last event of a sealed segment."""

    sequence: int
    hash: bytes
    at_ms: int


async def end_of(transaction: ReadTransaction, number: int) -> SegmentEnd | None:
    """Return the end of a sealed segment, also of a removed one. None: there is none."""
    row = await transaction.one(
        "SELECT last_sequence, hash_after, last_at_ms FROM audit_segments "
        "WHERE number = :number",
        number=number,
    )
    if row is None:
        return None
    return SegmentEnd(
        sequence=row["last_sequence"],
        hash=bytes(row["hash_after"]),
        at_ms=row["last_at_ms"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LostSegment:
    """A segment that no member has; the hash of its last event continues the chain."""

    first: int
    last: int
    hash_after: bytes


async def lost_from(transaction: ReadTransaction, sequence: int) -> LostSegment | None:
    """Return the lost segment that begins with an event."""
    row = await transaction.one(
        "SELECT first_sequence, last_sequence, hash_after FROM audit_segments "
        "JOIN lost_segments USING (number) WHERE first_sequence = :sequence",
        sequence=sequence,
    )
    if row is None:
        return None
    return LostSegment(
        first=row["first_sequence"],
        last=row["last_sequence"],
        hash_after=row["hash_after"],
    )
