# SPDX-License-Identifier: Apache-2.0
"""Which sealed segments are archived, by whom and where, and what may be removed (U2, U4)."""

from collections import Counter
from dataclasses import dataclass

from sparecode_node.domain.retention import (
    counts_since_ms,
    fresh_since_ms,
    read_before_ms,
    removable_before_ms,
    removal_begins_ms,
)
from sparecode_node.domain.segments import gone, in_words, ranges_of
from sparecode_node.queries import policy as policies
from sparecode_node.queries import segment_holders, segments
from sparecode_node.queries.segments import RemovedEvents
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.tables.archives import FRESH, SHORTENED


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditArchive:
    """What one archiver has confirmed, without removed segments."""

    archiver: str
    place: str
    segments: str
    """Their numbers, in words."""
    confirmed_at_ms: int
    """The time of its last confirmation."""
    counts: bool
    """Whether it counts now: not if its node has said nothing for too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRetention:
    """The archives of the audit log, and what its retention removes."""

    archives: tuple[AuditArchive, ...] = ()
    unarchived_segments: str = ""
    """
    Those that fewer archives have than the policy wants, in words.

    Without lost ones; empty if there is neither an archive nor a retention.
    """
    archives_wanted: int = 0
    removed_segments: str = ""
    removed: RemovedEvents | None = None
    retention_ms: int | None = None
    removal_begins_ms: int | None = None
    """Before it nothing is removed, because a policy keeps less; None: no such policy."""


NO_RETENTION = AuditRetention()


async def overview(transaction: ReadTransaction, now_ms: int) -> AuditRetention:
    """Return the archives and the retention."""
    policy = await policies.current(transaction)
    removed = await segments.removed(transaction)
    shortened_ms = await _shortened_ms(transaction)
    newest = await transaction.one("SELECT max(number) AS last FROM audit_segments")
    last = 0 if newest is None else int(newest["last"] or 0)
    held: dict[str, list[int]] = {}
    copies: Counter[int] = Counter()
    for row in await transaction.all(
        f"SELECT number, archiver, {FRESH} AS counts FROM archived_segments",
        since=fresh_since_ms(now_ms),
    ):
        held.setdefault(row["archiver"], []).append(row["number"])
        copies[row["number"]] += row["counts"]
    places = await transaction.all(
        f"SELECT archiver, place, at_ms, {FRESH} AS counts FROM archive_places "
        "ORDER BY archiver",
        since=fresh_since_ms(now_ms),
    )
    wanted = policy.audit_archive_copies
    done = {number for number, count in copies.items() if count >= wanted}
    exempt = await _gone(transaction)
    every = set(range(removed.through + 1, last + 1))
    unarchived = every - done - exempt
    is_used = bool(places) or policy.audit_retention_ms is not None
    return AuditRetention(
        archives=tuple(
            AuditArchive(
                archiver=row["archiver"],
                place=row["place"],
                segments=in_words(ranges_of(held.get(row["archiver"], ()))),
                confirmed_at_ms=row["at_ms"],
                counts=bool(row["counts"]),
            )
            for row in places
        ),
        unarchived_segments=in_words(ranges_of(unarchived)) if is_used else "",
        archives_wanted=wanted,
        removed_segments=in_words(ranges_of(range(1, removed.through + 1))),
        removed=segments.shown(removed),
        retention_ms=policy.audit_retention_ms,
        removal_begins_ms=removal_begins_ms(shortened_ms) if shortened_ms else None,
    )


async def confirmed(transaction: ReadTransaction, archiver: str) -> frozenset[int]:
    """Return the segments that an archiver has confirmed, without removed ones."""
    rows = await transaction.all(
        "SELECT number FROM archived_segments WHERE archiver = :archiver",
        archiver=archiver,
    )
    return frozenset(row["number"] for row in rows)


async def hash_after(transaction: ReadTransaction, number: int) -> bytes:
    """Return the hash of the last event of a segment; empty: there is no such segment."""
    end = await segments.end_of(transaction, number)
    return b"" if end is None else end.hash


async def removable(transaction: ReadTransaction, now_ms: int, *, most: int) -> int:
    """
    Return the last segment that may be removed now, with all before it; 0: none.

    At most *most* segments more than before.
    """
    policy = await policies.current(transaction)
    shortened_ms = await _shortened_ms(transaction)
    limit_ms = removable_before_ms(policy, now_ms, shortened_ms)
    if not limit_ms:
        return 0
    removed = (await segments.removed(transaction)).through
    rows = await transaction.all(
        "SELECT number, ("
        "    SELECT count(*) FROM archived_segments AS archived"
        f"    WHERE archived.number = sealed.number AND {FRESH}"
        ") AS copies FROM audit_segments AS sealed "
        "WHERE number > :removed AND number <= :removed + :most "
        "AND last_at_ms < :limit ORDER BY number",
        removed=removed,
        most=most,
        limit=limit_ms,
        since=counts_since_ms(now_ms, shortened_ms),
    )
    exempt = await _gone(transaction)
    through = 0
    for row in rows:
        if row["number"] not in exempt and row["copies"] < policy.audit_archive_copies:
            break
        through = row["number"]
    return through


@dataclass(frozen=True, slots=True, kw_only=True)
class SoonRemovable:
    """Segments that may be removed while what a node says now still counts."""

    numbers: frozenset[int]
    since_ms: int
    """A node must have read them since then, to confirm them."""


async def soon_removable(transaction: ReadTransaction, now_ms: int) -> SoonRemovable:
    """Return what a node reads before it confirms its archive."""
    policy = await policies.current(transaction)
    rows = await transaction.all(
        "SELECT number FROM audit_segments WHERE number > :removed "
        "AND last_at_ms < :limit",
        removed=(await segments.removed(transaction)).through,
        limit=read_before_ms(policy, now_ms),
    )
    return SoonRemovable(
        numbers=frozenset(row["number"] for row in rows),
        since_ms=counts_since_ms(now_ms, await _shortened_ms(transaction)),
    )


async def said_ms(transaction: ReadTransaction, archiver: str) -> int:
    """Return when an archiver last said what it has; 0: never."""
    row = await transaction.one(
        "SELECT at_ms FROM archive_places WHERE archiver = :archiver", archiver=archiver
    )
    return 0 if row is None else int(row["at_ms"])


async def _gone(transaction: ReadTransaction) -> frozenset[int]:
    """Return the segments that were declared lost, and that no member holds."""
    held = await segment_holders.overview(transaction)
    return gone(held.lost, held.holdings.values())


async def _shortened_ms(transaction: ReadTransaction) -> int:
    row = await transaction.one(
        "SELECT value FROM meta WHERE name = :name", name=SHORTENED
    )
    return 0 if row is None else int(row["value"])
