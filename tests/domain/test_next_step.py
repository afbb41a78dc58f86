# SPDX-License-Identifier: Apache-2.0
"""The next step after a passcode that was right so far (K1-K3)."""

from dataclasses import replace
from typing import Any

import pytest

from sparecode_node.domain.authentication import Judgement, judge
from sparecode_node.domain.challenges import CHALLENGE_MS, Challenge, NextStep
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import AgentIdentity, KeyId, Moment
from sparecode_node.domain.lockout import FREE, Factor
from sparecode_node.domain.next_step import ChallengeAnswer, judge_next
from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.passcodes import Reading
from sparecode_node.domain.pins import NewPin, PinRule
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.domain.tokencodes import moments_after
from tests.domain.examples import (
    ALICE,
    CLOUD,
    GATEWAY,
    HOTP,
    NOW_MS,
    POLICY,
    SERIAL,
    STEP,
    USE,
    failures,
    make_attempt,
    make_set,
    make_token,
    tokencode_reading,
)

NEW_PIN = b"verifier of the new PIN"
CHOSEN = NewPin(verifier=NEW_PIN, key_id=KeyId(1))
NO_PIN = make_token(pin_verifier=b"")
BARE = tokencode_reading(STEP, pin=None)
THREE_WRONG = {Factor.TOKEN: replace(failures(3), blocked_until_ms=NOW_MS)}


def first_step(*readings: Reading, **changes: Any) -> Judgement:
    """Judge a passcode."""
    return judge(make_attempt(*readings, **changes))


def challenge(step: NextStep, **changes: Any) -> Challenge:
    """Return the challenge that the gateway got for Alice."""
    made = Challenge(
        challenge_id="a1",
        step=step,
        agent=GATEWAY.identity,
        user_id=ALICE.user_id,
        auth_version=ALICE.auth_version,
        serial=SERIAL,
        moment=STEP,
        ends_at_ms=NOW_MS + 1,
    )
    return replace(made, **changes)


def challenge_answer(step: NextStep, **changes: Any) -> ChallengeAnswer:
    """Return the right answer to a challenge."""
    made = ChallengeAnswer(
        challenge=challenge(step),
        consumed=False,
        moments=(Moment(STEP + 1),),
        pin=CHOSEN if step is NextStep.NEW_PIN else None,
    )
    return replace(made, **changes)


def second_step(answer: ChallengeAnswer, **changes: Any) -> Judgement:
    """Judge the answer, after the first tokencode was spent."""
    token = NO_PIN if answer.pin else make_token()
    spent = replace(token, spent=STEP)
    return judge_next(make_attempt(**{"token": spent, **changes}), answer)


def charged(judgement: Judgement) -> bool:
    """Return whether a failure was counted."""
    return any(lockout.failures for lockout in judgement.lockouts.values())


# --- Which step is asked for


def test_a_token_without_a_pin_asks_for_one() -> None:
    """Spent at once, accepted not yet, and no count changes (K2, K3)."""
    judgement = first_step(BARE, token=NO_PIN)
    assert judgement.next_step is NextStep.NEW_PIN
    assert not judgement.accepted
    assert judgement.token == replace(NO_PIN, spent=STEP)
    assert judgement.lockouts == {}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"token": replace(NO_PIN, lost=True)}, Reason.PIN_NOT_SET),
        ({"token": replace(NO_PIN, enabled=False)}, Reason.TOKEN_DISABLED),
        ({"token": replace(NO_PIN, expires_at_ms=NOW_MS)}, Reason.TOKEN_EXPIRED),
        ({"token": replace(NO_PIN, spent=STEP)}, Reason.TOKENCODE_SPENT),
    ],
)
def test_no_pin_is_asked_for_where_the_token_is_not_to_be_used(
    changes: dict[str, Any], reason: Reason
) -> None:
    """Nor for a token that counts as lost (A4, K1, R2)."""
    judgement = first_step(BARE, **{"token": NO_PIN, **changes})
    assert judgement.reason is reason
    assert judgement.token is None
    assert not charged(judgement)


@pytest.mark.parametrize("recovery", RecoveryPolicy)
def test_a_lost_token_gets_no_new_pin_under_any_policy(
    recovery: RecoveryPolicy,
) -> None:
    """A finder or thief does not choose its PIN (R2)."""
    token = replace(NO_PIN, lost=True, recovery=recovery)
    ended = make_set(ends_at_ms=NOW_MS)
    for sets in ((make_set(),), (ended,)):
        assert first_step(BARE, token=token, code_sets=sets).next_step is None


