# SPDX-License-Identifier: Apache-2.0
"""
The decision on a passcode, as one pure function (A1-A6, K1, L, R).

It takes everything that matters and returns everything that changes; apply saves it
in one commit (A3). `next_step` decides on the step after a passcode that was right so
far. `_judge_emergency` spends an emergency code, `_judge_token` a tokencode. All
refusals look the same to the caller: only the audit log gets the reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from sparecode_node.domain.agents import Agent
from sparecode_node.domain.challenges import Challenge, NextStep
from sparecode_node.domain.code_lookup import Sets, find_code, find_former
from sparecode_node.domain.emergency_access import (
    CodeState,
    EmergencyCode,
    EmergencyCodeSet,
    FormerCode,
    FormerSet,
    Use,
    all_void,
    live_codes,
)
from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.lockout import FREE, Factor, Lockout
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.passcodes import Reading
from sparecode_node.domain.personal_notices import Told
from sparecode_node.domain.pin_checks import (
    may_choose_pin,
    pin_refused,
    tokencode_pin_refused,
)
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.recovery import refuses_recovered
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A consequence that gets its own audit event (R4)."""

    action: str
    serial: TokenSerial
    cause: str
    outcome: str = "noted"
    told: Sequence[Told] = ()
    """What users hear beside it by mail (N6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A passcode to judge, with everything that the decision depends on."""

    factors: Sequence[Factor]
    """The factors that this may be a guess at; two if the passcode is ambiguous (L)."""
    readings: Sequence[Reading]
    agent: Agent | None
    certificate_denied: bool = False
    """Whether the agent's certificate is on the deny list."""
    user_listed: bool = False
    """Whether the user is on the agent's allow list."""
    user: User | None
    tokens: Sequence[Token]
    sets: Sets
    former_sets: Sequence[FormerSet] = ()
    """Sets of the user's former tokens, and old sets that wait to become tags."""
    former_codes: Sequence[FormerCode] = ()
    """The codes of former sets among the typed ones, found by their tags."""
    lockouts: Mapping[Factor, Lockout]
    policy: Policy
    judges_all_pins: bool = False
    """Whether the PIN before a code that is no longer live is judged: feature level 1."""
    use: Use
    """The use to record with a spent code. Its time is the time of the attempt."""

    def open_factors(self) -> tuple[Factor, ...]:
        """Return the factors that are neither waiting nor locked (L5)."""
        return tuple(
            factor
            for factor in self.factors
            if not self.lockouts.get(factor, FREE).blocks(self.use.at_ms)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The decision on an attempt, and everything that changes with it."""

    reason: Reason | None
    """None: accepted, or right so far."""
    next_step: NextStep | None = None
    """The step still needed before acceptance; the tokencode is already spent (K3)."""
    serial: TokenSerial | None = None
    """The token of the passcode, if known."""
    token: Token | None = None
    sets: tuple[EmergencyCodeSet, ...] = ()
    lockouts: Mapping[Factor, Lockout] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    consumed: Challenge | None = None
    """The challenge that this attempt answered, rightly or wrongly."""
    detail: str = ""
    """Details of the reason, for the audit log."""

    @property
    def accepted(self) -> bool:
        """Whether the passcode is accepted."""
        return self.reason is None and self.next_step is None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a reading is refused. *charged*: the refusal counts as a guess."""

    reason: Reason
    serial: TokenSerial | None
    charged: bool


def not_admitted(
    agent: Agent | None,
    user: User | None,
    *,
    certificate_denied: bool,
    user_listed: bool,
) -> Reason | None:
    """Return why the agent cannot authenticate this user at all, or None (A4)."""
    if agent is None:
        return Reason.AGENT_UNKNOWN
    if not agent.enabled:
        return Reason.AGENT_DISABLED
    if certificate_denied:
        return Reason.CERTIFICATE_DENIED
    if user is None:
        return Reason.USER_UNKNOWN
    if not user.enabled:
        return Reason.USER_DISABLED
    if agent.restricted and not user_listed:
        return Reason.USER_NOT_ALLOWED
    return None


def judge(attempt: Attempt) -> Judgement:
    """Decide on a passcode."""
    refused = not_admitted(
        attempt.agent,
        attempt.user,
        certificate_denied=attempt.certificate_denied,
        user_listed=attempt.user_listed,
    )
    if refused is not None:
        return Judgement(reason=refused)
    factors = attempt.open_factors()
    if not factors:
        # Not judged: nothing is counted or spent (L5).
        return Judgement(reason=Reason.LOCKED)
    attempt = replace(attempt, factors=factors)
    judges = {Factor.TOKEN: _judge_token, Factor.EMERGENCY: _judge_emergency}
    refusals = []
    for factor in factors:
        outcome = judges[factor](attempt)
        if isinstance(outcome, Judgement):
            return outcome
        refusals.append(outcome)
    return refuse(attempt, _most_telling(refusals))


def _most_telling(refusals: Sequence[Refusal]) -> Refusal:
    """
    Return the most informative refusal.

    First an uncharged one: a right passcode that may not be used is not a guess,
    whatever its other readings are. Then, for the audit log, a right code with a wrong
    PIN.
    """
    for refusal in refusals:
        if not refusal.charged:
            return refusal
    for refusal in refusals:
        if refusal.reason is Reason.WRONG_PIN:
            return refusal
    return Refusal(Reason.WRONG_PASSCODE, None, charged=True)


def refuse(attempt: Attempt, refusal: Refusal) -> Judgement:
    """Return the judgement of a refusal; it charges the factors if it was a guess (L)."""
    events: tuple[Event, ...] = ()
    if refusal.reason is Reason.RECOVERED_TOKEN_REFUSED and refusal.serial:
        events = (
            Event(
                action="RECOVERED_TOKEN_REFUSED",
                serial=refusal.serial,
                cause="right passcode of a lost token",
            ),
        )
    if not refusal.charged:
        return Judgement(reason=refusal.reason, serial=refusal.serial, events=events)
    now_ms, policy = attempt.use.at_ms, attempt.policy
    lockouts = {
        factor: attempt.lockouts.get(factor, FREE).failed(now_ms, policy)
        for factor in attempt.factors
    }
    emergency = lockouts.get(Factor.EMERGENCY)
    voided: tuple[EmergencyCodeSet, ...] = ()
    if emergency is not None and emergency.given_up(policy):
        voided, voided_events = _void_all(attempt, attempt.tokens, "too many failures")
        events += voided_events
    return Judgement(
        reason=refusal.reason,
        serial=refusal.serial,
        sets=voided,
        lockouts=lockouts,
        events=events,
    )


def _void_all(
    attempt: Attempt, tokens: Sequence[Token], cause: str
) -> tuple[tuple[EmergencyCodeSet, ...], tuple[Event, ...]]:
    """Return the voided sets of these tokens, and an event per token with live codes."""
    voided: list[EmergencyCodeSet] = []
    events: list[Event] = []
    for token in tokens:
        sets = attempt.sets.get(token.serial, ())
        after, live = all_void(sets, attempt.use.at_ms)
        voided += [
            each for before, each in zip(sets, after, strict=True) if not before.voided
        ]
        if live:
            events.append(
                Event(
                    action="CODES_VOIDED",
                    serial=token.serial,
                    cause=f"{cause}: {plural(live, 'code')}",
                )
            )
    return tuple(voided), tuple(events)


# --- Emergency codes ---------------------------------------------------------


def _judge_emergency(attempt: Attempt) -> Judgement | Refusal:
    match = find_code(attempt.readings, attempt.tokens, attempt.sets)
    if match is None:
        return _judge_former(attempt)
    token, code_set, code, reading = match
    serial = token.serial
    refused = _code_refused(attempt, token, code_set, code)
    pin_problem = pin_refused(token, reading)
    if pin_problem is not None:
        if (
            refused is not None
            and not attempt.judges_all_pins
            and _is_gone(code_set, code, attempt.use.at_ms)
        ):
            return refused
        # A cleared PIN cannot be guessed, so only a wrong one is charged (A2).
        charged = pin_problem is Reason.WRONG_PIN
        return Refusal(pin_problem, serial, charged=charged)
    if refused is not None:
        return refused
    if code_set.fixed:  # Never spent, so the number of live codes stays (I11).
        return Judgement(reason=None, serial=serial, lockouts={Factor.EMERGENCY: FREE})
    spent = code_set.spend(code.ordinal, attempt.use)
    return Judgement(
        reason=None,
        serial=serial,
        sets=(spent,),
        lockouts={Factor.EMERGENCY: FREE},
        events=_remaining(attempt, token, spent),
    )


def _code_refused(
    attempt: Attempt, token: Token, code_set: EmergencyCodeSet, code: EmergencyCode
) -> Refusal | None:
    """Return why a code does not work with the right PIN, or None: it is no guess (A5)."""
    now_ms, serial = attempt.use.at_ms, token.serial
    if code.state is not CodeState.LIVE:
        return Refusal(Reason.CODE_NOT_LIVE, serial, charged=False)
    unusable = token.usable(now_ms)
    if unusable is not None:
        return Refusal(unusable.reason, serial, charged=False)
    if code_set.expired(now_ms, token.expires_at_ms):
        return Refusal(Reason.SET_EXPIRED, serial, charged=False)
    if attempt.agent is None or not attempt.agent.covers_emergency_codes:
        return Refusal(Reason.RESOURCE_NOT_COVERED, serial, charged=False)
    return None


def _is_gone(code_set: EmergencyCodeSet, code: EmergencyCode, now_ms: int) -> bool:
    """
    Return whether a code never works again, whatever becomes of its token.

    Then its refusal is the same before any PIN: otherwise an administrator who issued
    codes and voided them could use them to learn the user's PIN (A5).
    """
    return code.state is not CodeState.LIVE or code_set.expired(
        now_ms, token_expires_at_ms=None
    )


def _judge_former(attempt: Attempt) -> Refusal:
    """Refuse a code that is none of the stored sets'; it may be of a former one (A5)."""
    former = find_former(attempt.readings, attempt.former_sets, attempt.former_codes)
    if former is None:
        return Refusal(Reason.WRONG_PASSCODE, None, charged=True)
    # The code was right once and never works again: no guess, whatever the PIN.
    if former.assigned and any(each.serial == former.serial for each in attempt.tokens):
        return Refusal(Reason.CODE_NOT_LIVE, former.serial, charged=False)
    return Refusal(Reason.TOKEN_NOT_ASSIGNED, former.serial, charged=False)


def _remaining(
    attempt: Attempt, token: Token, spent: EmergencyCodeSet
) -> tuple[Event, ...]:
    """Return an event if few or no codes are left (R4)."""
    sets = [
        spent if each.set_id == spent.set_id else each
        for each in attempt.sets.get(token.serial, ())
    ]
    live = live_codes(sets, attempt.use.at_ms, token.expires_at_ms)
    if live == 0:
        action = "SET_EXHAUSTED"
    elif live <= attempt.policy.set_low_threshold:
        action = "SET_LOW"
    else:
        return ()
    return (
        Event(action=action, serial=token.serial, cause=f"{plural(live, 'code')} left"),
    )


# --- Tokencodes --------------------------------------------------------------


def _judge_token(attempt: Attempt) -> Judgement | Refusal:
    refusals = []
    for reading in attempt.readings:
        for token in attempt.tokens:
            if reading.emergency or token.parameters.digits != reading.length:
                continue
            outcome = _judge_tokencode(attempt, token, reading)
            if isinstance(outcome, Judgement):
                return outcome
            refusals.append(outcome)
    return _most_telling(refusals)


def _judge_tokencode(
    attempt: Attempt, token: Token, reading: Reading
) -> Judgement | Refusal:
    asks_next = attempt.lockouts.get(Factor.TOKEN, FREE).asks_next_tokencode(
        attempt.policy
    )
    matches = [
        match
        for match in reading.tokencodes
        if match.serial == token.serial and (asks_next or not match.wide)
    ]
    if not matches:
        return Refusal(Reason.WRONG_PASSCODE, None, charged=True)
    folded = any(match.folded for match in matches)
    # Matches in the narrow window come first, then the earliest.
    matches = sorted(
        (match for match in matches if match.folded == folded),
        key=lambda match: (match.wide, match.moment),
    )
    pin_problem = tokencode_pin_refused(token, reading, folded=folded)
    new_pin = may_choose_pin(token, reading)
    if pin_problem is not None and not new_pin:
        charged = pin_problem is Reason.WRONG_PIN
        return Refusal(pin_problem, token.serial, charged=charged)
    now_ms = attempt.use.at_ms
    unusable = token.usable(now_ms)
    if unusable is not None:
        return Refusal(unusable.reason, token.serial, charged=False)
    if token.out_of_step:
        return Refusal(Reason.TOKEN_OUT_OF_STEP, token.serial, charged=False)
    unspent = (match for match in matches if match.moment > token.spent)
    match = next(unspent, matches[0])
    spent = token.spend(match.moment, now_ms)
    if isinstance(spent, Rejected):
        # The tokencode was right once: a double submit is no guess (A5).
        return Refusal(spent.reason, token.serial, charged=False)
    maybe_spent = match.moment <= token.maybe_spent
    if maybe_spent and (match.wide or new_pin):
        # Two in a row may be as old as one: they teach no drift, and choose no PIN (E1).
        return Refusal(Reason.TOKENCODE_MAYBE_SPENT, token.serial, charged=False)
    sets = attempt.sets.get(token.serial, ())
    if refuses_recovered(token, sets, now_ms):
        return Refusal(Reason.RECOVERED_TOKEN_REFUSED, token.serial, charged=False)
    if new_pin or asks_next or maybe_spent:
        # Learn no drift yet: one tokencode in a wide window proves little.
        return Judgement(
            reason=None,
            next_step=NextStep.NEW_PIN if new_pin else NextStep.NEXT_TOKENCODE,
            serial=token.serial,
            token=replace(token, spent=spent.spent),
        )
    return accept(attempt, token, spent)


def accept(attempt: Attempt, token: Token, spent: Token) -> Judgement:
    """Return the acceptance of *token*. It becomes *spent* and is no longer lost (R)."""
    if not token.lost:
        return Judgement(
            reason=None,
            serial=token.serial,
            token=spent,
            lockouts={Factor.TOKEN: FREE},
        )
    voided, events = _void_all(attempt, [token], "recovered token accepted")
    return Judgement(
        reason=None,
        serial=token.serial,
        token=replace(spent, lost=False),
        sets=voided,
        lockouts={Factor.TOKEN: FREE},
        events=(
            Event(
                action="RECOVERED_TOKEN_ACCEPTED",
                serial=token.serial,
                cause=f"right passcode under {token.recovery.upper()}",
            ),
            *events,
        ),
    )
