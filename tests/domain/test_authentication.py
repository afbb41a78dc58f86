# SPDX-License-Identifier: Apache-2.0
"""The decision on a passcode: what is accepted, spent, charged and recorded."""

from dataclasses import replace
from typing import Any

import pytest

from sparecode_node.domain.authentication import Event, Judgement, judge
from sparecode_node.domain.emergency_access import CodeState, RecoveryPolicy
from sparecode_node.domain.ids import TokenSerial, UserId
from sparecode_node.domain.lockout import FREE, Factor
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import DAY_MS
from tests.domain.examples import (
    ALICE,
    CLOUD,
    GATEWAY,
    HOTP,
    NOW_MS,
    PIN,
    POLICY,
    SERIAL,
    STEP,
    TOTP,
    USE,
    WRONG_PIN,
    app_token,
    emergency_reading,
    failures,
    make_attempt,
    make_set,
    make_token,
    tokencode_reading,
)

RIGHT_CODE = emergency_reading()
RIGHT_TOKENCODE = tokencode_reading(STEP)
NO_SUCH_CODE = emergency_reading(ordinal=99)
WRONG_TOKENCODE = tokencode_reading()


def charged(judgement: Judgement) -> bool:
    """Return whether a failure was counted."""
    return any(lockout.failures for lockout in judgement.lockouts.values())


def assert_refused(judgement: Judgement, reason: Reason, *, charge: bool) -> None:
    """Check a refusal, and that it spends nothing."""
    assert judgement.reason is reason
    assert not judgement.accepted
    assert charged(judgement) is charge
    assert judgement.token is None
    states = {code.state for each in judgement.sets for code in each.codes}
    assert CodeState.USED not in states


# --- Emergency codes


def test_pin_and_code_are_accepted_and_the_code_is_spent() -> None:
    """PIN followed by the code; the use is recorded with the code (A1, A3)."""
    judgement = judge(make_attempt(emergency_reading(ordinal=2)))
    assert judgement.accepted
    assert judgement.serial == SERIAL
    (spent,) = judgement.sets
    assert [code.state for code in spent.codes] == [
        CodeState.LIVE,
        CodeState.USED,
        CodeState.LIVE,
    ]
    assert spent.codes[1].use == USE
    assert judgement.lockouts == {Factor.EMERGENCY: FREE}


def test_the_code_alone_is_accepted_without_pin_rule() -> None:
    """For NONE the code alone (A1)."""
    attempt = make_attempt(emergency_reading(pin=None), token=app_token())
    assert judge(attempt).accepted


@pytest.mark.parametrize("more", [PIN, WRONG_PIN])
def test_any_additional_character_is_refused(more: bytes) -> None:
    """For NONE, any character before the code is a wrong passcode: charged (A1, A2)."""
    attempt = make_attempt(emergency_reading(pin=more), token=app_token())
    assert_refused(judge(attempt), Reason.WRONG_PIN, charge=True)


@pytest.mark.parametrize("pin", [WRONG_PIN, None])
def test_a_right_code_with_a_wrong_or_missing_pin_is_not_spent(pin: Any) -> None:
    """Refused, not spent, charged (A2)."""
    attempt = make_attempt(emergency_reading(pin=pin))
    assert_refused(judge(attempt), Reason.WRONG_PIN, charge=True)


def test_a_bare_reading_has_no_pin() -> None:
    """A reading without a PIN part has no PIN, whatever candidate it carries (A2)."""
    bare = replace(emergency_reading(), bare=True)
    assert_refused(judge(make_attempt(bare)), Reason.WRONG_PIN, charge=True)


@pytest.mark.parametrize("pin", [PIN, None, b""])
def test_a_cleared_pin_accepts_nothing(pin: Any) -> None:
    """No PIN set (cleared): refused, not spent (A2)."""
    attempt = make_attempt(
        emergency_reading(pin=pin), token=make_token(pin_verifier=b"")
    )
    assert_refused(judge(attempt), Reason.PIN_NOT_SET, charge=False)


def test_a_wrong_code_is_charged() -> None:
    """It is a guess (L)."""
    judgement = judge(make_attempt(NO_SUCH_CODE))
    assert_refused(judgement, Reason.WRONG_PASSCODE, charge=True)
    assert set(judgement.lockouts) == {Factor.EMERGENCY}


