# SPDX-License-Identifier: Apache-2.0
"""PINs: where they stand in a passcode, and what makes one acceptable (K2)."""

import enum
from dataclasses import dataclass

from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.policy import Policy


class PinRule(enum.StrEnum):
    """How a token's passcode is made of PIN and tokencode."""

    PREPENDED = "prepended"
    PINPAD = "pinpad"
    """
    The PIN is folded into the tokencode, digit by digit, without carry.

    Its owner types the PIN into the token, which shows the sum. An emergency code
    comes from no token, so there the PIN is typed before the code (A1).
    """
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPin:
    """A PIN as its token keeps it."""

    verifier: bytes
    key_id: KeyId
    sealed: bytes = b""
    """What a PINpad token needs besides."""
    lettered: bool = False
    """It has a letter, which policy has to go on allowing (T4)."""


def pin_problem(pin: str, policy: Policy) -> str:
    """Return what is wrong with a new PIN, in words without it; empty if nothing is."""
    shortest, longest = policy.pin_length_min, policy.pin_length_max
    allowed, words = (pin.isdigit(), "digits")
    if policy.pin_letters:
        allowed, words = (pin.isalnum(), "digits and letters (A to Z)")
    if not shortest <= len(pin) <= longest or not (pin.isascii() and allowed):
        return f"a PIN is {shortest} to {longest} {words}"
    return ""


def folding_problem(pin: str, digits: int) -> str:
    """
    Return what makes a PIN useless in tokencodes of so many digits; empty if nothing.

    A zero in front would change nothing, and what is longer than the tokencode
    would be cut off: the PIN would be shorter than it looks.
    """
    if not (pin.isascii() and pin.isdigit()) or pin.startswith("0"):
        return "the PIN of a PINpad token is digits, and does not begin with 0"
    if len(pin) > digits:
        return f"the PIN of this PINpad token has at most {digits} digits"
    return ""


def unfolded(passcode: str, pin: str) -> str:
    """Return the tokencode into which *pin* was folded: the last digits, less the PIN."""
    aligned = pin.zfill(len(passcode))
    return "".join(
        str((int(shown) - int(folded)) % 10)
        for shown, folded in zip(passcode, aligned, strict=True)
    )
