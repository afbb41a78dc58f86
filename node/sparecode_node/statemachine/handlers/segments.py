# SPDX-License-Identifier: Apache-2.0
"""
Handlers of sealed segments: which members hold them, and which no member has any more.

A member tells what it has stored and proved. A node discards sealed events from its state
only when all voters hold them. A member is not removed while too few others hold one of
its segments, until the segment is declared lost.
"""

import sqlite3
from collections.abc import Sequence

from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.segments import (
    GAPS_MAX,
    Holding,
    common,
    in_fewer_than,
    in_words,
    ranges_of,
    subtract,
    without,
)
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.membership import RemoveMember
from sparecode_node.statemachine.commands.segments import (
    DeclareSegmentsLost,
    NoteSegments,
)
from sparecode_node.statemachine.tables import archives, membership, segments

LOST_MAX = 10_000
"""Segments that are declared lost at once: a hundred million events."""


def note_segments(applying: Applying, command: NoteSegments) -> Rejected | None:
    """Apply `NoteSegments`."""
    if command.node_id != applying.call.node_id:
        return Rejected(
            Reason.STALE_PARAMETERS, "a member speaks for itself, not for another"
        )
    known = membership.find_node(applying.db, command.node_id)
    if known is not None and known.removed:
        return Rejected(
            Reason.MEMBER_REMOVED, f"{command.node_id} was removed from the cluster"
        )
    holding = told_holding(applying.db, command.through, command.missing)
    if holding is None:
        return Rejected(Reason.STALE_PARAMETERS, "these are no segments of the log")
    segments.save_holding(applying.db, command.node_id, holding, applying.now_ms)
    return None


def told_holding(
    db: sqlite3.Connection, through: int, edges: Sequence[int]
) -> Holding | None:
    """Return what a member tells; None: these are no segments of the log."""
    last = segments.last_sealed(db)
    in_order = all(
        a <= b for a, b in zip(edges[::2], edges[1::2], strict=False)
    ) and all(b + 1 < a for b, a in zip(edges[1::2], edges[2::2], strict=False))
    if (
        not 0 <= through <= (last.number if last else 0)
        or len(edges) % 2
        or len(edges) > 2 * GAPS_MAX
        or not in_order
        or (edges and not 1 <= edges[0] <= edges[-1] < through)
    ):
        return None
    gaps = tuple(zip(edges[::2], edges[1::2], strict=True))
    return Holding(through=through, missing=gaps)


def last_holder(applying: Applying, command: RemoveMember) -> Rejected | None:
    """Refuse to remove a member that holds segments which too few others hold (U1)."""
    node_id = command.node_id
    holdings = segments.holdings(applying.db)
    own = holdings.pop(node_id, None)
    if own is None:
        return None
    held = subtract(own.held, ((1, archives.removed(applying.db).through),))
    staying = [holding for each, holding in holdings.items() if each in command.staying]
    only = in_fewer_than(1, held, holdings.values())
    short = in_fewer_than(command.copies, held, staying)
    if short and not only:
        return Rejected(
            Reason.LAST_SEGMENT_HOLDER,
            f"{node_id} has segments {in_words(short)} of the audit log, and of the "
            f"members that answer and stay fewer than {command.copies} have them: wait "
            "until they do (sparecode cluster status); to remove the member at once, "
            "stop its machine first",
            "node_id",
        )
    if not only:
        return None
    return Rejected(
        Reason.LAST_SEGMENT_HOLDER,
        f"{node_id} is the only member with segments {in_words(only)} of the audit log: "
        "wait until another member has them (sparecode cluster status); if this machine "
        "is destroyed, declare them lost first (sparecode cluster declare-lost "
        f"--destroyed {node_id})",
        "node_id",
    )


def declare_segments_lost(
    applying: Applying, command: DeclareSegmentsLost
) -> Rejected | None:
    """
    Apply `DeclareSegmentsLost`: pages, exports and backups go on without them.

    A member that has told that it has one of them must be named as destroyed: no answer
    from it does not mean that the events are lost.
    """
    first, last = command.first, command.last
    sealed = segments.last_sealed(applying.db)
    newest = 0 if sealed is None else sealed.number
    if not 1 <= first <= last <= newest:
        return Rejected(
            Reason.SEGMENT_UNKNOWN,
            f"the audit log has {plural(newest, 'sealed segment')}",
            "first",
        )
    if first <= (removed := archives.removed(applying.db).through):
        return Rejected(
            Reason.SEGMENT_UNKNOWN,
            f"segments 1 to {removed} were archived, and removed by retention",
            "first",
        )
    if last - first >= LOST_MAX:
        return Rejected(
            Reason.SEGMENT_UNKNOWN, f"at most {LOST_MAX} segments at once", "last"
        )
    known = set(segments.lost(applying.db))
    new = [number for number in range(first, last + 1) if number not in known]
    if not new:
        return Rejected(
            Reason.SEGMENT_UNKNOWN, "these segments were declared lost before", "first"
        )
    lost, holders = ranges_of(new), segments.holdings(applying.db)
    for node_id, holding in sorted(holders.items()):
        there = common(lost, holding.held)
        if there and node_id not in command.destroyed:
            return Rejected(
                Reason.SEGMENT_HELD,
                f"{node_id} has told that it has segments {in_words(there)}, and the "
                "other members fetch them there when it answers; only if its disk is "
                f"destroyed, say so: --destroyed {node_id}",
                "destroyed",
            )
        if there:
            # If it comes back after all, it tells again what it has.
            segments.save_holding(
                applying.db, node_id, without(holding, lost), applying.now_ms
            )
    segments.declare_lost(applying.db, new, applying.now_ms, command.reason)
    applying.detail = (
        f"{plural(len(new), 'segment')}, {_extent(applying, new)}: "
        f"{_taken_for_destroyed(command)}{command.reason}"
    )
    return None


def _taken_for_destroyed(command: DeclareSegmentsLost) -> str:
    """Return the words for the second approver: these members may have the events."""
    if not command.destroyed:
        return ""
    names = ", ".join(command.destroyed)
    return f"taken for destroyed although it may have the events: {names}; "


def _extent(applying: Applying, numbers: list[int]) -> str:
    """
    Return which events these segments have, with the hashes before and after them.

    The hashes prove in an export that the events around the gap are unchanged (U2).
    """
    begin = segments.find(applying.db, numbers[0])
    end = segments.find(applying.db, numbers[-1])
    if begin is None or end is None:
        raise LookupError(numbers)
    return (
        f"events {begin.first_sequence} to {end.last_sequence}, "
        f"hash before {begin.hash_before.hex()}, hash after {end.hash_after.hex()}"
    )
