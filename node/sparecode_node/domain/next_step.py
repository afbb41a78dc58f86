# SPDX-License-Identifier: Apache-2.0
"""The decision on the answer to a challenge: the second step of sign-in (K2, K3)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sparecode_node.domain.authentication import (
    Attempt,
    Event,
    Judgement,
    Refusal,
    accept,
    not_admitted,
    refuse,
)
from sparecode_node.domain.challenges import Challenge, NextStep
from sparecode_node.domain.ids import Moment
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.pins import NewPin
from sparecode_node.domain.recovery import refuses_recovered


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeAnswer:
    """A challenge that an agent returns, with the user's answer."""

    challenge: Challenge | None
    """None: it is not a challenge of this cluster."""
    consumed: bool
    moments: Sequence[Moment]
    """Moments after the challenge's at which the typed digits are the tokencode."""
    pin: NewPin | None
    """The new PIN; None: the answer has none."""


def judge_next(attempt: Attempt, answer: ChallengeAnswer) -> Judgement:
    """
    Decide on the answer to a challenge.

    *attempt* is that of the first step, without readings. A right answer is accepted.
    A wrong answer is charged to the same factor. Both consume the challenge (K3). An
    answer that is not judged consumes and counts nothing (L5).
    """
    refused = not_admitted(
        attempt.agent,
        attempt.user,
        certificate_denied=attempt.certificate_denied,
        user_listed=attempt.user_listed,
    )
    if answer.challenge is None and refused is Reason.USER_UNKNOWN:
        refused = None  # Without a challenge, the user is not known either.
    if refused is not None:
        return Judgement(reason=refused)
    if not attempt.open_factors():
        return Judgement(reason=Reason.LOCKED)
    challenge, problem = answer.challenge, _problem(attempt, answer)
    if challenge is None or problem:
        return Judgement(reason=Reason.CHALLENGE_NOT_VALID, detail=problem)
    judgement = _judge(attempt, answer, challenge)
    if isinstance(judgement, Refusal):
        judgement = refuse(attempt, judgement)
    return replace(judgement, consumed=challenge)


def _problem(attempt: Attempt, answer: ChallengeAnswer) -> str:
    """Return why the challenge cannot be answered; empty if it can."""
    challenge = answer.challenge
    if challenge is None:
        return "the challenge is not of this cluster"
    if (challenge.step is NextStep.NEW_PIN) != (answer.pin is not None):
        return "the answer does not fit the challenge"
    return challenge.problem(
        attempt.use.agent,
        attempt.user.auth_version if attempt.user else 0,
        attempt.use.at_ms,
        consumed=answer.consumed,
    )


def _judge(
    attempt: Attempt, answer: ChallengeAnswer, challenge: Challenge
) -> Judgement | Refusal:
    now_ms, serial = attempt.use.at_ms, challenge.serial
    token = next((each for each in attempt.tokens if each.serial == serial), None)
    if token is None:
        return Refusal(Reason.TOKEN_NOT_ASSIGNED, serial, charged=False)
    if not answer.moments:
        return Refusal(Reason.WRONG_PASSCODE, serial, charged=True)
    unusable = token.usable(now_ms)
    if unusable is not None:
        return Refusal(unusable.reason, serial, charged=False)
    unspent = (moment for moment in sorted(answer.moments) if moment > token.spent)
    spent = token.spend(next(unspent, answer.moments[0]), now_ms)
    if isinstance(spent, Rejected):
        return Refusal(spent.reason, serial, charged=False)
    if refuses_recovered(token, attempt.sets.get(serial, ()), now_ms):
        return Refusal(Reason.RECOVERED_TOKEN_REFUSED, serial, charged=False)
    if challenge.step is NextStep.NEXT_TOKENCODE:
        return accept(attempt, token, spent)
    chosen = spent if answer.pin is None else spent.with_pin(answer.pin)
    if isinstance(chosen, Rejected):
        return Refusal(chosen.reason, serial, charged=False)
    accepted = accept(attempt, token, chosen)
    event = Event(action="PIN_CHOSEN", serial=serial, cause="in new-PIN mode")
    return replace(accepted, events=(event, *accepted.events))
