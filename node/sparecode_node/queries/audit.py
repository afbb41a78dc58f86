# SPDX-License-Identifier: Apache-2.0
"""
The audit log, for display (U1).

Sequence numbers have no gaps, and time never goes back from one event to the next. So
a range of times is a range of sequence numbers, and events outside are not read.

A filter on anything else has no index. So one call looks at a bounded part of the log,
and the next one goes on from there: a search holds a connection for milliseconds only.

Sealed events are in a file of this node. A read of events that this node lacks raises
`segments.MissingSegmentError`; a search returns what is before them first.
"""

import sqlite3
from dataclasses import dataclass

from sparecode_node.domain.audit import GENESIS_HASH, AuditEvent
from sparecode_node.queries import pages, segments
from sparecode_node.queries.pages import PageTokenError
from sparecode_node.queries.segments import RemovedEvents
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.queries.views import Page

SEQUENCE_MAX = 2**63 - 1
SEARCHED_MAX = 50_000
"""Events that one call looks at: five segments, 18 MB, about 15 ms when in memory."""

_EVENTS = """
SELECT event.*, coalesce((
    SELECT before.hash FROM audit_events AS before
    WHERE before.sequence = event.sequence - 1
), (
    -- This node may lack the event before it.
    SELECT hash_after FROM audit_segments
    WHERE last_sequence = event.sequence - 1
)) AS previous_hash
FROM audit_events AS event
WHERE event.sequence BETWEEN :first AND :last
    AND (:actor = '' OR event.actor = :actor)
    AND (:action = '' OR event.action = :action)
    AND (:target = '' OR event.target = :target)
    AND (:outcome = '' OR event.outcome = :outcome)
    AND (:reason = '' OR event.reason = :reason)
"""
_OF_AUTHENTICATION = " AND event.authentication_id = :authentication_id"
"""Not as the other conditions: it has an index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Conditions on events; an event must meet all that are set."""

    start_ms: int | None = None
    end_ms: int | None = None
    """Exclusive."""
    actor: str = ""
    action: str = ""
    target: str = ""
    outcome: str = ""
    reason: str = ""
    authentication_id: str = ""
    """The id that an agent got with a decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """An event with its link of the hash chain."""

    event: AuditEvent
    authentication_id: str = ""
    """The id in its detail; empty: it is no decision on a passcode, or of level 1."""
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage(Page[AuditRecord]):
    """A page of events."""

    items: tuple[AuditRecord, ...]
    removed: RemovedEvents | None = None
    """What retention has removed, if the page reaches back to it (U4)."""
    searched_to_sequence: int = 0
    """The last event that was looked at, before the next page; 0: the last page."""
    searched_to_ms: int | None = None
    """The time of that event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditBatch:
    """Some events that match a filter, and the last one that was looked at."""

    items: tuple[AuditRecord, ...]
    searched_to: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """The end of the chain: the number of events, and the hash over all of them."""

    sequence: int
    hash: bytes


async def removed_for(
    transaction: ReadTransaction, criteria: AuditFilter, *, from_sequence: int
) -> RemovedEvents | None:
    """
    Return what retention has removed, if a read reaches back to it; else nothing (U4).

    *from_sequence* 0: it has no first event.
    """
    removed = await segments.removed(transaction)
    if from_sequence > removed.last_sequence:
        return None
    if criteria.start_ms is not None and criteria.start_ms > removed.last_at_ms:
        return None
    return segments.shown(removed)


async def head(transaction: ReadTransaction) -> AuditHead:
    """Return the head of the chain."""
    row = await transaction.one(
        "SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1"
    )
    if row is None:
        return AuditHead(sequence=0, hash=GENESIS_HASH)
    return AuditHead(sequence=row["sequence"], hash=row["hash"])


async def page(
    transaction: ReadTransaction,
    *,
    size: int,
    page_token: str,
    criteria: AuditFilter,
    from_sequence: int,
) -> AuditPage:
    """
    Return a page of events.

    *from_sequence* 0: newest first. Otherwise: from this sequence number on, oldest
    first.
    """
    after = _sequence_of(page_token)
    first, last = await _range(transaction, criteria)
    if from_sequence:
        first = max(first, from_sequence, after + 1)
    elif page_token:
        last = min(last, after - 1)
    items, searched_to = await _search(
        transaction,
        criteria,
        first=first,
        last=last,
        newest_first=not from_sequence,
        rows=size,
    )
    reaches_back = not page_token if from_sequence else searched_to is None
    removed = await removed_for(transaction, criteria, from_sequence=from_sequence)
    return AuditPage(
        items=items,
        next_page_token="" if searched_to is None else pages.encode(str(searched_to)),
        removed=removed if reaches_back else None,
        searched_to_sequence=searched_to or 0,
        searched_to_ms=None
        if searched_to is None
        else await _time_of(transaction, searched_to),
    )


async def batch(
    transaction: ReadTransaction,
    *,
    after: int,
    up_to: int,
    criteria: AuditFilter,
    rows: int,
) -> AuditBatch:
    """Return at most *rows* events after *after* and up to *up_to*, oldest first."""
    first, last = await _range(transaction, criteria)
    items, searched_to = await _search(
        transaction,
        criteria,
        first=max(first, after + 1),
        last=min(last, up_to),
        newest_first=False,
        rows=rows,
    )
    return AuditBatch(
        items=items, searched_to=up_to if searched_to is None else searched_to
    )


