# SPDX-License-Identifier: Apache-2.0
"""Issuing a set of one-time tokencodes: what is allowed, and what it changes (I)."""

from dataclasses import replace
from typing import Any

import pytest

from sparecode_node.domain.emergency_access import CodeState, RecoveryPolicy
from sparecode_node.domain.issuing import (
    Issue,
    Wish,
    code_space,
    issue,
    issue_fixed,
)
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import DAY_MS, Policy
from tests.domain.examples import (
    ALICE,
    NOW_MS,
    POLICY,
    USE,
    app_token,
    make_set,
    make_token,
)

WISH = Wish(
    ends_at_ms=None,
    lifetime_ms=None,
    recovery=RecoveryPolicy.DENY,
    keep_unused_codes=False,
    weaken_recovery_policy=False,
)


def issue_result(count: int = 10, **changes: Any) -> Issue | Rejected:
    """Return the decision for Alice's token; *changes* are of request or context."""
    token = changes.pop("token", None) or make_token()
    user = changes.pop("user", ALICE)
    sets = changes.pop("sets", ())
    policy = changes.pop("policy", POLICY)
    return issue(token, user, sets, count, replace(WISH, **changes), policy, NOW_MS)


def refusal(**changes: Any) -> Rejected:
    """Return the refusal, which is expected."""
    answer = issue_result(**changes)
    assert isinstance(answer, Rejected)
    return answer


def issued(**changes: Any) -> Issue:
    """Return the changes, where issuing must be allowed."""
    answer = issue_result(**changes)
    assert isinstance(answer, Issue)
    return answer


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (make_token(user_id=None), Reason.TOKEN_NOT_ASSIGNED),
        (make_token(enabled=False), Reason.TOKEN_DISABLED),
        (make_token(expires_at_ms=NOW_MS), Reason.TOKEN_EXPIRED),
        (make_token(pin_verifier=b""), Reason.PIN_NOT_SET),
    ],
)
def test_the_token_must_be_usable(token: Any, reason: Reason) -> None:
    """Assigned, enabled, not expired, and with its PIN (I1)."""
    answer = refusal(token=token)
    assert answer.reason is reason
    assert answer.field == "serial"
    assert "000123" in answer.detail


@pytest.mark.parametrize("user", [None, replace(ALICE, enabled=False)])
def test_the_user_must_be_enabled(user: Any) -> None:
    """A disabled user gets no codes (I1)."""
    assert refusal(user=user).reason is Reason.USER_DISABLED


def test_a_token_without_pin_rule_needs_no_pin() -> None:
    """PIN rule NONE has no PIN to be set (I1)."""
    assert issued(token=app_token()).live == 10


@pytest.mark.parametrize("count", [0, -1, 51])
def test_the_count_has_bounds(count: int) -> None:
    """1 to 50; the refusal names the field and the bounds (I4)."""
    answer = refusal(count=count)
    assert answer.reason is Reason.CODE_COUNT
    assert answer.field == "count"
    assert answer.detail == f"count must be 1 to 50, not {count}"


@pytest.mark.parametrize("count", [1, 50])
def test_the_bounds_themselves_are_allowed(count: int) -> None:
    """1 and 50 are codes too (I4)."""
    assert issued(count=count).live == count


def test_kept_codes_count_towards_the_maximum() -> None:
    """Live codes of a token, kept ones included, are never more than 50 (I4)."""
    kept = make_set(41)
    assert issued(count=9, sets=[kept], keep_unused_codes=True).live == 50
    answer = refusal(count=10, sets=[kept], keep_unused_codes=True)
    assert answer.reason is Reason.CODE_COUNT
    assert "10 new and 41 kept codes are 51" in answer.detail


def test_ended_codes_do_not_count() -> None:
    """What cannot be used is not live (I4, I7)."""
    ended = make_set(50, ends_at_ms=NOW_MS)
    assert issued(count=50, sets=[ended], keep_unused_codes=True).live == 50


def test_issuing_again_voids_the_unused_codes() -> None:
    """Re-issue voids what is unused, in the same commit (I8)."""
    change = issued(sets=[make_set(3)])
    assert (change.live, change.voided) == (10, 3)
    assert {code.state for code in change.older[0].codes} == {CodeState.VOID}


