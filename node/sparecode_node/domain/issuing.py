# SPDX-License-Identifier: Apache-2.0
"""Issuing emergency codes: what is allowed, and what it changes (I)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from sparecode_node.domain.emergency_access import (
    EmergencyCodeSet,
    RecoveryPolicy,
    live_codes,
)
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import (
    DAY_MS,
    FIXED_LIFETIME_MS,
    TIME_MS_MAX,
    Policy,
)
from sparecode_node.domain.tokens import Token
from sparecode_node.domain.users import User

ODDS_ONE_IN = {
    PinRule.NONE: 1_000_000,
    PinRule.PREPENDED: 10_000,
    PinRule.PINPAD: 10_000,
}
"""
The probability of guessing one code of a set is at most 1 in this number (I6).

Tokens without a PIN need a higher number.
"""

FIXED_LENGTH_MIN = 8
"""Minimum length of a temporary fixed tokencode (I11)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the administrator requested, apart from the codes themselves."""

    ends_at_ms: int | None
    lifetime_ms: int | None
    recovery: RecoveryPolicy
    keep_unused_codes: bool
    weaken_recovery_policy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """What issuing changes: the token, the older sets, and the end of the new set."""

    token: Token
    older: tuple[EmergencyCodeSet, ...]
    ends_at_ms: int | None
    live: int
    voided: int


def code_space(alphabet: str, length: int) -> int:
    """
    Return the number of possible codes.

    If the alphabet has letters, only codes with at least one letter count (I5).
    """
    symbols = set(alphabet)
    figures = {symbol for symbol in symbols if symbol.isdigit()}
    everything: int = len(symbols) ** length
    return everything - (len(figures) ** length if figures != symbols else 0)


def issue(
    token: Token,
    user: User | None,
    sets: Sequence[EmergencyCodeSet],
    count: int,
    wish: Wish,
    policy: Policy,
    now_ms: int,
) -> Issue | Rejected:
    """
    Decide whether a set of *count* codes may be issued now, and what that changes.

    *user* and *sets* belong to the token; the newest set comes first.
    """
    refused = _token_problem(token, user, now_ms)
    if refused is not None:
        return refused
    end = _end(wish, policy, now_ms)
    if isinstance(end, Rejected):
        return end
    # A fixed tokencode is never kept beside one-time tokencodes (I11).
    older = tuple(
        each if wish.keep_unused_codes and not each.fixed else each.void(now_ms)
        for each in sets
    )
    kept = live_codes(older, now_ms, token.expires_at_ms)
    living = [each for each in older if each.live(now_ms, token.expires_at_ms)]
    ends = [end.ends_at_ms, *(each.ends_at_ms for each in living)]
    by_length = Counter({policy.code_length: count})
    for each in living:
        by_length[each.code_length] += each.live(now_ms, token.expires_at_ms)
    refused = (
        _count_problem(count, kept, policy)
        or odds_problem(
            by_length,
            token.pin_rule,
            policy,
            "issue fewer codes or make them longer",
            "count",
        )
        or _recovery_problem(token, ends, wish)
    )
    if refused is not None:
        return refused
    return Issue(
        token=replace(token, lost=True, recovery=wish.recovery),
        older=older,
        ends_at_ms=end.ends_at_ms,
        live=count + kept,
        voided=live_codes(sets, now_ms, token.expires_at_ms) - kept,
    )


def issue_fixed(
    token: Token,
    user: User | None,
    sets: Sequence[EmergencyCodeSet],
    count: int,
    wish: Wish,
    policy: Policy,
    now_ms: int,
) -> Issue | Rejected:
    """
    Decide whether a fixed tokencode may be issued now, and what that changes (I11).

    A fixed tokencode must end. The default is a week, or the policy's maximum if that
    is shorter. All one-time codes of the token become void.
    """
    if policy.code_length < FIXED_LENGTH_MIN:
        return Rejected(
            Reason.CODE_FORMAT,
            f"a fixed tokencode needs at least {FIXED_LENGTH_MIN} symbols; the policy's "
            f"code length is {policy.code_length}",
        )
    wish = replace(wish, keep_unused_codes=False)
    if wish.ends_at_ms is None and wish.lifetime_ms is None:
        cap_ms = policy.lifetime_ms_max
        lifetime_ms = (
            FIXED_LIFETIME_MS if cap_ms is None else min(cap_ms, FIXED_LIFETIME_MS)
        )
        wish = replace(wish, lifetime_ms=lifetime_ms)
    return issue(token, user, sets, count, wish, policy, now_ms)


def _token_problem(token: Token, user: User | None, now_ms: int) -> Rejected | None:
    """Refuse tokens that cannot have emergency codes now (I1)."""
    unusable = token.usable(now_ms)
    if unusable is not None:
        return replace(unusable, field="serial")
    if user is None or not user.enabled:
        return Rejected(
            Reason.USER_DISABLED,
            f"the user of token {token.serial} is disabled",
            "serial",
        )
    if token.pin_rule is not PinRule.NONE and not token.pin_set:
        return Rejected(
            Reason.PIN_NOT_SET,
            f"token {token.serial} needs a PIN and has none; set a PIN first",
            "serial",
        )
    return None


def _count_problem(count: int, kept: int, policy: Policy) -> Rejected | None:
    """Refuse too many or too few codes (I4)."""
    most = policy.codes_per_set_max
    if not 1 <= count <= most:
        return Rejected(
            Reason.CODE_COUNT, f"count must be 1 to {most}, not {count}", "count"
        )
    if count + kept > most:
        return Rejected(
            Reason.CODE_COUNT,
            f"{count} new and {kept} kept codes are {count + kept} live codes; "
            f"a token may have {most}",
            "count",
        )
    return None


def odds_problem(
    live: Mapping[int, int], rule: PinRule, policy: Policy, advice: str, field: str
) -> Rejected | None:
    """
    Refuse these live codes if guessing one is too likely (I6). The sum is exact.

    *live* counts the live codes by length. One guess is tried as a code of every
    accepted length, so the probabilities add up.
    """
    spaces = {length: code_space(policy.code_alphabet, length) for length in live}
    one_in = ODDS_ONE_IN[rule]
    guesses = policy.factor_off_at_failures
    odds = sum(
        (Fraction(live[length] * guesses, spaces[length]) for length in live),
        start=Fraction(),
    )
    if odds * one_in <= 1:
        return None
    terms = " + ".join(
        f"{plural(live[length], 'live code')} x {guesses} guesses / "
        f"{spaces[length]} possible codes"
        for length in sorted(live)
        if live[length]
    )
    return Rejected(
        Reason.GUESS_ODDS,
        f"{terms} = {float(odds):.1e}, more than 1 in {one_in}: {advice}",
        field,
    )


@dataclass(frozen=True, slots=True)
class _End:
    ends_at_ms: int | None


def _days(cap_ms: int) -> str:
    """Return a cap on lifetimes in days, for messages."""
    return "1 day" if cap_ms == DAY_MS else f"{cap_ms / DAY_MS:g} days"


def _end(wish: Wish, policy: Policy, now_ms: int) -> _End | Rejected:
    """Return when the set ends, by the primary's time, or the refusal (I7)."""
    end = wish.ends_at_ms
    if wish.lifetime_ms is not None:
        end = now_ms + wish.lifetime_ms
    cap_ms = policy.lifetime_ms_max
    if end is None:
        if cap_ms is None:
            return _End(None)
        return Rejected(
            Reason.LIFETIME_NEEDED,
            f"the policy requires an end within {_days(cap_ms)}",
            "lifetime",
        )
    if end <= now_ms:
        return Rejected(
            Reason.LIFETIME_PAST,
            "the lifetime must end in the future, by the primary's clock",
            "lifetime",
        )
    if end > TIME_MS_MAX:
        return Rejected(
            Reason.LIFETIME_BEYOND_CAP,
            "the lifetime must end by the year 9999",
            "lifetime",
        )
    if cap_ms is not None and end - now_ms > cap_ms:
        return Rejected(
            Reason.LIFETIME_BEYOND_CAP,
            f"the policy limits lifetimes to {_days(cap_ms)}",
            "lifetime",
        )
    return _End(end)


