# SPDX-License-Identifier: Apache-2.0
"""
Sign-ins, refusals and codes per hour, counted in the audit log (U1).

A tally covers the events of a range of sequence numbers, and can be extended: an event
never changes, so a node counts each only once. One read counts a bounded number.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Final

from sparecode_node.domain.lockout import Factor
from sparecode_node.domain.policy import HOUR_MS
from sparecode_node.queries import audit, segments
from sparecode_node.queries.state import ReadTransaction

HOURS: Final = 24

_COUNTS = """
SELECT at_ms / :hour_ms AS hour,
    sum(signing_in AND outcome = 'accepted') AS accepted,
    sum(CASE WHEN signing_in AND outcome = 'refused'
        THEN CASE WHEN detail LIKE '% more within a minute'
            THEN CAST(detail AS INTEGER) ELSE 1 END
        ELSE 0 END) AS refused,
    -- The detail is "set ID: 10 codes, ..."; the id of a set holds no colon.
    sum(CASE WHEN outcome != 'applied' THEN 0
        WHEN action IN ('SaveEmergencyAccess', 'IssueTokencodesInBulk')
        THEN CAST(substr(detail, instr(detail, ': ') + 2) AS INTEGER)
        ELSE action = 'IssueFixedTokencode' END) AS issued,
    sum(signing_in AND outcome = 'accepted' AND (
        instr(detail, :certain)
        -- Of digits alone it may be a tokencode, too: then the set tells.
        OR (instr(detail, :either) AND EXISTS (
            SELECT 1 FROM code_sets JOIN codes USING (set_id)
            WHERE used_at_ms = at_ms
                AND serial = substr(detail, instr(detail, 'token ') + 6,
                    instr(detail, :either) - instr(detail, 'token ') - 6)
        ))
    )) AS used
FROM (
    SELECT *, action IN ('Authenticate', 'ContinueAuthentication') AS signing_in
    FROM audit_events WHERE sequence BETWEEN :first AND :last
)
GROUP BY hour
"""
_FACTOR = ", factor "


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What happened in one hour."""

    accepted: int = 0
    refused: int = 0
    """Wrong passcodes, and users or agents that may not sign in."""
    issued: int = 0
    """Emergency codes; a fixed tokencode counts as one."""
    used: int = 0
    """Sign-ins with an emergency code."""

    def __add__(self, other: "Counts") -> "Counts":
        """Return the sum of both."""
        return Counts(
            **{
                each.name: getattr(self, each.name) + getattr(other, each.name)
                for each in fields(Counts)
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Counts of the events from *first* to *last*, by hours since the Unix epoch."""

    first: int = 1
    last: int = 0
    """Smaller than *first*: no event is counted."""
    last_hash: bytes = b""
    """The chain at *last*: tells whether the log still is the one that was counted."""
    from_ms: int = 0
    """The time of the first counted event, or of the beginning if none is missing."""
    hours: Mapping[int, Counts] = field(default_factory=dict)


async def extend(
    transaction: ReadTransaction, tally: Tally, *, now_ms: int, rows: int
) -> Tally:
    """
    Return the tally of the last 24 hours, with at most *rows* events more.

    New events come first. What is left of *rows* is for older ones, newest first. If
    more are new, or the log is another one, counting starts again at the end.
    """
    hour = now_ms // HOUR_MS
    start_ms = (hour - HOURS + 1) * HOUR_MS
    head = await audit.head(transaction)
    # A node that joined fetches older events in the background, newest first.
    readable = await segments.first_readable(transaction)
    begin = await audit.first_at(transaction, start_ms, head.sequence, first=readable)
    whole = begin if begin > readable or readable == 1 else readable - 1
    if head.sequence - tally.last > rows or not await _continues(transaction, tally):
        tally = Tally()
    if tally.last < tally.first:
        tally = Tally(first=head.sequence + 1, last=head.sequence)
    new = head.sequence - tally.last
    first = max(begin, tally.first - (rows - new))
    ranges = [(max(begin, tally.last + 1), head.sequence), (first, tally.first - 1)]
    counted = [await _count(transaction, *each) for each in ranges]
    return Tally(
        first=min(first, tally.first),
        last=head.sequence,
        last_hash=head.hash,
        from_ms=start_ms if first <= whole else await _at(transaction, first),
        hours=_sum(start_ms // HOUR_MS, [tally.hours, *counted]),
    )


async def _continues(transaction: ReadTransaction, tally: Tally) -> bool:
    """Return whether the log holds the last event that was counted."""
    if not tally.last_hash:
        return True
    row = await transaction.one(
        "SELECT hash FROM audit_events WHERE sequence = :last", last=tally.last
    )
    return row is not None and row["hash"] == tally.last_hash


async def _count(
    transaction: ReadTransaction, first: int, last: int
) -> dict[int, Counts]:
    if first > last:
        return {}
    counted = await transaction.all(
        _COUNTS,
        first=first,
        last=last,
        hour_ms=HOUR_MS,
        certain=f"{_FACTOR}{Factor.EMERGENCY}",
        either=f"{_FACTOR}{Factor.TOKEN} and {Factor.EMERGENCY}",
    )
    return {
        row["hour"]: Counts(**{each.name: row[each.name] for each in fields(Counts)})
        for row in counted
    }


async def _at(transaction: ReadTransaction, sequence: int) -> int:
    row = await transaction.one(
        "SELECT at_ms FROM audit_events WHERE sequence = :sequence", sequence=sequence
    )
    return row["at_ms"] if row is not None else 0


def _sum(first: int, several: Iterable[Mapping[int, Counts]]) -> dict[int, Counts]:
    """Return the sum of each hour from *first* on."""
    total: dict[int, Counts] = {}
    for hours in several:
        for hour, counts in hours.items():
            if hour >= first:
                total[hour] = total.get(hour, Counts()) + counts
    return total