def test_unused_codes_may_be_kept() -> None:
    """`keep_unused_codes` keeps them with their own lifetimes (I8)."""
    old = make_set(3, ends_at_ms=NOW_MS + DAY_MS)
    change = issued(sets=[old], keep_unused_codes=True)
    assert change.older == (old,)
    assert (change.live, change.voided) == (13, 0)


def test_a_set_may_have_no_end() -> None:
    """Lifetime: none (I7)."""
    assert issued().ends_at_ms is None


def test_a_lifetime_is_a_time_or_a_duration_from_the_commit_on() -> None:
    """The primary's time evaluates a duration (I7)."""
    assert issued(ends_at_ms=NOW_MS + 1).ends_at_ms == NOW_MS + 1
    assert issued(lifetime_ms=7 * DAY_MS).ends_at_ms == NOW_MS + 7 * DAY_MS


@pytest.mark.parametrize(
    "past",
    [{"ends_at_ms": NOW_MS}, {"ends_at_ms": 0}, {"lifetime_ms": 0}],
)
def test_a_lifetime_in_the_past_is_refused(past: dict[str, int]) -> None:
    """Refused: past (I7)."""
    answer = refusal(**past)
    assert answer.reason is Reason.LIFETIME_PAST
    assert answer.field == "lifetime"


def test_the_policy_may_cap_lifetimes() -> None:
    """Refused: beyond the cap, and none where there is a cap (I7)."""
    policy = Policy(lifetime_ms_max=7 * DAY_MS)
    assert issued(policy=policy, lifetime_ms=7 * DAY_MS).ends_at_ms
    beyond = refusal(policy=policy, lifetime_ms=7 * DAY_MS + 1)
    assert beyond.reason is Reason.LIFETIME_BEYOND_CAP
    assert "7 days" in beyond.detail
    assert refusal(policy=policy).reason is Reason.LIFETIME_NEEDED


def test_a_lifetime_beyond_all_calendars_is_refused() -> None:
    """A duration beyond every timestamp is refused, not an overflow (I7)."""
    answer = refusal(lifetime_ms=2**63 - 1)
    assert answer.reason is Reason.LIFETIME_BEYOND_CAP
    assert "9999" in answer.detail


def test_the_alphabet_makes_the_space_of_codes() -> None:
    """All of 31^8 but those of digits alone, since each code has a letter (I5)."""
    assert code_space(POLICY.code_alphabet, 8) == 31**8 - 8**8
    assert code_space("0123456789", 8) == 10**8


def test_odds_of_the_default_are_far_below_the_bound() -> None:
    """31^8: 50 codes 6e-9 (I6)."""
    assert 50 * 100 / code_space(POLICY.code_alphabet, 8) == pytest.approx(
        5.9e-9, rel=0.01
    )
    assert issued(count=50, token=app_token()).live == 50


@pytest.mark.parametrize(
    ("token", "length", "count", "allowed"),
    [
        (make_token(), 8, 10, True),
        (make_token(), 8, 50, True),
        (app_token(), 8, 1, True),
        (app_token(), 8, 2, False),
        (app_token(), 8, 10, False),
        (make_token(), 6, 1, True),
        (make_token(), 6, 10, False),
        (app_token(), 6, 1, False),
    ],
)
def test_codes_of_digits_are_guessed_too_easily_without_a_pin(
    token: Any, length: int, count: int, *, allowed: bool
) -> None:
    """Eight digits, 10 codes: 1e-5, PIN only. Six digits, 10 codes: refused (I6)."""
    policy = Policy(code_alphabet="0123456789", code_length=length)
    answer = issue_result(count=count, token=token, policy=policy)
    assert isinstance(answer, Issue) is allowed


def test_a_refusal_shows_the_arithmetic() -> None:
    """Refused with the arithmetic (I6)."""
    policy = Policy(code_alphabet="0123456789", code_length=6)
    answer = refusal(count=10, policy=policy)
    assert answer.reason is Reason.GUESS_ODDS
    assert answer.field == "count"
    assert "10 live codes x 100 guesses / 1000000 possible codes = 1.0e-03" in (
        answer.detail
    )
    assert "1 in 10000" in answer.detail


def test_kept_codes_count_for_the_odds() -> None:
    """Guess odds are those of all live codes (I6)."""
    policy = Policy(code_alphabet="0123456789", code_length=8)
    token, kept = app_token(), make_set(1)
    assert issued(count=1, token=token, sets=[kept], policy=policy).live == 1
    answer = refusal(
        count=1, token=token, sets=[kept], policy=policy, keep_unused_codes=True
    )
    assert answer.reason is Reason.GUESS_ODDS