def _recovery_problem(
    token: Token, ends: Sequence[int | None], wish: Wish
) -> Rejected | None:
    """
    Refuse a recovery policy that does not fit (R1, I8).

    *ends* are the ends of the new set and of every kept set with live codes.
    """
    if wish.recovery is RecoveryPolicy.ALLOW_AFTER_EXPIRY:
        all_sets = "the set" if len(ends) == 1 else "the set and every kept set"
        if None in ends:
            return Rejected(
                Reason.RECOVERY_NEEDS_END,
                f'recovery "allow after expiry" needs an end of {all_sets}: without one '
                "the token would never be accepted again",
                "recovery_policy",
            )
        if token.expires_at_ms is not None and any(
            end is not None and end >= token.expires_at_ms for end in ends
        ):
            return Rejected(
                Reason.RECOVERY_END_TOO_LATE,
                f'recovery "allow after expiry" needs an end of {all_sets} before token '
                f"{token.serial} itself expires: otherwise the token would never be "
                "accepted again",
                "recovery_policy",
            )
    if (
        token.lost
        and token.recovery is RecoveryPolicy.DENY
        and wish.recovery is not RecoveryPolicy.DENY
        and not wish.weaken_recovery_policy
    ):
        return Rejected(
            Reason.RECOVERY_WEAKENED,
            f'token {token.serial} is lost, with recovery "deny"; a weaker recovery '
            "policy needs weaken_recovery_policy",
            "weaken_recovery_policy",
        )
    return None