def test_a_code_of_another_set_is_no_code_of_this_one() -> None:
    """A verifier counts only for the set that it was computed for (T3)."""
    moved = replace(
        RIGHT_CODE,
        codes=(replace(RIGHT_CODE.codes[0], set_id=make_set(set_id="s2").set_id),),
    )
    sets = (make_set(), make_set(set_id="s2"))
    judgement = judge(make_attempt(moved, code_sets=sets))
    assert_refused(judgement, Reason.WRONG_PASSCODE, charge=True)


def test_no_candidate_matches_a_set_that_has_none() -> None:
    """An empty candidate never matches, not even an empty verifier."""
    blank = make_set(1)
    blank = replace(blank, codes=(replace(blank.codes[0], verifier=b""),))
    reading = replace(RIGHT_CODE, codes=())
    judgement = judge(make_attempt(reading, code_sets=(blank,)))
    assert_refused(judgement, Reason.WRONG_PASSCODE, charge=True)


NOT_LIVE = [
    make_set().spend(1, USE),
    make_set().void(NOW_MS),
]


@pytest.mark.parametrize("code_set", NOT_LIVE)
def test_right_pin_with_a_code_that_is_not_live_is_not_charged(code_set: Any) -> None:
    """It is no guess: a form submitted twice locks no one out (A5)."""
    judgement = judge(make_attempt(RIGHT_CODE, code_sets=(code_set,)))
    assert_refused(judgement, Reason.CODE_NOT_LIVE, charge=False)


@pytest.mark.parametrize("pin", [WRONG_PIN, None])
@pytest.mark.parametrize("code_set", [*NOT_LIVE, make_set(ends_at_ms=NOW_MS)])
@pytest.mark.parametrize(
    "token", [make_token(), make_token(enabled=False), make_token(pin_verifier=b"")]
)
def test_a_code_that_is_gone_tells_no_pin(token: Any, code_set: Any, pin: Any) -> None:
    """The judgement is the same before the right PIN, a wrong one and none (A5)."""
    right, other = (
        judge(
            make_attempt(
                emergency_reading(pin=each), token=token, code_sets=(code_set,)
            )
        )
        for each in (PIN, pin)
    )
    assert not charged(other)
    assert not other.accepted
    if token.pin_set:
        assert other == right
    else:
        assert other.reason in (Reason.CODE_NOT_LIVE, Reason.SET_EXPIRED)


@pytest.mark.parametrize(
    "changes",
    [
        {"token": make_token(expires_at_ms=NOW_MS)},
        {"token": make_token(enabled=False)},
        {"agent": CLOUD},
    ],
)
def test_wrong_pin_with_a_code_that_may_work_again_is_charged(
    changes: dict[str, Any],
) -> None:
    """Another agent, or a change of the token, would accept it with the right PIN (A2)."""
    attempt = make_attempt(emergency_reading(pin=WRONG_PIN), **changes)
    assert_refused(judge(attempt), Reason.WRONG_PIN, charge=True)


@pytest.mark.parametrize("code_set", NOT_LIVE)
@pytest.mark.parametrize("pin", [WRONG_PIN, None])
def test_feature_level_1_charges_a_wrong_pin_before_a_gone_code(
    code_set: Any, pin: Any
) -> None:
    """As release 0.1.0 does (A5)."""
    attempt = make_attempt(
        emergency_reading(pin=pin), code_sets=(code_set,), judges_all_pins=True
    )
    assert_refused(judge(attempt), Reason.WRONG_PIN, charge=True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"code_sets": (make_set(ends_at_ms=NOW_MS),)}, Reason.SET_EXPIRED),
        ({"token": make_token(expires_at_ms=NOW_MS)}, Reason.TOKEN_EXPIRED),
        ({"token": make_token(enabled=False)}, Reason.TOKEN_DISABLED),
        ({"token": make_token(user_id=None)}, Reason.TOKEN_NOT_ASSIGNED),
        ({"agent": CLOUD}, Reason.RESOURCE_NOT_COVERED),
    ],
)
def test_a_right_passcode_may_still_be_refused(
    changes: dict[str, Any], reason: Reason
) -> None:
    """Only the audit log has the reason. It is no guess and not charged (A4)."""
    assert_refused(judge(make_attempt(RIGHT_CODE, **changes)), reason, charge=False)


