# SPDX-License-Identifier: Apache-2.0
"""Checks of the PIN in a passcode against the PIN rule of the token (A1, A2, K2)."""

import hmac

from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.passcodes import Reading
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokens import Token


def pin_refused(token: Token, reading: Reading) -> Reason | None:
    """Return why the part before the code does not match the token, or None (A1, A2)."""
    if token.pin_rule is PinRule.NONE:
        return None if reading.bare else Reason.WRONG_PIN
    if not token.pin_set:
        return Reason.PIN_NOT_SET
    right = any(
        candidate.serial == token.serial
        and hmac.compare_digest(candidate.verifier, token.pin_verifier)
        for candidate in reading.pins
    )
    return None if right and not reading.bare else Reason.WRONG_PIN


def tokencode_pin_refused(
    token: Token, reading: Reading, *, folded: bool
) -> Reason | None:
    """Return why the PIN of a passcode with a tokencode is wrong, or None."""
    if token.pin_rule is not PinRule.PINPAD or not token.pin_set:
        return pin_refused(token, reading)
    return None if folded and reading.bare else Reason.WRONG_PIN


def may_choose_pin(token: Token, reading: Reading) -> bool:
    """
    Return whether the owner of a token without a PIN may choose one (K2).

    Not while the token counts as lost: a finder must not make it theirs (R2).
    """
    return (
        token.pin_rule is not PinRule.NONE
        and not token.pin_set
        and reading.bare
        and not token.lost
    )
