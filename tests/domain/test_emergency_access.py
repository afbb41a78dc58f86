# SPDX-License-Identifier: Apache-2.0
"""The life of a set and of its codes."""

import pytest

from sparecode_node.domain.emergency_access import CodeState, live_codes
from sparecode_node.domain.policy import DAY_MS
from tests.domain.examples import NOW_MS, USE, make_set


@pytest.mark.parametrize(
    ("own", "token", "effective"),
    [
        (None, None, None),
        (5, None, 5),
        (None, 7, 7),
        (5, 7, 5),
        (7, 5, 5),
    ],
)
def test_the_effective_end_is_the_earlier_one(
    own: int | None, token: int | None, effective: int | None
) -> None:
    """The earlier of the set's and the token's expiry, computed at use (I7)."""
    assert make_set(ends_at_ms=own).effective_end_ms(token) == effective


def test_a_set_is_refused_from_its_end_on() -> None:
    """Refused from `at_ms >= end` on (I7)."""
    ending = make_set(ends_at_ms=NOW_MS)
    assert not ending.expired(NOW_MS - 1, None)
    assert ending.expired(NOW_MS, None)
    assert make_set().expired(NOW_MS, NOW_MS)
    assert not make_set().expired(NOW_MS, None)


def test_a_used_code_records_its_use() -> None:
    """Time, agent, node and index of the use."""
    spent = make_set(3).spend(2, USE)
    assert [code.state for code in spent.codes] == [
        CodeState.LIVE,
        CodeState.USED,
        CodeState.LIVE,
    ]
    assert spent.codes[1].use == USE
    assert spent.codes[0].use is None


def test_voiding_leaves_used_codes_used() -> None:
    """LIVE -> USED | VOID, and no way back."""
    void = make_set(2).spend(1, USE).void(NOW_MS)
    assert [code.state for code in void.codes] == [CodeState.USED, CodeState.VOID]
    assert void.voided
    assert void.void(NOW_MS) == void


def test_a_set_that_has_reached_its_own_end_is_not_voided_any_more() -> None:
    """It has reached its end, and that is what cleared the lost mark (R)."""
    ended = make_set(2, ends_at_ms=NOW_MS)
    assert ended.void(NOW_MS) == ended
    assert ended.reached_its_end(NOW_MS, None)
    assert ended.void(NOW_MS - 1).voided


def test_a_set_that_ended_with_its_token_is_voided() -> None:
    """Else its codes would live again if the token's end were moved."""
    void = make_set(2).void(NOW_MS)
    assert void.voided
    assert not void.reached_its_end(NOW_MS, NOW_MS)


def test_live_codes_are_those_that_can_be_used_now() -> None:
    """Used, void and ended ones are not live."""
    sets = [
        make_set(3).spend(1, USE),
        make_set(4, ends_at_ms=NOW_MS),
        make_set(5).void(NOW_MS),
        make_set(1, ends_at_ms=NOW_MS + DAY_MS),
    ]
    assert live_codes(sets, NOW_MS, None) == 3
    assert live_codes(sets, NOW_MS, NOW_MS) == 0
    assert live_codes([], NOW_MS, None) == 0