def test_a_live_code_is_preferred_to_one_that_is_not() -> None:
    """If two sets hold the same code, the live one is used."""
    used = make_set(set_id="s2").spend(1, USE)
    both = replace(
        RIGHT_CODE,
        codes=(*RIGHT_CODE.codes, *emergency_reading(set_id="s2").codes),
    )
    judgement = judge(make_attempt(both, code_sets=(used, make_set())))
    assert judgement.accepted
    assert [each.set_id for each in judgement.sets] == ["s1"]


@pytest.mark.parametrize(
    ("codes", "events"),
    [
        (4, ()),
        (3, (Event(action="SET_LOW", serial=SERIAL, cause="2 codes left"),)),
        (1, (Event(action="SET_EXHAUSTED", serial=SERIAL, cause="0 codes left"),)),
    ],
)
def test_few_codes_left_are_noted(codes: int, events: Any) -> None:
    """`SET_LOW` at the policy's threshold, `SET_EXHAUSTED` after the last (R4)."""
    judgement = judge(make_attempt(RIGHT_CODE, code_sets=(make_set(codes),)))
    assert judgement.events == events


def test_kept_codes_count_as_codes_left() -> None:
    """All live codes of the token count (R4, I8)."""
    sets = (make_set(1), make_set(5, set_id="s2"))
    assert judge(make_attempt(RIGHT_CODE, code_sets=sets)).events == ()


# --- Tokencodes


def test_pin_and_tokencode_are_accepted_and_spent() -> None:
    """The moment is spent, the drift learned, the count of failures 0 (K1, L6)."""
    attempt = make_attempt(
        tokencode_reading(STEP + 1), lockouts={Factor.TOKEN: failures(2)}
    )
    attempt = replace(attempt, use=replace(USE, at_ms=NOW_MS + 2_000))
    judgement = judge(attempt)
    assert judgement.accepted
    assert judgement.token == make_token(spent=STEP + 1, drift=1)
    assert judgement.lockouts == {Factor.TOKEN: FREE}
    assert judgement.events == ()


def test_the_tokencode_alone_is_accepted_without_pin_rule() -> None:
    """For NONE, the code alone and no further character (A1)."""
    assert judge(
        make_attempt(tokencode_reading(STEP, pin=None), token=app_token())
    ).accepted
    judgement = judge(make_attempt(RIGHT_TOKENCODE, token=app_token()))
    assert_refused(judgement, Reason.WRONG_PIN, charge=True)


@pytest.mark.parametrize("moments", [(STEP,), (STEP - 1, STEP)])
def test_a_spent_tokencode_is_refused_and_not_charged(moments: Any) -> None:
    """
    Never accepted again (K1).

    It is no guess, as with codes that are not live (A5).
    """
    attempt = make_attempt(tokencode_reading(*moments), token=make_token(spent=STEP))
    assert_refused(judge(attempt), Reason.TOKENCODE_SPENT, charge=False)


def test_a_spent_tokencode_with_a_wrong_pin_is_charged() -> None:
    """An observer of the tokencode does not get free guesses at the PIN (A5)."""
    attempt = make_attempt(
        tokencode_reading(STEP, pin=WRONG_PIN), token=make_token(spent=STEP)
    )
    assert_refused(judge(attempt), Reason.WRONG_PIN, charge=True)


def test_the_earliest_moment_that_is_not_spent_is_taken() -> None:
    """Digits may be the tokencode of two moments (RFC 4226, 7.4)."""
    token = make_token(parameters=HOTP, spent=4)
    judgement = judge(make_attempt(tokencode_reading(7, 4, 6), token=token))
    assert judgement.token is not None
    assert judgement.token.spent == 6


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (WRONG_TOKENCODE, Reason.WRONG_PASSCODE),
        (tokencode_reading(STEP, length=8), Reason.WRONG_PASSCODE),
        (tokencode_reading(STEP, pin=WRONG_PIN), Reason.WRONG_PIN),
        (tokencode_reading(STEP, pin=None), Reason.WRONG_PIN),
        (tokencode_reading(STEP, serial=TokenSerial("9")), Reason.WRONG_PASSCODE),
    ],
)
def test_a_wrong_passcode_is_charged(reading: Any, reason: Reason) -> None:
    """All digits charge the token factor (L)."""
    judgement = judge(make_attempt(reading))
    assert_refused(judgement, reason, charge=True)
    assert set(judgement.lockouts) == {Factor.TOKEN}


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (make_token(enabled=False), Reason.TOKEN_DISABLED),
        (make_token(expires_at_ms=NOW_MS), Reason.TOKEN_EXPIRED),
        (make_token(pin_verifier=b""), Reason.PIN_NOT_SET),
    ],
)
def test_a_token_that_may_not_be_used_is_refused(token: Any, reason: Reason) -> None:
    """A right passcode is no guess, and still refused (A4)."""
    judgement = judge(make_attempt(RIGHT_TOKENCODE, token=token))
    assert_refused(judgement, reason, charge=False)


