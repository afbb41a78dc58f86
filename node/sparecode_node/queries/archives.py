# SPDX-License-Identifier: Apache-2.0
"""Which sealed segments are archived, by whom and where, and what may be removed (U2, U4)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from sqlite3 import Row

from sparecode_node.domain.membership import ArchiveReport
from sparecode_node.domain.retention import (
    LATE_MS,
    counts_since_ms,
    fresh_since_ms,
    read_before_ms,
    removable_before_ms,
    removal_begins_ms,
)
from sparecode_node.domain.segments import gone, in_words, numbers_of, ranges_of
from sparecode_node.queries import policy as policies
from sparecode_node.queries import segment_holders, segments
from sparecode_node.queries.segment_holders import Overview
from sparecode_node.queries.segments import RemovedEvents
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.statemachine.tables.archives import (
    CHANGES,
    COPIES_OF_SEALED,
    FRESH,
    SHORTENED,
    is_node,
    node_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditArchive:
    """What one archiver has confirmed, without removed segments."""

    archiver: str
    place: str
    segments: str
    """Their numbers, in words."""
    confirmed_at_ms: int | None
    """The time of its last confirmation; None: nothing was confirmed yet."""
    counts: bool
    """Whether it counts now: not if its node has said nothing for too long."""
    late_segments: str = ""
    """
    Those that a node's archive should have, and has not, in words.

    They were sealed hours ago. With a problem: all, because the node will not write them.
    """
    problem: str = ""
    """Why its node can write or read a segment there no longer, as it says now."""
    folder: str = ""
    """The id of a node's folder: archives with the same one count as one copy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRetention:
    """The archives of the audit log, and what its retention removes."""

    archives: tuple[AuditArchive, ...] = ()
    unarchived_segments: str = ""
    """
    Those that fewer archives have than the policy wants, in words.

    Without lost ones. Empty without a retention: the number of copies is a condition of
    removal, and nothing is removed.
    """
    archives_wanted: int = 0
    removed_segments: str = ""
    removed: RemovedEvents | None = None
    retention_ms: int | None = None
    removal_begins_ms: int | None = None
    """Before it nothing is removed, because a policy keeps less; None: no such policy."""


NO_RETENTION = AuditRetention()


async def overview(
    transaction: ReadTransaction, now_ms: int, reports: Mapping[str, ArchiveReport]
) -> AuditRetention:
    """
    Return the archives and the retention.

    *reports* are what the nodes that answer say of their own archives, by archiver.
    """
    policy = await policies.current(transaction)
    removed = await segments.removed(transaction)
    shortened_ms = await _shortened_ms(transaction)
    since_ms = fresh_since_ms(now_ms)
    kept = await segment_holders.overview(transaction)
    exempt = gone(kept.lost, kept.holdings.values())
    sealed = {
        row["number"]: row
        for row in await transaction.all(
            f"SELECT number, last_at_ms, {COPIES_OF_SEALED} AS copies "
            "FROM audit_segments AS sealed WHERE number > :removed",
            removed=removed.through,
            since=since_ms,
        )
        if row["number"] not in exempt
    }
    held: dict[str, set[int]] = {}
    for row in await transaction.all("SELECT number, archiver FROM archived_segments"):
        held.setdefault(row["archiver"], set()).add(row["number"])
    wanted = policy.audit_archive_copies
    unarchived = [number for number, row in sealed.items() if row["copies"] < wanted]
    return AuditRetention(
        archives=tuple(
            replace(
                each, late_segments=_late(each, held, sealed, kept, reports, now_ms)
            )
            for each in await _archives(transaction, since_ms, held, reports)
        ),
        unarchived_segments=in_words(ranges_of(unarchived))
        if policy.audit_retention_ms is not None
        else "",
        archives_wanted=wanted,
        removed_segments=in_words(ranges_of(range(1, removed.through + 1))),
        removed=segments.shown(removed),
        retention_ms=policy.audit_retention_ms,
        removal_begins_ms=removal_begins_ms(shortened_ms) if shortened_ms else None,
    )


