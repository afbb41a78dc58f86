# SPDX-License-Identifier: Apache-2.0
"""
Which sealed segments of the audit log a member holds, as ranges of their numbers (U1).

Segments are numbered from 1 on. A range is a pair: its first and its last number.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Ranges = tuple[tuple[int, int], ...]
"""Ascending, and apart from each other by at least one number."""

GAPS_MAX = 32
"""Gaps that a member reports. It reports more of them as if one were missing whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """The segments that one member has stored and proved: 1 to *through*, but for gaps."""

    through: int = 0
    missing: Ranges = ()

    @property
    def held(self) -> Ranges:
        """The segments that the member holds."""
        return subtract(((1, self.through),) if self.through else (), self.missing)

    def lacking(self, last: int, lost: Iterable[int], *, removed: int = 0) -> Ranges:
        """
        Return the segments after *removed* and up to *last* that it does not hold.

        *lost* ones are left out.
        """
        every: Ranges = ((removed + 1, last),) if last > removed else ()
        return subtract(subtract(every, self.held), ranges_of(lost))


def without(holding: Holding, lost: Ranges) -> Holding:
    """Return a holding without some segments; it may have more gaps than `GAPS_MAX`."""
    held = subtract(holding.held, lost)
    through = held[-1][1] if held else 0
    every: Ranges = ((1, through),) if through else ()
    return Holding(through=through, missing=subtract(every, held))


def holding_of(numbers: Iterable[int]) -> Holding:
    """
    Return what to report of a member that has these segments.

    Never more than it has: beyond `GAPS_MAX` gaps, the last one ends at the newest.
    """
    held = ranges_of(numbers)
    if not held:
        return Holding()
    through = held[-1][1]
    missing = subtract(((1, through),), held)
    if len(missing) > GAPS_MAX:
        through = missing[GAPS_MAX][0] - 1
        missing = missing[:GAPS_MAX]
    return Holding(through=through, missing=missing)


def ranges_of(numbers: Iterable[int]) -> Ranges:
    """Return numbers as ranges."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return tuple(ranges)


def numbers_of(ranges: Ranges) -> frozenset[int]:
    """Return the numbers in ranges."""
    return frozenset(
        number for first, last in ranges for number in range(first, last + 1)
    )


def subtract(ranges: Ranges, others: Ranges) -> Ranges:
    """Return the numbers of *ranges* that are not in *others*."""
    left = list(ranges)
    for begin, end in others:
        left = [
            part
            for first, last in left
            for part in ((first, min(last, begin - 1)), (max(first, end + 1), last))
            if part[0] <= part[1]
        ]
    return tuple(left)


def common(ranges: Ranges, others: Ranges) -> Ranges:
    """Return the numbers that are in both."""
    return subtract(ranges, subtract(ranges, others))


def in_fewer_than(copies: int, held: Ranges, others: Iterable[Holding]) -> Ranges:
    """Return the *held* segments that fewer than *copies* of the *others* hold."""
    there = [common(held, other.held) for other in others]
    edges = sorted(
        {edge for ranges in (held, *there) for a, b in ranges for edge in (a, b + 1)}
    )
    short: Ranges = ()
    for first, end in itertools.pairwise(edges):
        part = ((first, end - 1),)
        if common(part, held) and sum(bool(common(part, r)) for r in there) < copies:
            short += part
    return joined(short)


def joined(ranges: Ranges) -> Ranges:
    """Return ascending ranges with those that touch as one."""
    whole: list[tuple[int, int]] = []
    for first, last in ranges:
        touches = bool(whole) and whole[-1][1] >= first - 1
        begin = whole.pop()[0] if touches else first
        whole.append((begin, last))
    return tuple(whole)


def contains(ranges: Ranges, number: int) -> bool:
    """Return whether a number is in ranges."""
    return any(first <= number <= last for first, last in ranges)


def gone(lost: Iterable[int], holdings: Iterable[Holding]) -> frozenset[int]:
    """
    Return the *lost* segments that no member holds.

    A member that was away, or a disk that was rescued, may bring one back.
    """
    left = ranges_of(lost)
    for each in holdings:
        left = subtract(left, each.held)
    return numbers_of(left)


def agreed(
    holdings: Sequence[Holding], last: int, lost: Iterable[int], *, removed: int = 0
) -> Ranges:
    """Return the segments that every member holds; *lost* ones count as held."""
    lost = tuple(lost)
    left: Ranges = ((removed + 1, last),) if holdings and last > removed else ()
    for each in holdings:
        left = subtract(left, each.lacking(last, lost, removed=removed))
    return left


def count(ranges: Ranges) -> int:
    """Return how many numbers there are in ranges."""
    return sum(last - first + 1 for first, last in ranges)


def in_words(ranges: Ranges) -> str:
    """Return ranges as people read them: `1 to 3, 7`."""
    return ", ".join(
        str(first) if first == last else f"{first} to {last}" for first, last in ranges
    )