def test_a_cloud_agent_accepts_tokencodes() -> None:
    """Token passcodes of a CLOUD agent are judged as usual (A4)."""
    assert judge(make_attempt(RIGHT_TOKENCODE, agent=CLOUD)).accepted


def test_both_splits_of_the_digits_are_tried() -> None:
    """4 digits of PIN and 8 of code, or 6 and 6: either may be right (T4)."""
    token = make_token(parameters=replace(TOTP, digits=8))
    attempt = make_attempt(
        tokencode_reading(pin=WRONG_PIN, length=6),
        tokencode_reading(STEP, length=8),
        token=token,
    )
    assert judge(attempt).accepted


def test_any_of_the_users_tokens_may_be_used() -> None:
    """Up to three tokens a user, each with its own PIN."""
    other = app_token(serial=TokenSerial("000999"))
    attempt = make_attempt(tokencode_reading(STEP, pin=None, serial=other.serial))
    judgement = judge(replace(attempt, tokens=(make_token(), other)))
    assert judgement.serial == other.serial


def test_a_right_passcode_of_an_unusable_token_is_never_a_guess() -> None:
    """Even if the digits are wrong for the user's other token."""
    other = make_token(serial=TokenSerial("000999"))
    attempt = make_attempt(RIGHT_TOKENCODE, token=make_token(enabled=False))
    judgement = judge(replace(attempt, tokens=(other, *attempt.tokens)))
    assert_refused(judgement, Reason.TOKEN_DISABLED, charge=False)


# --- The lost token comes back


def lost(recovery: RecoveryPolicy, **changes: Any) -> Any:
    return make_token(lost=True, recovery=recovery, **changes)


@pytest.mark.parametrize(
    "recovery", [RecoveryPolicy.DENY, RecoveryPolicy.ALLOW_AFTER_EXPIRY]
)
def test_a_lost_token_is_refused(recovery: RecoveryPolicy) -> None:
    """While a set lives: token refused, and noted; its codes work (R, R4)."""
    judgement = judge(make_attempt(RIGHT_TOKENCODE, token=lost(recovery)))
    assert_refused(judgement, Reason.RECOVERED_TOKEN_REFUSED, charge=False)
    assert judgement.events == (
        Event(
            action="RECOVERED_TOKEN_REFUSED",
            serial=SERIAL,
            cause="right passcode of a lost token",
        ),
    )
    assert judge(make_attempt(RIGHT_CODE, token=lost(recovery))).accepted


def test_a_found_token_voids_its_codes_in_the_same_commit() -> None:
    """ALLOW_AND_DISABLE: voids all live codes and clears lost (R)."""
    attempt = make_attempt(
        RIGHT_TOKENCODE,
        token=lost(RecoveryPolicy.ALLOW_AND_DISABLE),
        code_sets=(make_set(2, set_id="s2"), make_set(3).spend(1, USE)),
    )
    judgement = judge(attempt)
    assert judgement.accepted
    assert judgement.token is not None
    assert not judgement.token.lost
    assert judgement.token.spent == STEP
    states = [code.state for each in judgement.sets for code in each.codes]
    assert states == [CodeState.VOID] * 2 + [CodeState.USED] + [CodeState.VOID] * 2
    assert [(each.action, each.cause) for each in judgement.events] == [
        ("RECOVERED_TOKEN_ACCEPTED", "right passcode under ALLOW_AND_DISABLE"),
        ("CODES_VOIDED", "recovered token accepted: 4 codes"),
    ]


def test_a_token_works_after_the_end_of_its_set() -> None:
    """ALLOW_AFTER_EXPIRY: from the set's end on; that logon clears lost (R)."""
    attempt = make_attempt(
        RIGHT_TOKENCODE,
        token=lost(RecoveryPolicy.ALLOW_AFTER_EXPIRY),
        code_sets=(make_set(ends_at_ms=NOW_MS),),
    )
    judgement = judge(attempt)
    assert judgement.accepted
    assert judgement.token is not None
    assert not judgement.token.lost
    assert [each.action for each in judgement.events] == ["RECOVERED_TOKEN_ACCEPTED"]


