# SPDX-License-Identifier: Apache-2.0
"""
Changing the policy: what is refused because of what is there already (I6, T4).

The value itself is judged by `policy`; here it meets the codes that live under
the old one, and the tokens that no PIN protects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.issuing import odds_problem
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import Policy, policy_problem

SERIALS_SAID = 5
"""Of the tokens that stand in the way, in words; the others come up next time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InUse:
    """What lives under the policy that is to be replaced."""

    live: Mapping[TokenSerial, int]
    """Live codes of each token that has any."""
    rules: Mapping[TokenSerial, PinRule]
    """The PIN rule of each such token."""
    without_pin: int
    """Tokens whose passcodes have no PIN."""
    lettered_pins: Sequence[TokenSerial] = ()
    """Tokens whose PIN has a letter."""


def changed(
    policy: Policy, version: int, wanted: Mapping[str, object], in_use: InUse
) -> Policy | Rejected:
    """
    Return the policy after a change, or why it is refused.

    *version* is that of the value that was changed; *wanted* the new values by
    field.
    """
    if version != policy.version:
        return Rejected(
            Reason.VERSION,
            f"the policy is at version {policy.version} by now, not {version}; read it "
            "again",
            "version",
        )
    after = replace(policy, **wanted, version=policy.version + 1)  # type: ignore[arg-type]
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


def _format_problem(before: Policy, after: Policy, in_use: InUse) -> Rejected | None:
    """Keep the one form of codes that is accepted while codes of it live (T4)."""
    field = ""
    if before.code_length != after.code_length:
        field = "code_length"
    elif set(before.code_alphabet) != set(after.code_alphabet):
        field = "code_alphabet"
    live = sum(in_use.live.values())
    if not field or not live:
        return None
    return Rejected(
        Reason.CODES_LIVE,
        f"{field} cannot change while {live} live codes of {len(in_use.live)} tokens "
        "have the old form: only one is accepted at a time; wait for their end, or "
        "disable them",
        field,
    )


def _pin_problem(after: Policy, in_use: InUse) -> Rejected | None:
    """Keep PINs with letters readable while there are any (T4)."""
    serials = in_use.lettered_pins
    if after.pin_letters or not serials:
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
    refused = odds_problem(
        after.codes_per_set_max,
        PinRule.PREPENDED,
        after,
        "make codes longer, or sets smaller",
        "codes_per_set_max",
    )
    if refused is None and in_use.without_pin:
        refused = odds_problem(
            after.codes_per_set_default,
            PinRule.NONE,
            after,
            f"{in_use.without_pin} tokens have no PIN, and a set of the default size "
            "must be safe for them too",
            "codes_per_set_default",
        )
    for serial in sorted(in_use.live):
        refused = refused or odds_problem(
            in_use.live[serial],
            in_use.rules[serial],
            after,
            f"these codes of token {serial} live already",
            "factor_off_at_failures",
        )
    return refused
