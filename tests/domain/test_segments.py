# SPDX-License-Identifier: Apache-2.0
"""Ranges of sealed segments, compared with plain sets of numbers (U1)."""

from hypothesis import given
from hypothesis import strategies as st

from sparecode_node.domain.segments import (
    GAPS_MAX,
    Holding,
    agreed,
    contains,
    count,
    holding_of,
    in_fewer_than,
    in_words,
    ranges_of,
    without,
)

NUMBERS = st.frozensets(st.integers(1, 40))


def numbers(ranges: tuple[tuple[int, int], ...]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


@given(NUMBERS)
def test_a_holding_is_what_was_counted(held: frozenset[int]) -> None:
    holding = holding_of(held)
    assert numbers(holding.held) == held
    assert count(holding.held) == len(held)
    assert holding.through == max(held, default=0)


@given(NUMBERS, st.integers(0, 45), NUMBERS)
def test_what_is_lacking(held: frozenset[int], last: int, lost: frozenset[int]) -> None:
    lacking = holding_of(held).lacking(last, lost)
    assert numbers(lacking) == set(range(1, last + 1)) - held - lost


@given(NUMBERS, st.lists(NUMBERS, max_size=4), st.integers(0, 3))
def test_what_too_few_others_hold_is_found(
    own: frozenset[int], others: list[frozenset[int]], copies: int
) -> None:
    """(U1) Several others may hold the rest together."""
    held = holding_of(own).held
    found = in_fewer_than(copies, held, [holding_of(each) for each in others])
    assert numbers(found) == {
        number for number in own if sum(number in each for each in others) < copies
    }
    assert found == ranges_of(numbers(found))


@given(NUMBERS, NUMBERS)
def test_a_holding_without_what_was_declared_lost(
    own: frozenset[int], lost: frozenset[int]
) -> None:
    left = without(holding_of(own), ranges_of(lost))
    assert numbers(left.held) == own - lost
    assert left.through == max(own - lost, default=0)


@given(st.lists(NUMBERS, min_size=1, max_size=4), st.integers(0, 45), NUMBERS)
def test_all_agree_on_what_none_lacks(
    held: list[frozenset[int]], last: int, lost: frozenset[int]
) -> None:
    """(U1) A new voter that lacks old segments agrees on newer ones."""
    found = agreed([holding_of(each) for each in held], last, lost)
    assert numbers(found) == {
        number
        for number in range(1, last + 1)
        if all(number in each | lost for each in held)
    }
    assert all(contains(found, number) for number in numbers(found))


def test_nothing_is_agreed_in_an_empty_cluster() -> None:
    assert agreed([], 7, ()) == ()


def test_many_gaps_are_reported_as_less_than_there_is() -> None:
    """(U1) A report never claims a segment that is not there."""
    held = set(range(2, 4 * GAPS_MAX, 2))
    reported = numbers(holding_of(held).held)
    assert reported < held
    assert len(holding_of(held).missing) == GAPS_MAX


def test_ranges_in_words() -> None:
    assert in_words(ranges_of([1, 2, 3, 7])) == "1 to 3, 7"
    assert Holding().held == ()
