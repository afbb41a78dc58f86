# SPDX-License-Identifier: Apache-2.0
"""PINs: where they stand in a passcode, and what makes one acceptable (K2)."""

import enum

from sparecode_node.domain.policy import Policy


class PinRule(enum.StrEnum):
    """How a token's passcode is made of PIN and tokencode."""

    PREPENDED = "prepended"
    NONE = "none"


def pin_problem(pin: str, policy: Policy) -> str:
    """Return what is wrong with a new PIN, in words without it; empty if nothing is."""
    shortest, longest = policy.pin_length_min, policy.pin_length_max
    if not shortest <= len(pin) <= longest or not (pin.isascii() and pin.isdigit()):
        return f"a PIN is {shortest} to {longest} digits"
    return ""
