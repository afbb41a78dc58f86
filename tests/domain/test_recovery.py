# SPDX-License-Identifier: Apache-2.0
"""The lost token comes back: the table of R, row by row."""

from dataclasses import replace
from typing import Any

import pytest

from sparecode_node.domain.emergency_access import (
    EmergencyCodeSet,
    RecoveryPolicy,
    all_void,
)
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.domain.recovery import refuses_recovered
from sparecode_node.domain.tokens import Token
from tests.domain.examples import NOW_MS, USE, make_set, make_token

LIVES = make_set(1, ends_at_ms=NOW_MS + DAY_MS)
ENDED = make_set(1, ends_at_ms=NOW_MS)
VOIDED = LIVES.void(NOW_MS - 1)
VOIDED_THEN_ENDED = ENDED.void(NOW_MS - 1)
ENDED_THEN_OFF = ENDED.void(NOW_MS)
EXHAUSTED = LIVES.spend(1, USE)
EXHAUSTED_THEN_ENDED = ENDED.spend(1, USE)
EXHAUSTED_BEFORE = LIVES.spend(1, replace(USE, at_ms=NOW_MS - 1))


def later(token: Token, sets: list[EmergencyCodeSet]) -> bool:
    """Void all sets; return whether the token is refused when all ends are past."""
    after, _ = all_void(sets, NOW_MS)
    return refuses_recovered(token, after, NOW_MS + DAY_MS)


@pytest.mark.parametrize(
    ("policy", "sets", "refused"),
    [
        (RecoveryPolicy.DENY, [LIVES], True),
        (RecoveryPolicy.DENY, [ENDED], True),
        (RecoveryPolicy.DENY, [VOIDED], True),
        (RecoveryPolicy.DENY, [], True),
        (RecoveryPolicy.ALLOW_AND_DISABLE, [LIVES], False),
        (RecoveryPolicy.ALLOW_AND_DISABLE, [ENDED], False),
        (RecoveryPolicy.ALLOW_AND_DISABLE, [VOIDED], False),
        (RecoveryPolicy.ALLOW_AND_DISABLE, [], False),
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [LIVES], True),
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [ENDED], False),
        # Codes die, but lost is not cleared (R2).
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [VOIDED], True),
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [VOIDED_THEN_ENDED], True),
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [EXHAUSTED], True),
        # The end clears, and nothing that comes after takes that back.
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [EXHAUSTED_THEN_ENDED], False),
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [ENDED_THEN_OFF], False),
        # The last set decides, and the newest governs (I8).
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [ENDED, LIVES], True),
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [ENDED, VOIDED], False),
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [ENDED, EXHAUSTED], True),
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [ENDED, ENDED, EXHAUSTED], True),
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [ENDED, EXHAUSTED_THEN_ENDED], False),
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [ENDED, EXHAUSTED_BEFORE], False),
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [VOIDED, ENDED], True),
        (RecoveryPolicy.ALLOW_AFTER_EXPIRY, [], True),
    ],
)
def test_a_lost_token_is_treated_as_its_policy_says(
    policy: RecoveryPolicy, sets: Any, *, refused: bool
) -> None:
    """DENY, ALLOW_AND_DISABLE, ALLOW_AFTER_EXPIRY (R, R2)."""
    token = make_token(lost=True, recovery=policy)
    assert refuses_recovered(token, sets, NOW_MS) is refused


@pytest.mark.parametrize("policy", RecoveryPolicy)
def test_a_token_that_is_not_lost_works(policy: RecoveryPolicy) -> None:
    """An earlier policy does not matter to a reinstated token (R)."""
    token = make_token(lost=False, recovery=policy)
    assert not refuses_recovered(token, [LIVES], NOW_MS)


def test_codes_that_die_before_their_end_let_no_token_in() -> None:
    """
    The newest set has ended and a kept one is live: voiding that one ends both.

    Otherwise a thief's wrong guesses, which void all codes, would make the stolen token
    work before the kept codes' own end (R2).
    """
    token = make_token(lost=True, recovery=RecoveryPolicy.ALLOW_AFTER_EXPIRY)
    assert refuses_recovered(token, [ENDED, LIVES], NOW_MS)
    for before, refused in (
        ([ENDED, LIVES], True),
        ([ENDED], False),  # It has ended, and later events do not change that.
        ([ENDED, EXHAUSTED_THEN_ENDED], False),
        ([ENDED, EXHAUSTED], True),
    ):
        assert later(token, before) is refused, before


def test_codes_that_are_used_up_before_their_end_let_no_token_in_until_then() -> None:
    """(R2) The newest set has ended, and the kept one has not."""
    token = make_token(lost=True, recovery=RecoveryPolicy.ALLOW_AFTER_EXPIRY)
    for moment, refused in ((NOW_MS, True), (NOW_MS + DAY_MS, False)):
        assert refuses_recovered(token, [ENDED, EXHAUSTED], moment) is refused


def test_codes_of_an_expired_token_die_with_it_turned_off() -> None:
    """(R2) Its end does not matter: the token may be given another end."""
    after, died = all_void([ENDED, LIVES], NOW_MS)
    assert died == 1
    assert after[0].voided
