# SPDX-License-Identifier: Apache-2.0
"""How likely a guess is under a policy, with the arithmetic (I6)."""

from dataclasses import dataclass

from sparecode_node.console.kit.languages import gettext as _
from sparecode_node.domain.issuing import ODDS_ONE_IN, code_space, odds_problem
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """One row of the arithmetic."""

    words: str
    live: int
    guesses: int
    space: int
    is_one_in: int
    may_be_one_in: int
    allowed: bool


def guess_odds(policy: Policy) -> tuple[Odds, ...]:
    """Return the odds of guessing a code, for set sizes under a policy."""
    return tuple(
        _row(f"{size}, {words}", live, rule, policy)
        for size, live in (
            (_("Default set"), policy.codes_per_set_default),
            (_("Largest set"), policy.codes_per_set_max),
        )
        for words, rule in (
            (_("token with a PIN"), PinRule.PREPENDED),
            (_("token without a PIN"), PinRule.NONE),
        )
    )


def _row(words: str, live: int, rule: PinRule, policy: Policy) -> Odds:
    space = code_space(policy.code_alphabet, policy.code_length)
    guesses = policy.factor_off_at_failures
    return Odds(
        words=words,
        live=live,
        guesses=guesses,
        space=space,
        is_one_in=max(1, space // (live * guesses)),
        may_be_one_in=ODDS_ONE_IN[rule],
        allowed=odds_problem({policy.code_length: live}, rule, policy, "", "") is None,
    )
