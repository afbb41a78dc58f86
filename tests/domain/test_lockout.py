# SPDX-License-Identifier: Apache-2.0
"""The ladder of waits and locks (L1-L6)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparecode_node.domain.lockout import FREE, Lockout
from sparecode_node.domain.policy import DAY_MS, HOUR_MS, MINUTE_MS, Policy
from tests.domain.examples import NOW_MS, POLICY, failures

QUARTER_MS = 15 * MINUTE_MS
DAY_QUARTERS = DAY_MS // QUARTER_MS


@pytest.mark.parametrize(
    ("count", "wait_ms"),
    [
        (1, 1_000),
        (2, 1_000),
        (3, 5_000),
        (4, 5_000),
        (5, 15 * MINUTE_MS),
        (6, 30 * MINUTE_MS),
        (7, HOUR_MS),
        (10, 8 * HOUR_MS),
        (11, 16 * HOUR_MS),
        (12, DAY_MS),
        (99, DAY_MS),
    ],
)
def test_each_failure_has_its_wait(count: int, wait_ms: int) -> None:
    """1 s, 5 s, then 15 minutes doubling up to 24 hours (L1-L4)."""
    lockout = failures(count)
    assert lockout.failures == count
    assert lockout.blocked_until_ms == NOW_MS + wait_ms
    assert not lockout.off


def test_it_blocks_until_the_wait_is_over() -> None:
    """While waiting every attempt is refused; from the end on it is judged (L5)."""
    lockout = failures(1)
    assert lockout.blocks(NOW_MS + 999)
    assert not lockout.blocks(NOW_MS + 1_000)
    assert not FREE.blocks(0)


def test_a_hundred_failures_turn_the_factor_off() -> None:
    """Only an administrator ends it (L4)."""
    assert not failures(99).off
    off = failures(100)
    assert off.off
    assert off.blocks(NOW_MS + 1_000 * DAY_MS)


def test_a_day_without_failure_restarts_the_ladder() -> None:
    """The count towards 100 stays (L6)."""
    tired = failures(7)
    rested = tired.failed(NOW_MS + DAY_MS, POLICY)
    assert rested.failures == 8
    assert rested.blocked_until_ms == NOW_MS + DAY_MS + 1_000
    not_rested = tired.failed(NOW_MS + DAY_MS - 1, POLICY)
    assert not_rested.blocked_until_ms == NOW_MS + DAY_MS - 1 + 2 * HOUR_MS


def test_slow_guessing_ends_at_a_hundred() -> None:
    """A guess a day is never locked, but the hundredth turns the factor off (L4, L6)."""
    assert failures(99, every_ms=DAY_MS).rung == 1
    assert failures(100, every_ms=DAY_MS).off


def test_policy_may_lock_until_an_administrator_unlocks() -> None:
    """Policy: until an administrator unlocks (L3)."""
    policy = Policy(lock_until_unlocked=True)
    assert not failures(4, policy=policy).off
    assert failures(5, policy=policy).off


def test_policy_says_when_locks_begin() -> None:
    """5 is the policy's number (L3)."""
    early, late = Policy(lock_from_failures=3), Policy(lock_from_failures=8)
    assert failures(3, policy=early).blocked_until_ms == NOW_MS + 15 * MINUTE_MS
    assert failures(7, policy=late).blocked_until_ms == NOW_MS + 5_000
    assert failures(8, policy=late).blocked_until_ms == NOW_MS + 15 * MINUTE_MS


@given(st.lists(st.integers(0, 2 * DAY_MS), max_size=300))
def test_guesses_never_exceed_the_ladder(pauses: list[int]) -> None:
    """
    For any timing of an attacker: 100 are judged, and 5 in 15 minutes.

    An attempt while blocked is not counted, so every judged attempt counts (L1-L5).
    """
    lockout, now_ms, judged = Lockout(), NOW_MS, []
    for pause in pauses:
        now_ms += pause
        if not lockout.blocks(now_ms):
            lockout = lockout.failed(now_ms, POLICY)
            judged.append(now_ms)
    assert lockout.failures == len(judged) <= 100
    for first, sixth in zip(judged, judged[5:], strict=False):
        assert sixth - first >= 15 * MINUTE_MS


def guesses_within(span_ms: int) -> int:
    """Return the failures within a time, from a free factor on, each as soon as it can."""
    lockout, guesses, at_ms = FREE, 0, NOW_MS
    while at_ms < NOW_MS + span_ms and not lockout.off:
        lockout = lockout.failed(at_ms, POLICY)
        guesses += 1
        at_ms = lockout.blocked_until_ms
    return guesses


def test_the_unlocks_without_an_approval_allow_few_guesses() -> None:
    """
    At most the 38 guesses of a day that docs/security.md tells (P3a).

    The unlocks come at the best quarters of an hour; without one, it is 11.
    """
    alone = [guesses_within(each * QUARTER_MS) for each in range(DAY_QUARTERS + 1)]
    best = alone
    for _ in range(POLICY.unlocks_per_day):
        best = [
            max(alone[each] + best[end - each] for each in range(end + 1))
            for end in range(DAY_QUARTERS + 1)
        ]
    assert (alone[-1], best[-1]) == (11, 38)