async def following(
    transaction: ReadTransaction, *, after: int, up_to: int, rows: int
) -> tuple[AuditRecord, ...]:
    """
    Return at most *rows* events after *after* and up to *up_to*, oldest first.

    Without a filter *rows* bounds what is read. Events that were declared lost are
    passed over, however many.
    """
    everything = AuditFilter()
    first, last = await _range(transaction, everything)
    first, last = max(first, after + 1), min(last, up_to)
    records = await _records(
        transaction, everything, first=first, last=last, newest_first=False, rows=rows
    )
    if len(records) == rows:
        last = records[-1].event.sequence
    await segments.require(transaction, first, last)
    return tuple(records)


async def _search(
    transaction: ReadTransaction,
    criteria: AuditFilter,
    *,
    first: int,
    last: int,
    newest_first: bool,
    rows: int,
) -> tuple[tuple[AuditRecord, ...], int | None]:
    """
    Return at most *rows* events, and the last one that was looked at.

    None instead of it: the whole range was. Raises `MissingSegmentError` if this node
    lacks the event to begin with.
    """
    begin, end = first, last
    if not criteria.authentication_id:
        if newest_first:
            begin = max(first, last - SEARCHED_MAX + 1)
        else:
            end = min(last, first + SEARCHED_MAX - 1)
    begin, end = await segments.readable_part(
        transaction, begin, end, newest_first=newest_first
    )
    records = await _records(
        transaction,
        criteria,
        first=begin,
        last=end,
        newest_first=newest_first,
        rows=rows + 1,
    )
    items = tuple(records[:rows])
    if len(records) > rows:
        return items, items[-1].event.sequence
    if (begin, end) == (first, last):
        return items, None
    return items, begin if newest_first else end


async def _records(
    transaction: ReadTransaction,
    criteria: AuditFilter,
    *,
    first: int,
    last: int,
    newest_first: bool,
    rows: int,
) -> list[AuditRecord]:
    which = _EVENTS + (_OF_AUTHENTICATION if criteria.authentication_id else "")
    events = await transaction.all(
        f"{which} ORDER BY event.sequence {'DESC' if newest_first else 'ASC'} "
        "LIMIT :rows",
        first=first,
        last=last,
        actor=criteria.actor,
        action=criteria.action,
        target=criteria.target,
        outcome=criteria.outcome,
        reason=criteria.reason,
        authentication_id=criteria.authentication_id,
        rows=rows,
    )
    return [_record(row) for row in events]


async def _time_of(transaction: ReadTransaction, sequence: int) -> int:
    """Return the time of an event; of its segment, if it was declared lost."""
    row = await transaction.one(
        "SELECT coalesce("
        "(SELECT at_ms FROM audit_events WHERE sequence = :sequence), "
        "(SELECT last_at_ms FROM audit_segments "
        "WHERE :sequence BETWEEN first_sequence AND last_sequence), 0) AS at_ms",
        sequence=sequence,
    )
    return 0 if row is None else int(row["at_ms"])


def _record(row: sqlite3.Row) -> AuditRecord:
    return AuditRecord(
        event=AuditEvent(
            sequence=row["sequence"],
            at_ms=row["at_ms"],
            actor=row["actor"],
            node=row["node"],
            action=row["action"],
            target=row["target"],
            outcome=row["outcome"],
            reason=row["reason"],
            detail=row["detail"],
        ),
        authentication_id=row["authentication_id"] or "",
        previous_hash=row["previous_hash"] or GENESIS_HASH,
        hash=row["hash"],
    )


def _sequence_of(page_token: str) -> int:
    """Return the sequence number in a page token. Raises `PageTokenError`."""
    key = pages.decode(page_token)
    if not key:
        return 0
    if not (key.isascii() and key.isdigit()) or int(key) > SEQUENCE_MAX - 1:
        raise PageTokenError
    return int(key)


async def _range(
    transaction: ReadTransaction, criteria: AuditFilter
) -> tuple[int, int]:
    """Return the first and last sequence numbers of the filter's range of times."""
    end = (await head(transaction)).sequence
    # This node may not have deleted the events yet that retention has removed.
    first = (await segments.removed(transaction)).last_sequence + 1
    last = end
    if criteria.start_ms is not None:
        first = await first_at(transaction, criteria.start_ms, end, first=first)
    if criteria.end_ms is not None:
        last = await first_at(transaction, criteria.end_ms, end, first=first) - 1
    return first, last


async def first_at(
    transaction: ReadTransaction, at_ms: int, end: int, *, first: int = 1
) -> int:
    """
    Return the sequence number of the first event at or after *at_ms*, or *end* + 1.

    Events before *first* are not read, and do not count. Raises `MissingSegmentError`.
    """
    low, high = first, end + 1
    sealed = await transaction.one(
        "SELECT max(last_sequence) AS last FROM audit_segments "
        "WHERE last_at_ms < :at_ms",
        at_ms=at_ms,
    )
    if sealed is not None and sealed["last"]:
        low = max(low, min(sealed["last"], end) + 1)
    after = await transaction.one(
        "SELECT min(first_sequence) AS first FROM audit_segments "
        "WHERE first_at_ms >= :at_ms",
        at_ms=at_ms,
    )
    if after is not None and after["first"]:
        high = max(low, min(after["first"], high))
    await segments.require(transaction, low, high - 1)
    while low < high:
        middle = (low + high) // 2
        row = await transaction.one(
            "SELECT at_ms FROM audit_events WHERE sequence = :sequence",
            sequence=middle,
        )
        if row is not None and row["at_ms"] < at_ms:
            low = middle + 1
        else:
            high = middle
    return low
