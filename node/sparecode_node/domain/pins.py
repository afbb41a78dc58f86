# SPDX-License-Identifier: Apache-2.0
"""PINs: their place in a passcode, and the rules for new ones (K2)."""

import enum
from dataclasses import dataclass

from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.policy import Policy


class PinRule(enum.StrEnum):
    """How PIN and tokencode make up the passcode of a token."""

    PREPENDED = "prepended"
    PINPAD = "pinpad"
    """
    The PIN is folded into the tokencode, digit by digit, without carry.

    The owner types the PIN into the token, which shows the sum. An emergency code
    does not come from the token, so the owner types the PIN before it (A1).
    """
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPin:
    """A PIN in the form that its token stores."""

    verifier: bytes
    key_id: KeyId
    sealed: bytes = b""
    """The sealed PIN, which only PINpad tokens need."""
    lettered: bool = False
    """Whether it has a letter, which the policy must keep allowing (T4)."""


def pin_problem(pin: str, policy: Policy) -> str:
    """Return what is wrong with a new PIN, without quoting it; empty if it is valid."""
    shortest, longest = policy.pin_length_min, policy.pin_length_max
    allowed, words = (pin.isdigit(), "digits")
    if policy.pin_letters:
        allowed, words = (pin.isalnum(), "digits and letters (A to Z)")
    if not shortest <= len(pin) <= longest or not (pin.isascii() and allowed):
        return f"a PIN is {shortest} to {longest} {words}"
    return ""


def folding_problem(pin: str, digits: int) -> str:
    """
    Return why a PIN cannot be folded into tokencodes of *digits* digits; empty if it can.

    A leading zero would change nothing, and digits beyond the tokencode's length would
    be cut off. In both cases the PIN would be shorter than it looks.
    """
    if not (pin.isascii() and pin.isdigit()) or pin.startswith("0"):
        return "the PIN of a PINpad token is digits, and does not begin with 0"
    if len(pin) > digits:
        return f"the PIN of this PINpad token has at most {digits} digits"
    return ""


def unfolded(passcode: str, pin: str) -> str:
    """Return the tokencode into which *pin* was folded: each digit less the PIN's."""
    aligned = pin.zfill(len(passcode))
    return "".join(
        str((int(shown) - int(folded)) % 10)
        for shown, folded in zip(passcode, aligned, strict=True)
    )
