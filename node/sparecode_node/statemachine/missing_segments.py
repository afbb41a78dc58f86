# SPDX-License-Identifier: Apache-2.0
"""The sealed segments of the audit log that a stopped node lacks (U1)."""

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.segments import Ranges, common, ranges_of
from sparecode_node.statemachine.sealed_events import open_log
from sparecode_node.statemachine.tables import archives, segments
from sparecode_node.statemachine.tables.segments import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingSegments:
    """What a node lacks, and which other members have it, as they have told."""

    ranges: Ranges
    events: int
    holders: Mapping[NodeId, Ranges]
    """Only members that have some of them."""


def kept_in_state(db: sqlite3.Connection) -> tuple[int, ...]:
    """
    Return the sealed segments whose events are still in the state's database.

    They leave it when all voters have told that they hold them: seconds after they were
    sealed, unless a voter is down or cannot store them. *db* is of `open_log`.
    """
    if not segments.are_known(db):
        return ()
    rows = db.execute(
        "SELECT number FROM audit_segments WHERE last_sequence >= "
        "(SELECT min(sequence) FROM main.audit_events) "
        "AND number > (SELECT coalesce(max(through), 0) FROM removed_segments) "
        "ORDER BY number"
    )
    return tuple(number for (number,) in rows)


def missing_in(
    db: sqlite3.Connection, sealed: Iterable[Segment], stored: Mapping[int, bytes]
) -> frozenset[int]:
    """
    Return which *sealed* segments neither the state nor the node's file has.

    *stored* are the segments of the file, with their hashes. *db* is of `open_log`.
    """
    return frozenset(
        each.number
        for each in sealed
        if stored.get(each.number) != each.hash_after
        and db.execute(
            "SELECT 1 FROM main.audit_events WHERE sequence = ?",
            (each.first_sequence,),
        ).fetchone()
        is None
    )


def missing_segments(state: Path, own: NodeId) -> MissingSegments:
    """
    Return the segments whose events neither the state nor the node's file has.

    The content of the file is not read: `sparecode-node doctor` does that. Segments that
    were declared lost are left out. Raises `sqlite3.Error`.
    """
    with contextlib.closing(open_log(state)) as db:
        db.execute("BEGIN")
        stored = dict(db.execute("SELECT number, hash FROM stored_segments").fetchall())
        passed_over = segments.lost(db)
        removed = archives.removed(db).through
        sealed = [
            each
            for each in segments.all_sealed(db)
            if each.number > removed and each.number not in passed_over
        ]
        lacking = missing_in(db, sealed, stored)
        missing = [each for each in sealed if each.number in lacking]
        ranges = ranges_of(each.number for each in missing)
        holders = {
            node_id: there
            for node_id, holding in sorted(segments.holdings(db).items())
            if node_id != own and (there := common(ranges, holding.held))
        }
    return MissingSegments(
        ranges=ranges, events=sum(each.events for each in missing), holders=holders
    )