async def _archives(
    transaction: ReadTransaction,
    since_ms: int,
    held: Mapping[str, Collection[int]],
    reports: Mapping[str, ArchiveReport],
) -> list[AuditArchive]:
    """Return the archives, also those that their nodes name and have confirmed nothing of."""
    places = await transaction.all(
        f"SELECT archiver, place, at_ms, folder, {FRESH} AS counts FROM archive_places",
        since=since_ms,
    )
    every = {
        archiver: AuditArchive(
            archiver=archiver,
            place=report.place,
            segments="",
            confirmed_at_ms=None,
            counts=False,
            problem=report.problem,
        )
        for archiver, report in reports.items()
    }
    for row in places:
        archiver = row["archiver"]
        report = reports.get(archiver)
        every[archiver] = AuditArchive(
            archiver=archiver,
            place=report.place if report else row["place"],
            segments=in_words(ranges_of(held.get(archiver, ()))),
            confirmed_at_ms=row["at_ms"],
            counts=bool(row["counts"]),
            problem=report.problem if report else "",
            folder=row["folder"],
        )
    return [every[archiver] for archiver in sorted(every)]


def _late(
    archive: AuditArchive,
    held: Mapping[str, Collection[int]],
    sealed: Mapping[int, Row],
    kept: Overview,
    reports: Mapping[str, ArchiveReport],
    now_ms: int,
) -> str:
    """
    Return the segments that a node's archive should have, and has not, in words.

    An administrator's copy has what the administrator wants. A node that has confirmed
    nothing and does not answer may have no archive any more. What a node lacks itself it
    fetches first: the status names that beside the node.
    """
    has = held.get(archive.archiver, ())
    if not is_node(archive.archiver) or not (has or archive.archiver in reports):
        return ""
    fetched_later = numbers_of(kept.missing(node_of(archive.archiver)))
    return in_words(
        ranges_of(
            number
            for number, row in sealed.items()
            if number not in has
            and number not in fetched_later
            and (archive.problem or row["last_at_ms"] < now_ms - LATE_MS)
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the state knows of a node's archive."""

    numbers: frozenset[int]
    """The segments that the node has confirmed, without removed ones."""
    folder_id: str
    """The id of the folder that has them; empty: none is known."""
    said_ms: int
    """When the node last said so; 0: never."""
    folder_changes: int
    """How often a node has told another id of its folder than before."""
    is_of_last_change: bool
    """Whether this node has read its id since the last of these changes."""


async def told(transaction: ReadTransaction, archiver: str) -> Told:
    """Return what the state knows of the archive of an archiver."""
    rows = await transaction.all(
        "SELECT number FROM archived_segments WHERE archiver = :archiver",
        archiver=archiver,
    )
    changes = await transaction.one(f"SELECT {CHANGES} AS changes")
    place = await transaction.one(
        "SELECT at_ms, folder, folder_changes FROM archive_places "
        "WHERE archiver = :archiver",
        archiver=archiver,
    )
    now = 0 if changes is None else int(changes["changes"])
    return Told(
        numbers=frozenset(row["number"] for row in rows),
        folder_id="" if place is None else place["folder"],
        said_ms=0 if place is None else place["at_ms"],
        folder_changes=now,
        is_of_last_change=place is not None and place["folder_changes"] == now,
    )


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
        f"SELECT number, {COPIES_OF_SEALED} AS copies FROM audit_segments AS sealed "
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


async def _gone(transaction: ReadTransaction) -> frozenset[int]:
    """Return the segments that were declared lost, and that no member holds."""
    held = await segment_holders.overview(transaction)
    return gone(held.lost, held.holdings.values())


async def _shortened_ms(transaction: ReadTransaction) -> int:
    row = await transaction.one(
        "SELECT value FROM meta WHERE name = :name", name=SHORTENED
    )
    return 0 if row is None else int(row["value"])