@pytest.mark.parametrize(("wrong", "next_step"), [(2, None), (3, "next_tokencode")])
def test_after_three_wrong_ones_the_next_tokencode_is_asked_for(
    wrong: int, next_step: Any
) -> None:
    """A right one is spent, and the count stays (K1, K3)."""
    waited = replace(failures(wrong), blocked_until_ms=NOW_MS)
    judgement = first_step(tokencode_reading(STEP), lockouts={Factor.TOKEN: waited})
    assert judgement.next_step == next_step
    assert judgement.accepted is (next_step is None)
    assert judgement.token is not None
    assert judgement.token.spent == STEP
    assert judgement.lockouts == ({} if next_step else {Factor.TOKEN: FREE})


def test_policy_says_after_how_many() -> None:
    """0 means never (K1)."""
    for most, calls in ((0, False), (1, True)):
        policy = replace(POLICY, next_tokencode_from_failures=most)
        judgement = first_step(
            tokencode_reading(STEP), lockouts=THREE_WRONG, policy=policy
        )
        assert judgement.accepted is not calls


def wide_reading(moment: int) -> Reading:
    """Return a reading that is right in the wide window only."""
    reading = tokencode_reading(moment)
    (match,) = reading.tokencodes
    return replace(reading, tokencodes=(replace(match, wide=True),))


def test_a_token_that_is_far_off_has_to_show_two() -> None:
    """One within the wide window proves little: no drift is learned from it (K1)."""
    reading = wide_reading(STEP + 40)
    calls = first_step(reading, lockouts=THREE_WRONG)
    assert calls.next_step is NextStep.NEXT_TOKENCODE
    assert calls.token == make_token(spent=STEP + 40)
    refused = first_step(reading)
    assert refused.reason is Reason.WRONG_PASSCODE
    assert charged(refused)


def test_a_near_moment_is_preferred_to_a_far_one() -> None:
    """The digits may be right at two moments by chance (K1)."""
    near, far = tokencode_reading(STEP), wide_reading(STEP - 50)
    both = replace(near, tokencodes=(*far.tokencodes, *near.tokencodes))
    judgement = first_step(both, lockouts=THREE_WRONG)
    assert judgement.token is not None
    assert judgement.token.spent == STEP


# --- The answer


def test_the_next_tokencode_is_accepted_and_the_count_is_zero() -> None:
    """Both are spent, the drift is learned, the challenge consumed (K3, L6)."""
    answer = challenge_answer(NextStep.NEXT_TOKENCODE)
    judgement = second_step(answer, lockouts=THREE_WRONG)
    assert judgement.accepted
    assert judgement.token == make_token(spent=STEP + 1, drift=1)
    assert judgement.lockouts == {Factor.TOKEN: FREE}
    assert judgement.consumed == answer.challenge


def test_a_new_pin_is_set_with_the_next_tokencode() -> None:
    """In the commit that accepts (K2, K3)."""
    judgement = second_step(challenge_answer(NextStep.NEW_PIN))
    assert judgement.accepted
    assert judgement.token is not None
    assert judgement.token.pin_verifier == NEW_PIN
    assert [event.action for event in judgement.events] == ["PIN_CHOSEN"]


@pytest.mark.parametrize("step", NextStep)
def test_a_wrong_next_tokencode_is_charged_and_consumes(step: NextStep) -> None:
    """Each challenge gives one guess, of the same factor (K3, L)."""
    answer = challenge_answer(step, moments=())
    judgement = second_step(answer, lockouts=THREE_WRONG)
    assert judgement.reason is Reason.WRONG_PASSCODE
    assert judgement.lockouts[Factor.TOKEN].failures == 4
    assert judgement.token is None
    assert judgement.consumed == answer.challenge


OTHERS = [
    ({"agent": AgentIdentity("other")}, "another agent"),
    ({"ends_at_ms": NOW_MS}, "expired"),
    ({"auth_version": ALICE.auth_version - 1}, "changed since"),
]


@pytest.mark.parametrize(("changes", "words"), OTHERS)
@pytest.mark.parametrize("step", NextStep)
def test_a_challenge_is_bound_to_agent_user_and_time(
    step: NextStep, changes: dict[str, Any], words: str
) -> None:
    """Not judged, not charged, not consumed (K3)."""
    judgement = second_step(
        challenge_answer(step, challenge=challenge(step, **changes))
    )
    assert judgement.reason is Reason.CHALLENGE_NOT_VALID
    assert words in judgement.detail
    assert judgement == Judgement(reason=judgement.reason, detail=judgement.detail)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"challenge": None}, "not of this cluster"),
        ({"consumed": True}, "already answered"),
        ({"pin": None}, "does not fit"),
    ],
)
def test_a_challenge_is_answered_once_and_with_the_requested_fields(
    changes: dict[str, Any], words: str
) -> None:
    """Single use (K3)."""
    answer = challenge_answer(NextStep.NEW_PIN, **changes)
    judgement = second_step(answer, token=replace(NO_PIN, spent=STEP))
    assert judgement.reason is Reason.CHALLENGE_NOT_VALID
    assert words in judgement.detail
    assert judgement.consumed is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"agent": None}, Reason.AGENT_UNKNOWN),
        ({"agent": replace(GATEWAY, enabled=False)}, Reason.AGENT_DISABLED),
        ({"user": None}, Reason.USER_UNKNOWN),
        ({"user": replace(ALICE, enabled=False)}, Reason.USER_DISABLED),
        ({"lockouts": {Factor.TOKEN: failures(3)}}, Reason.LOCKED),
    ],
)
def test_a_refusal_before_judging_consumes_nothing(
    changes: dict[str, Any], reason: Reason
) -> None:
    """As with passcodes: not judged, not counted (A4, L5)."""
    judgement = second_step(challenge_answer(NextStep.NEXT_TOKENCODE), **changes)
    assert judgement == Judgement(reason=reason)