def test_a_wrong_passcode_of_a_lost_token_clears_nothing() -> None:
    """Only an accepted token passcode does (R)."""
    attempt = make_attempt(
        tokencode_reading(STEP, pin=WRONG_PIN),
        token=lost(RecoveryPolicy.ALLOW_AND_DISABLE),
    )
    judgement = judge(attempt)
    assert_refused(judgement, Reason.WRONG_PIN, charge=True)
    assert judgement.sets == ()


# --- Who is refused before anything is evaluated


@pytest.mark.parametrize("reading", [RIGHT_CODE, RIGHT_TOKENCODE])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"agent": None}, Reason.AGENT_UNKNOWN),
        ({"agent": replace(GATEWAY, enabled=False)}, Reason.AGENT_DISABLED),
        ({"user": None}, Reason.USER_UNKNOWN),
        ({"user": replace(ALICE, enabled=False)}, Reason.USER_DISABLED),
    ],
)
def test_refusal_does_not_reveal_a_disabled_user(
    reading: Any, changes: dict[str, Any], reason: Reason
) -> None:
    """Unknown and disabled: refused, nothing spent, no one charged (A4, A6)."""
    judgement = judge(make_attempt(reading, **changes))
    assert_refused(judgement, reason, charge=False)
    assert judgement.lockouts == {}


@pytest.mark.parametrize("count", [1, 5, 100])
@pytest.mark.parametrize(
    "reading", [RIGHT_CODE, NO_SUCH_CODE, RIGHT_TOKENCODE, WRONG_TOKENCODE]
)
def test_while_locked_nothing_is_evaluated(reading: Any, count: int) -> None:
    """Waiting, locked or off: not evaluated, not spent, not counted (L5)."""
    factor = Factor.EMERGENCY if reading.emergency else Factor.TOKEN
    judgement = judge(make_attempt(reading, lockouts={factor: failures(count)}))
    assert_refused(judgement, Reason.LOCKED, charge=False)
    assert judgement.lockouts == {}


def test_factors_are_locked_apart() -> None:
    """Per user and factor (L)."""
    locked = failures(5)
    assert judge(make_attempt(RIGHT_CODE, lockouts={Factor.TOKEN: locked})).accepted
    assert judge(
        make_attempt(RIGHT_TOKENCODE, lockouts={Factor.EMERGENCY: locked})
    ).accepted


def test_a_success_resets_its_own_factor() -> None:
    """A success sets the factor's count to 0, not the other's (L6)."""
    waited = replace(failures(4), blocked_until_ms=NOW_MS)
    both = {Factor.TOKEN: waited, Factor.EMERGENCY: waited}
    assert judge(make_attempt(RIGHT_CODE, lockouts=both)).lockouts == {
        Factor.EMERGENCY: FREE
    }


def ninety_nine() -> Any:
    """Return 99 failures whose wait is over."""
    return failures(99, every_ms=DAY_MS, policy=POLICY)


def test_a_hundred_wrong_codes_turn_emergency_access_off() -> None:
    """The codes are void and the token stays lost: no thief revives it (L4, R2)."""
    waited = replace(ninety_nine(), blocked_until_ms=NOW_MS)
    attempt = make_attempt(
        NO_SUCH_CODE,
        token=lost(RecoveryPolicy.DENY),
        lockouts={Factor.EMERGENCY: waited},
    )
    judgement = judge(attempt)
    assert_refused(judgement, Reason.WRONG_PASSCODE, charge=True)
    assert judgement.lockouts[Factor.EMERGENCY].off
    assert [code.state for code in judgement.sets[0].codes] == [CodeState.VOID] * 3
    assert [(each.action, each.cause) for each in judgement.events] == [
        ("CODES_VOIDED", "too many failures: 3 codes")
    ]


def test_a_lock_until_unlocked_leaves_the_codes_alone() -> None:
    """Only the hundredth failure voids codes, not a lock of policy (L3, L4, R2)."""
    policy = replace(POLICY, lock_until_unlocked=True)
    waited = replace(failures(4), blocked_until_ms=NOW_MS)
    judgement = judge(
        make_attempt(NO_SUCH_CODE, policy=policy, lockouts={Factor.EMERGENCY: waited})
    )
    assert judgement.lockouts[Factor.EMERGENCY].off
    assert (judgement.sets, judgement.events) == ((), ())


