# SPDX-License-Identifier: Apache-2.0
"""Which archives have which sealed segments of the audit log, range by range."""

import enum
import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass

from sparecode_client.values.cluster import AuditRetention, ClusterStatus

_RANGE = re.compile(r"([0-9]{1,18})(?: to ([0-9]{1,18}))?")
Ranges = tuple[tuple[int, int], ...]
"""The first and the last number of each range."""


class SegmentState(enum.StrEnum):
    """Whether segments are archived as the policy wants."""

    ARCHIVED = "archived"
    """As many archives have them as the policy wants; without a retention, one."""
    WAITING = "waiting"
    """Fewer archives have them."""
    LOST = "lost"
    """Declared lost: no member has them, and they need no archive."""
    REMOVED = "removed"
    """Retention has removed them from the nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedRange:
    """Sealed segments that the same archives have."""

    first: int
    last: int
    state: SegmentState
    archivers: tuple[str, ...]
    """Who has them, and counts: `node:ID` or `administrator:NAME`."""
    silent: tuple[str, ...]
    """Nodes that have confirmed them, and do not count: they have said nothing lately."""
    copies: int
    """How many archives count: nodes that share a folder have one."""
    wanted: int
    """How many archives the policy wants; 0: there is no retention."""

    @property
    def missing(self) -> int:
        """How many more archives the policy wants."""
        waits = self.state is SegmentState.WAITING
        return max(0, self.wanted - self.copies) if waits else 0


def ranges_in(words: str) -> Ranges:
    """Return ranges from the words of the API, such as `1 to 3, 7`."""
    return tuple(
        (int(match[1]), int(match[2] or match[1]))
        for match in map(_RANGE.fullmatch, words.split(", "))
        if match is not None
    )


def archived_ranges(
    status: ClusterStatus, retention: AuditRetention
) -> tuple[ArchivedRange, ...]:
    """Return all sealed segments, oldest first; those that are alike make one range."""
    removed = ranges_in(retention.removed_segments)
    waiting = ranges_in(retention.unarchived_segments)
    lost = ranges_in(status.lost_segments)
    found = ranges_in(status.found_segments)
    wanted = 0 if retention.retention is None else retention.archives_wanted
    held = {each.archiver: ranges_in(each.segments) for each in retention.archives}
    counting = {each.archiver for each in retention.archives if each.counts}
    folders = {
        each.archiver: each.folder or each.archiver for each in retention.archives
    }
    every: list[ArchivedRange] = []
    for first, last in _parts(
        status.sealed_segments, (removed, waiting, lost, found, *held.values())
    ):
        has = [archiver for archiver, each in held.items() if _has(each, first)]
        archivers = tuple(each for each in has if each in counting)
        copies = len({folders[each] for each in archivers})
        if _has(removed, first):
            state = SegmentState.REMOVED
        elif copies >= max(1, wanted):
            state = SegmentState.ARCHIVED
        elif _has(lost, first) and not _has((*waiting, *found), first):
            state = SegmentState.LOST
        else:
            state = SegmentState.WAITING
        every.append(
            ArchivedRange(
                first=first,
                last=last,
                state=state,
                archivers=archivers,
                silent=tuple(each for each in has if each not in counting),
                copies=copies,
                wanted=wanted,
            )
        )
    return tuple(every)


def _parts(last: int, sets: Iterable[Ranges]) -> Ranges:
    """Cut 1 to *last* where any of the ranges begins or ends."""
    cuts = {1, last + 1}
    for ranges in sets:
        for begin, end in ranges:
            cuts |= {begin, end + 1}
    cut = sorted(each for each in cuts if 1 <= each <= last + 1)
    return tuple((begin, end - 1) for begin, end in itertools.pairwise(cut) if last)


def _has(ranges: Ranges, number: int) -> bool:
    return any(first <= number <= last for first, last in ranges)