def test_kept_codes_of_another_length_count_by_their_own_odds() -> None:
    """(I6, T4) A guess is tried as a code of either length, so the odds add up."""
    policy = Policy(code_alphabet="0123456789", code_length=9, further_code_lengths="8")
    token, kept = app_token(), make_set(1)
    changes = {"token": token, "sets": [kept], "policy": policy}
    assert issued(count=10, **changes).live == 10
    assert kept.code_length == 8
    answer = refusal(count=1, keep_unused_codes=True, **changes)
    assert answer.reason is Reason.GUESS_ODDS
    assert (
        "1 live code x 100 guesses / 100000000 possible codes + "
        "1 live code x 100 guesses / 1000000000 possible codes = 1.1e-06"
    ) in answer.detail


def test_the_odds_follow_the_guesses_that_policy_allows() -> None:
    """Guesses are those after which the factor is off (I6, L4)."""
    digits = {"code_alphabet": "0123456789", "code_length": 8}
    changes = {"count": 1, "token": app_token()}
    assert issued(**changes, policy=Policy(**digits)).live == 1
    answer = refusal(**changes, policy=Policy(**digits, factor_off_at_failures=101))
    assert answer.reason is Reason.GUESS_ODDS


def test_issuing_marks_the_token_as_lost() -> None:
    """From now on the recovery policy governs the token (R)."""
    token = issued(recovery=RecoveryPolicy.ALLOW_AND_DISABLE).token
    assert token.lost
    assert token.recovery is RecoveryPolicy.ALLOW_AND_DISABLE


def test_allow_after_expiry_needs_an_end() -> None:
    """Without one it would mean never (R1)."""
    answer = refusal(recovery=RecoveryPolicy.ALLOW_AFTER_EXPIRY)
    assert answer.reason is Reason.RECOVERY_NEEDS_END
    assert answer.field == "recovery_policy"


def test_allow_after_expiry_needs_an_end_before_the_tokens() -> None:
    """At the token's own end or later it would mean never (R1)."""
    token = make_token(expires_at_ms=NOW_MS + DAY_MS)
    changes = {"token": token, "recovery": RecoveryPolicy.ALLOW_AFTER_EXPIRY}
    assert issued(**changes, lifetime_ms=DAY_MS - 1).ends_at_ms == NOW_MS + DAY_MS - 1
    answer = refusal(**changes, lifetime_ms=DAY_MS)
    assert answer.reason is Reason.RECOVERY_END_TOO_LATE


@pytest.mark.parametrize(
    ("ends_at_ms", "reason"),
    [
        (None, Reason.RECOVERY_NEEDS_END),
        (NOW_MS + 30 * DAY_MS, Reason.RECOVERY_END_TOO_LATE),
    ],
)
def test_allow_after_expiry_needs_an_end_of_the_kept_codes_too(
    ends_at_ms: Any, reason: Reason
) -> None:
    """While an older set lives the token is refused: it would mean never (R1, I8)."""
    changes = {
        "token": make_token(expires_at_ms=NOW_MS + 30 * DAY_MS),
        "sets": [make_set(ends_at_ms=ends_at_ms)],
        "lifetime_ms": DAY_MS,
        "recovery": RecoveryPolicy.ALLOW_AFTER_EXPIRY,
    }
    answer = refusal(**changes, keep_unused_codes=True)
    assert answer.reason is reason
    assert "the set and every kept set" in answer.detail
    assert issued(**changes).voided == 3
    used_up = make_set(1, ends_at_ms=ends_at_ms).spend(1, USE)
    assert issued(**{**changes, "sets": [used_up]}, keep_unused_codes=True).live == 10


@pytest.mark.parametrize(
    "weaker", [RecoveryPolicy.ALLOW_AND_DISABLE, RecoveryPolicy.ALLOW_AFTER_EXPIRY]
)
def test_weakening_deny_needs_confirmation(weaker: RecoveryPolicy) -> None:
    """Replacing DENY by a weaker policy needs `weaken_recovery_policy` (I8)."""
    changes = {
        "token": make_token(lost=True),
        "recovery": weaker,
        "lifetime_ms": DAY_MS,
    }
    answer = refusal(**changes)
    assert answer.reason is Reason.RECOVERY_WEAKENED
    assert answer.field == "weaken_recovery_policy"
    allowed = issued(**changes, weaken_recovery_policy=True)
    assert allowed.token.recovery is weaker