def test_a_hundred_wrong_tokencodes_leave_the_codes_alone() -> None:
    """R2 is for the emergency factor only (L4)."""
    waited = replace(ninety_nine(), blocked_until_ms=NOW_MS)
    judgement = judge(make_attempt(WRONG_TOKENCODE, lockouts={Factor.TOKEN: waited}))
    assert judgement.lockouts[Factor.TOKEN].off
    assert (judgement.sets, judgement.events) == ((), ())


def test_wrong_guesses_take_nothing_back_from_a_set_that_has_ended() -> None:
    """Its end cleared the lost mark; later guesses do not change that (R, L4)."""
    waited = replace(ninety_nine(), blocked_until_ms=NOW_MS)
    token = lost(RecoveryPolicy.ALLOW_AFTER_EXPIRY)
    ended = make_set(ends_at_ms=NOW_MS)
    judgement = judge(
        make_attempt(
            NO_SUCH_CODE,
            token=token,
            code_sets=(ended,),
            lockouts={Factor.EMERGENCY: waited},
        )
    )
    assert judgement.lockouts[Factor.EMERGENCY].off
    (after,) = judgement.sets
    assert judge(
        make_attempt(RIGHT_TOKENCODE, token=token, code_sets=(after,))
    ).accepted


def test_a_set_that_was_void_is_left_out_when_all_are_voided() -> None:
    """Nothing is voided twice or audited without having happened (R4)."""
    waited = replace(ninety_nine(), blocked_until_ms=NOW_MS)
    judgement = judge(
        make_attempt(
            NO_SUCH_CODE,
            code_sets=(make_set().void(NOW_MS),),
            lockouts={Factor.EMERGENCY: waited},
        )
    )
    assert (judgement.sets, judgement.events) == ((), ())


def test_thirty_tries_of_one_code_leave_the_user_free() -> None:
    """One is accepted, the rest are no guesses, and the next code works (A5)."""
    attempt = make_attempt(RIGHT_CODE)
    accepted = 0
    for _ in range(30):
        judgement = judge(attempt)
        accepted += judgement.accepted
        attempt = replace(
            attempt,
            sets={SERIAL: judgement.sets or attempt.sets[SERIAL]},
            lockouts={**attempt.lockouts, **judgement.lockouts},
        )
    assert accepted == 1
    assert attempt.lockouts == {Factor.EMERGENCY: FREE}
    next_code = replace(attempt, readings=(emergency_reading(ordinal=2),))
    assert judge(next_code).accepted


def test_a_token_of_another_user_is_not_judged() -> None:
    """A passcode is judged with the user's own tokens only."""
    foreign = make_token(user_id=UserId("u2"))
    judgement = judge(make_attempt(RIGHT_CODE, token=foreign, tokens=(), sets={}))
    assert_refused(judgement, Reason.WRONG_PASSCODE, charge=True)


@pytest.mark.parametrize("rule", PinRule)
def test_a_passcode_without_a_reading_is_a_guess(rule: PinRule) -> None:
    """Blank or too short: charged like any wrong one (A6)."""
    token = make_token(pin_rule=rule)
    judgement = judge(make_attempt(token=token))
    assert_refused(judgement, Reason.WRONG_PASSCODE, charge=True)


def test_a_fixed_tokencode_is_not_spent() -> None:
    """It is accepted repeatedly; use never ends it (I11)."""
    attempt = make_attempt(
        emergency_reading(), code_sets=(make_set(1, fixed=True, ends_at_ms=NOW_MS + 1),)
    )
    judged = judge(attempt)
    assert judged.accepted
    assert judged.sets == ()
    assert judged.events == ()
    assert judged.lockouts == {Factor.EMERGENCY: FREE}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"code_sets": (make_set(1, fixed=True, ends_at_ms=NOW_MS),)}, "set_expired"),
        ({"code_sets": (make_set(1, fixed=True).void(NOW_MS),)}, "code_not_live"),
        ({"agent": CLOUD, "code_sets": (make_set(1, fixed=True),)}, "resource_not"),
        ({"token": make_token(enabled=False)}, "token_disabled"),
    ],
)
def test_a_fixed_tokencode_is_refused_like_any_other(
    changes: dict[str, Any], reason: str
) -> None:
    """Expired, void, not covered, not usable (A4, I11)."""
    arguments = {"code_sets": (make_set(1, fixed=True),), **changes}
    judged = judge(make_attempt(emergency_reading(), **arguments))
    assert judged.reason is not None
    assert judged.reason.startswith(reason)
