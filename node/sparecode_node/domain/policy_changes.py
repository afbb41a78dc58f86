# SPDX-License-Identifier: Apache-2.0
"""
Changing the policy: what is refused because of what is there already (I6, T4).

The value itself is judged by `policy`; here it meets the codes that live under
the old one, and the tokens that no PIN protects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.issuing import odds_problem
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import Policy, numbers_problem, policy_problem

SERIALS_SAID = 5
"""Of the tokens that stand in the way, in words; the others come up next time."""

LIVE_CODES_DEPEND_ON = (
    "code_alphabet",
    "code_length",
    "further_code_lengths",
    "factor_off_at_failures",
)
"""What says which form codes have, and how often one may be guessed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCodes:
    """Tokens that are alike: as many live codes of each length, and one PIN rule."""

    lengths: Mapping[int, int]
    """Live codes of each of these tokens, by their length."""
    rule: PinRule
    tokens: int
    """So many are alike."""
    first: TokenSerial
    """The lowest serial of them: the one to be named."""


class InUse(Protocol):
    """
    What lives under the policy that is to be replaced.

    It is asked for only where the answer depends on it: there may be a million codes
    to count, and a hundred thousand tokens to look through.
    """

    @property
    def live(self) -> Sequence[LiveCodes]:
        """Of all tokens that have live codes, a line for those that are alike."""

    @property
    def without_pin(self) -> int:
        """Tokens whose passcodes have no PIN."""

    @property
    def lettered_pins(self) -> Sequence[TokenSerial]:
        """Tokens whose PIN has a letter."""


def weighs_live_codes(policy: Policy, wanted: Mapping[str, object]) -> bool:
    """
    Return whether a change can be refused for the codes that live (I6, T4).

    Where what lives is in order, and the codes' form and the guesses at them stay, it
    cannot, and nobody has to count them.
    """
    return any(
        name in wanted and wanted[name] != getattr(policy, name)
        for name in LIVE_CODES_DEPEND_ON
    )


def weighs_lettered_pins(policy: Policy, wanted: Mapping[str, object]) -> bool:
    """
    Return whether a change can be refused for PINs that have letters (T4).

    Where those are there only as long as policy allows them, none but the change that
    turns them off can.
    """
    return policy.pin_letters and wanted.get("pin_letters") is False


def changed(
    policy: Policy,
    version: int,
    wanted: Mapping[str, object],
    in_use: InUse,
) -> Policy | Rejected:
    """
    Return the policy after a change, or why it is refused.

    *version* is that of the value that was changed; *wanted* the new values by
    field. The lengths of live codes stay accepted (T4).
    """
    if version != policy.version:
        return Rejected(
            Reason.VERSION,
            f"the policy is at version {policy.version} by now, not {version}; read it "
            "again",
            "version",
        )
    after = replace(policy, **wanted, version=policy.version + 1)  # type: ignore[arg-type]
    problem = numbers_problem(after)  # Whichever lengths are kept.
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
    Return *after* with the lengths of the codes that live, where a new one comes (T4).

    Who changes the length of new codes need not think of the old ones: they go on
    being accepted. Who says which lengths are is taken at their word.
    """
    if (
        after.code_length == before.code_length
        or after.further_code_lengths != before.further_code_lengths
    ):
        return after
    kept = sorted(_lengths(in_use) & {*before.code_lengths} - {after.code_length})
    return replace(after, further_code_lengths=" ".join(map(str, kept)))


def _lengths(in_use: InUse) -> set[int]:
    """Return the lengths of the codes that live."""
    return {length for alike in in_use.live for length in alike.lengths}


def _format_problem(before: Policy, after: Policy, in_use: InUse) -> Rejected | None:
    """Keep accepting the form of the codes that live: alphabet and lengths (T4)."""
    if set(before.code_alphabet) != set(after.code_alphabet) and in_use.live:
        live = sum(alike.tokens * sum(alike.lengths.values()) for alike in in_use.live)
        return Rejected(
            Reason.CODES_LIVE,
            f"code_alphabet cannot change while {live} live codes of "
            f"{_owners(in_use.live)} have the old form: only one is "
            "accepted at a time; wait for their end, or disable them",
            "code_alphabet",
        )
    taken_out = {*before.code_lengths} - {*after.code_lengths}
    length = min(_lengths(in_use) & taken_out, default=None) if taken_out else None
    if length is None:
        return None
    those = [alike for alike in in_use.live if length in alike.lengths]
    live = sum(alike.tokens * alike.lengths[length] for alike in those)
    return Rejected(
        Reason.CODES_LIVE,
        f"further_code_lengths must hold {length} while {live} live codes of "
        f"{_owners(those)} have {length} symbols: wait for their end, or disable them",
        "further_code_lengths",
    )


def _owners(live: Sequence[LiveCodes]) -> str:
    """
    Return the number of these tokens and the serial of the first, in words.

    The serial is named because lists of live codes leave expired tokens out.
    """
    tokens = f"{sum(alike.tokens for alike in live)} tokens"
    first = min(alike.first for alike in live)
    return f"{tokens} (the first is {first}; expired ones count)"


def _pin_problem(after: Policy, in_use: InUse) -> Rejected | None:
    """Keep PINs with letters readable while there are any (T4)."""
    if after.pin_letters or not (serials := in_use.lettered_pins):
        return None
    some = ", ".join(serials[:SERIALS_SAID]) + (
        ", ..." if len(serials) > SERIALS_SAID else ""
    )
    return Rejected(
        Reason.PINS_LETTERED,
        f"pin_letters cannot be turned off while {len(serials)} tokens have a PIN with "
        f"letters ({some}): set or clear those first",
        "pin_letters",
    )


def _odds(after: Policy, in_use: InUse) -> Rejected | None:
    """Refuse what lets a code be guessed too easily (I6)."""
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
    """Keep a set of the default size safe for tokens without PIN, if there are any."""
    size = {after.code_length: after.codes_per_set_default}
    safe = odds_problem(size, PinRule.NONE, after, "", "") is None
    if safe or not (tokens := in_use.without_pin):
        return None
    return odds_problem(
        size,
        PinRule.NONE,
        after,
        f"{tokens} tokens have no PIN, and a set of the default size must be safe for "
        "them too",
        "codes_per_set_default",
    )


def _odds_of_live_codes(after: Policy, in_use: InUse) -> Rejected | None:
    """Return what is wrong with the first token whose codes are guessed too easily."""
    for alike in sorted(in_use.live, key=lambda alike: alike.first):
        refused = odds_problem(
            alike.lengths,
            alike.rule,
            after,
            f"these codes of token {alike.first} live already",
            "factor_off_at_failures",
        )
        if refused is not None:
            return refused
    return None