@pytest.mark.parametrize(
    ("token", "recovery"),
    [
        (make_token(lost=False), RecoveryPolicy.ALLOW_AND_DISABLE),
        (make_token(lost=True), RecoveryPolicy.DENY),
        (
            make_token(lost=True, recovery=RecoveryPolicy.ALLOW_AND_DISABLE),
            RecoveryPolicy.DENY,
        ),
    ],
)
def test_nothing_else_is_weakening(token: Any, recovery: RecoveryPolicy) -> None:
    """A token that is not lost has no policy to weaken; stricter is no weaker (I8)."""
    assert issued(token=token, recovery=recovery).token.recovery is recovery


# --- Fixed tokencodes


def fixed(**changes: Any) -> Issue | Rejected:
    """Issue a fixed tokencode for Alice's token."""
    token = changes.pop("token", None) or make_token()
    sets = changes.pop("sets", ())
    policy = changes.pop("policy", POLICY)
    wish = replace(WISH, **changes)
    return issue_fixed(token, ALICE, sets, 1, wish, policy, NOW_MS)


@pytest.mark.parametrize(
    ("cap_ms", "wished_ms", "lasts_ms"),
    [
        (None, None, 7 * DAY_MS),
        (DAY_MS, None, DAY_MS),
        (30 * DAY_MS, None, 7 * DAY_MS),
        (None, 9 * DAY_MS, 9 * DAY_MS),
    ],
)
def test_a_fixed_tokencode_ends(
    cap_ms: int | None, wished_ms: int | None, lasts_ms: int
) -> None:
    """After a week by default, and never after the cap of the policy (I11, I7)."""
    policy = replace(POLICY, lifetime_ms_max=cap_ms)
    answer = fixed(policy=policy, lifetime_ms=wished_ms)
    assert isinstance(answer, Issue)
    assert answer.ends_at_ms == NOW_MS + lasts_ms
    at_a_time = fixed(ends_at_ms=NOW_MS + 5)
    assert isinstance(at_a_time, Issue)
    assert at_a_time.ends_at_ms == NOW_MS + 5


def test_a_fixed_tokencode_always_voids_one_time_codes() -> None:
    """Saving one type voids the other (I11)."""
    answer = fixed(sets=[make_set(3)], keep_unused_codes=True)
    assert isinstance(answer, Issue)
    assert (answer.live, answer.voided) == (1, 3)
    assert all(each.voided for each in answer.older)


def test_one_time_codes_always_void_a_fixed_tokencode() -> None:
    """Saving one type voids the other (I11); kept codes of its own type stay."""
    sets = [make_set(1, fixed=True, set_id="f"), make_set(2, set_id="o")]
    answer = issued(count=3, sets=sets, keep_unused_codes=True)
    assert (answer.live, answer.voided) == (5, 1)
    assert [each.voided for each in answer.older] == [True, False]


def test_a_fixed_tokencode_has_eight_symbols_at_least() -> None:
    """It may be tried for as long as it lives (I11)."""
    answer = fixed(policy=Policy(code_length=7))
    assert isinstance(answer, Rejected)
    assert answer.reason is Reason.CODE_FORMAT
    assert "at least 8 symbols" in answer.detail


def test_a_fixed_tokencode_must_not_be_guessed_too_easily() -> None:
    """The odds of one live code (I11, I6)."""
    policy = Policy(code_length=8, code_alphabet="012345678")
    assert isinstance(fixed(policy=policy), Issue)
    answer = fixed(policy=policy, token=app_token())
    assert isinstance(answer, Rejected)
    assert answer.reason is Reason.GUESS_ODDS


def test_a_fixed_tokencode_needs_what_one_time_codes_need() -> None:
    """A usable token with its PIN (I1); no weaker policy without confirmation (I8)."""
    for answer, reason in (
        (fixed(token=make_token(pin_verifier=b"")), Reason.PIN_NOT_SET),
        (fixed(lifetime_ms=-1), Reason.LIFETIME_PAST),
        (
            fixed(
                token=make_token(lost=True),
                recovery=RecoveryPolicy.ALLOW_AND_DISABLE,
            ),
            Reason.RECOVERY_WEAKENED,
        ),
    ):
        assert isinstance(answer, Rejected)
        assert answer.reason is reason
