# SPDX-License-Identifier: Apache-2.0
"""
What a node has to do with its sealed segments, decided from what its files have (U1).

The keeper of the file does it (`segments`). The simulation decides by the same function.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.segments import (
    Holding,
    Ranges,
    agreed,
    contains,
    holding_of,
)
from sparecode_node.replication.members import Member, MemberRole
from sparecode_node.statemachine.audit import Stored
from sparecode_node.statemachine.tables.segments import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """What the state's database and the file of sealed events have."""

    sealed: Sequence[Segment]
    """The segments that the state knows, oldest first."""
    stored: Mapping[int, bytes]
    """The numbers of those that the file has, each with the hash after it."""
    first: int
    """The oldest event in the state's database."""
    removed: int
    """The last segment that retention has removed; 0: none."""
    lost: frozenset[int]
    """Segments that were declared lost."""
    is_in_state: Callable[[Segment], bool]
    """Whether the state's database has all events of a segment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done now."""

    holding: Holding
    """What the file has stored and proved."""
    here: tuple[Segment, ...] = ()
    """Their events are still in the state's database; oldest first."""
    missing: tuple[Segment, ...] = ()
    """Their events are with other members only; newest first."""
    found: tuple[Segment, ...] = ()
    """They were declared lost, and another member has them after all; newest first."""
    stored: Stored | None = None
    """What apply may discard."""
    removed: int = 0
    """The file may have segments up to this one, which retention has removed."""


NOTHING_TO_DO = Plan(holding=Holding())


def discardable(
    members: Iterable[Member],
    holdings: Mapping[NodeId, Holding],
    last: int,
    lost: Iterable[int],
    *,
    removed: int,
) -> Ranges:
    """Return the segments that all voters have told to hold. What is here is another matter."""
    voters = (each for each in members if each.role is MemberRole.VOTER)
    told = [holdings.get(each.node_id, Holding()) for each in voters]
    return agreed(told, last, lost, removed=removed)


def plan_of(files: Files, *, agreed: Ranges, found: Ranges = ()) -> Plan:
    """
    Return what is to be done.

    *agreed*: segments that all voters hold. *found*: segments that were declared lost,
    and that another member has.
    """
    here, missing, held, again = [], [], [], []
    whole = True
    last: Segment | None = None
    for segment in files.sealed:
        if segment.number <= files.removed:
            continue
        if files.stored.get(segment.number) == segment.hash_after:
            held.append(segment.number)
            # A voter may still fetch segments that no state has any more.
            if whole and segment.last_sequence >= files.first:
                whole = contains(agreed, segment.number)
                last = segment if whole else last
        elif segment.number in files.lost and not files.is_in_state(segment):
            if contains(found, segment.number):
                again.append(segment)
        elif segment.first_sequence >= files.first:
            here.append(segment)
            whole = False
        else:
            missing.append(segment)
            whole = whole and segment.last_sequence < files.first
    return Plan(
        here=tuple(here),
        missing=tuple(reversed(missing)),
        found=tuple(reversed(again)),
        stored=None if last is None else Stored(segment=last, first=files.first),
        removed=files.removed,
        holding=holding_of(held),
    )
