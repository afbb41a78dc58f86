# SPDX-License-Identifier: Apache-2.0
"""
Changes of the policy that existing codes and tokens forbid (I6, T4).

`policy` checks the value itself. This module checks it against live codes, tokens
without a PIN, and PINs with letters.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.issuing import code_space, odds_problem
from sparecode_node.domain.outcomes import Reason, Rejected, plural
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import Policy, numbers_problem, policy_problem

SERIALS_LISTED = 5
"""Maximum serials in a refusal. The others come up next time."""

GUESSES = "factor_off_at_failures"
LIVE_CODES_DEPEND_ON = (
    "code_alphabet",
    "code_length",
    "further_code_lengths",
    GUESSES,
)
"""The fields that decide the form of codes and the number of guesses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCodes:
    """A group of tokens with live codes of the same lengths, and with one PIN rule."""

    lengths: Mapping[int, int]
    """Live codes by length of the token whose codes are the easiest to guess."""
    riskiest: TokenSerial
    """The lowest serial of such tokens, which refusals name."""
    codes: Mapping[int, int]
    """Live codes by length of all tokens in the group."""
    rule: PinRule
    tokens: int
    """Number of tokens in the group."""
    first: TokenSerial
    """The lowest serial in the group, which refusals name."""

    @classmethod
    def alike(
        cls, lengths: Mapping[int, int], rule: PinRule, tokens: int, first: TokenSerial
    ) -> "LiveCodes":
        """Return a group of tokens that have equal numbers of live codes each."""
        return cls(
            lengths=lengths,
            riskiest=first,
            codes={length: tokens * live for length, live in lengths.items()},
            rule=rule,
            tokens=tokens,
            first=first,
        )


def merged(groups: Iterable[LiveCodes], alphabet: str) -> tuple[LiveCodes, ...]:
    """
    Return the groups with one for each PIN rule and set of lengths, in a fixed order.

    There are few such groups, however much the tokens differ. A change is judged as with
    all of them: only the token whose codes are the easiest to guess matters to the odds,
    and *alphabet* is that of all live codes.
    """
    together: dict[tuple[str, tuple[int, ...]], LiveCodes] = {}
    for each in sorted(groups, key=lambda group: group.riskiest):
        kind = (each.rule.value, tuple(sorted(each.lengths)))
        known = together.get(kind)
        if known is None:
            together[kind] = each
            continue
        worse = _chance(each, alphabet) > _chance(known, alphabet)
        together[kind] = LiveCodes(
            lengths=(each if worse else known).lengths,
            riskiest=(each if worse else known).riskiest,
            codes=Counter(known.codes) + Counter(each.codes),
            rule=each.rule,
            tokens=known.tokens + each.tokens,
            first=min(known.first, each.first),
        )
    return tuple(together[kind] for kind in sorted(together))


def _chance(group: LiveCodes, alphabet: str) -> Fraction:
    """Return the probability that one guess is a live code of the riskiest token."""
    return sum(
        (
            Fraction(live, code_space(alphabet, length))
            for length, live in group.lengths.items()
        ),
        start=Fraction(),
    )


class InUse(Protocol):
    """
    What exists under the policy that is to be replaced.

    Read a property only if the decision depends on it: below feature level 2 there may be
    a million codes to count, and a hundred thousand tokens to look through.
    """

    @property
    def live(self) -> Sequence[LiveCodes]:
        """The groups of tokens with live codes."""

    @property
    def tokens_max(self) -> int | None:
        """Tokens are counted up to one more than this; None: all are."""

    @property
    def without_pin(self) -> int:
        """The number of tokens whose passcodes have no PIN."""

    @property
    def lettered_pins(self) -> Sequence[TokenSerial]:
        """The tokens whose PIN has a letter."""


def weighs_live_codes(
    policy: Policy, values: Mapping[str, object], *, fewer_guesses: bool = False
) -> bool:
    """
    Return whether live codes can forbid a change (I6, T4).

    Live codes conform to the current policy. If the form of codes and the number of
    guesses stay, they conform to the new one, and need not be counted. With fewer
    guesses they conform, too: codes are counted for *fewer_guesses* only below feature
    level 2.
    """
    names = {
        name
        for name in LIVE_CODES_DEPEND_ON
        if name in values and values[name] != getattr(policy, name)
    }
    guesses = values.get(GUESSES)
    if (
        not fewer_guesses
        and isinstance(guesses, int)
        and guesses < policy.factor_off_at_failures
    ):
        names.discard(GUESSES)
    return bool(names)


def weighs_lettered_pins(policy: Policy, values: Mapping[str, object]) -> bool:
    """
    Return whether PINs with letters can forbid a change (T4).

    They exist only while the policy allows them, so only turning them off can fail.
    """
    return policy.pin_letters and values.get("pin_letters") is False