def test_a_lost_token_is_held_back_by_a_kept_set_that_was_used_up() -> None:
    """(R2) At its second step as at its first."""
    token = make_token(lost=True, recovery=RecoveryPolicy.ALLOW_AFTER_EXPIRY)
    ended, lives = (make_set(1, ends_at_ms=NOW_MS + more) for more in (0, DAY_MS))
    judgement = second_step(
        challenge_answer(NextStep.NEXT_TOKENCODE),
        token=token,
        code_sets=(ended, lives.spend(1, USE)),
    )
    assert not judgement.accepted
    assert judgement.reason is Reason.RECOVERED_TOKEN_REFUSED


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (make_token(expires_at_ms=NOW_MS), Reason.TOKEN_EXPIRED),
        (make_token(spent=STEP + 1), Reason.TOKENCODE_SPENT),
        (make_token(lost=True), Reason.RECOVERED_TOKEN_REFUSED),
        (make_token(pin_rule=PinRule.NONE, pin_verifier=b""), Reason.PIN_NOT_USED),
    ],
)
def test_a_right_answer_of_a_token_that_is_not_to_be_used_is_no_guess(
    token: Any, reason: Reason
) -> None:
    """Refused, not charged (A4, A5)."""
    step = (
        NextStep.NEW_PIN if reason is Reason.PIN_NOT_USED else NextStep.NEXT_TOKENCODE
    )
    judgement = second_step(challenge_answer(step), token=token, code_sets=())
    assert judgement.reason is reason
    assert not charged(judgement)


def test_a_token_that_is_gone_is_refused() -> None:
    """The user's other tokens do not matter."""
    judgement = second_step(challenge_answer(NextStep.NEXT_TOKENCODE), tokens=())
    assert judgement.reason is Reason.TOKEN_NOT_ASSIGNED


def test_the_lost_token_is_found_by_the_second_step() -> None:
    """With `ALLOW_AND_DISABLE`, the codes are voided at acceptance, not before (R)."""
    lost = make_token(lost=True, recovery=RecoveryPolicy.ALLOW_AND_DISABLE)
    first = first_step(tokencode_reading(STEP), token=lost, lockouts=THREE_WRONG)
    assert first.token == replace(lost, spent=STEP)
    assert first.sets == ()
    second = second_step(
        challenge_answer(NextStep.NEXT_TOKENCODE),
        token=first.token,
        lockouts=THREE_WRONG,
    )
    assert second.accepted
    assert second.token is not None
    assert not second.token.lost
    assert [each.voided for each in second.sets] == [True]


def test_a_cloud_agent_may_ask_for_the_next_step() -> None:
    """Token passcodes there are judged as usual (A4)."""
    assert second_step(challenge_answer(NextStep.NEXT_TOKENCODE), agent=CLOUD).accepted


@pytest.mark.parametrize(("parameters", "count"), [(None, 5), (HOTP, 1)])
def test_the_next_tokencode_is_one_that_the_token_shows_in_time(
    parameters: Any, count: int
) -> None:
    """A counter's is the one that follows (RFC 4226, 7.4); a clock's any by then (K3)."""
    token = make_token(**({"parameters": parameters} if parameters else {}))
    result = list(moments_after(token.parameters, STEP, within_ms=CHALLENGE_MS))
    assert result == [STEP + ahead for ahead in range(1, count + 1)]


def test_thirty_answers_to_one_challenge_are_accepted_once() -> None:
    """The rest are no guesses: a double submit locks no one out (K3, A5)."""
    answer, accepted = challenge_answer(NextStep.NEXT_TOKENCODE), 0
    attempt = make_attempt(token=make_token(spent=STEP), lockouts=THREE_WRONG)
    for _ in range(30):
        judgement = judge_next(attempt, answer)
        accepted += judgement.accepted
        answer = replace(answer, consumed=answer.consumed or bool(judgement.consumed))
        attempt = replace(attempt, lockouts={**attempt.lockouts, **judgement.lockouts})
    assert accepted == 1
    assert attempt.lockouts == {Factor.TOKEN: FREE}
    assert attempt.use == USE