def changed(
    policy: Policy,
    version: int,
    values: Mapping[str, object],
    in_use: InUse,
) -> Policy | Rejected:
    """
    Return the policy after a change, or why it is refused.

    *version* is the version of the policy that the change is based on. *values* are the
    new values by field. The lengths of live codes stay accepted (T4).
    """
    if version != policy.version:
        return Rejected(
            Reason.VERSION,
            f"the policy has version {policy.version} now, not {version}; read it again",
            "version",
        )
    after = replace(policy, **values, version=policy.version + 1)  # type: ignore[arg-type]
    problem = numbers_problem(after)  # Does not depend on the lengths that are kept.
    if problem is None:
        after = _with_lengths_kept(policy, after, in_use)
        problem = policy_problem(after)
    if problem is not None:
        return Rejected(
            Reason.POLICY_VALUE, f"{problem.field} {problem.words}", problem.field
        )
    return (
        _format_problem(policy, after, in_use)
        or _pin_problem(after, in_use)
        or _odds(after, in_use)
        or after
    )


def _with_lengths_kept(before: Policy, after: Policy, in_use: InUse) -> Policy:
    """
    Return *after* with the lengths of live codes, if the length of new codes changes (T4).

    Administrators who change the length of new codes need not think of older codes:
    their lengths stay accepted. A change that lists further lengths is taken as it is.
    """
    if (
        after.code_length == before.code_length
        or after.further_code_lengths != before.further_code_lengths
    ):
        return after
    kept = sorted(_lengths(in_use) & {*before.code_lengths} - {after.code_length})
    return replace(after, further_code_lengths=" ".join(map(str, kept)))


def _lengths(in_use: InUse) -> set[int]:
    """Return the lengths of the live codes."""
    return {length for group in in_use.live for length in group.lengths}


def _format_problem(before: Policy, after: Policy, in_use: InUse) -> Rejected | None:
    """Refuse a change after which live codes have a form that is not accepted (T4)."""
    if set(before.code_alphabet) != set(after.code_alphabet) and in_use.live:
        live = sum(sum(group.codes.values()) for group in in_use.live)
        return Rejected(
            Reason.CODES_LIVE,
            "code_alphabet cannot change while the old one is used by "
            f"{_codes(live, in_use.live)}, since only one is accepted at a time: "
            "wait until every such code has ended, or disable it",
            "code_alphabet",
        )
    taken_out = {*before.code_lengths} - {*after.code_lengths}
    length = min(_lengths(in_use) & taken_out, default=None) if taken_out else None
    if length is None:
        return None
    holders = [group for group in in_use.live if length in group.lengths]
    live = sum(group.codes[length] for group in holders)
    return Rejected(
        Reason.CODES_LIVE,
        f"further_code_lengths must include {length}, the length of "
        f"{_codes(live, holders)}: wait until every such code has ended, or disable it",
        "further_code_lengths",
    )


def _codes(live: int, owners: Sequence[LiveCodes]) -> str:
    """
    Return the numbers of live codes and of their tokens, and the first serial, in words.

    The serial is named because lists of live codes leave expired tokens out.
    """
    tokens = plural(sum(group.tokens for group in owners), "token")
    first = min(group.first for group in owners)
    codes = plural(live, "live code")
    return f"{codes} of {tokens} (the first is {first}; expired tokens count)"


def _tokens(number: int, in_use: InUse) -> str:
    most = in_use.tokens_max
    if most is not None and number > most:
        return f"more than {plural(most, 'token')}"
    return plural(number, "token")


def _pin_problem(after: Policy, in_use: InUse) -> Rejected | None:
    """Refuse to turn off letters while there are PINs with letters (T4)."""
    if after.pin_letters or not (serials := in_use.lettered_pins):
        return None
    some = ", ".join(serials[:SERIALS_LISTED]) + (
        ", ..." if len(serials) > SERIALS_LISTED else ""
    )
    return Rejected(
        Reason.PINS_LETTERED,
        "pin_letters cannot be turned off while a PIN has letters: set or clear the PIN "
        f"of {_tokens(len(serials), in_use)} ({some}) first",
        "pin_letters",
    )


def _odds(after: Policy, in_use: InUse) -> Rejected | None:
    """Refuse a policy under which guessing a code is too likely (I6)."""
    return (
        odds_problem(
            {after.code_length: after.codes_per_set_max},
            PinRule.PREPENDED,
            after,
            "make codes longer, or sets smaller",
            "codes_per_set_max",
        )
        or _odds_without_pin(after, in_use)
        or _odds_of_live_codes(after, in_use)
    )


def _odds_without_pin(after: Policy, in_use: InUse) -> Rejected | None:
    """Refuse a default set that is unsafe for tokens without a PIN, if there are any."""
    size = {after.code_length: after.codes_per_set_default}
    safe = odds_problem(size, PinRule.NONE, after, "", "") is None
    if safe or not (tokens := in_use.without_pin):
        return None
    return odds_problem(
        size,
        PinRule.NONE,
        after,
        "a set of the default size must also be safe for "
        f"{_tokens(tokens, in_use)} without a PIN",
        "codes_per_set_default",
    )


def _odds_of_live_codes(after: Policy, in_use: InUse) -> Rejected | None:
    """Refuse if guessing a live code is too likely; name the first such token."""
    for group in sorted(in_use.live, key=lambda group: group.riskiest):
        refused = odds_problem(
            group.lengths,
            group.rule,
            after,
            f"token {group.riskiest} already has these live codes",
            "factor_off_at_failures",
        )
        if refused is not None:
            return refused
    return None
