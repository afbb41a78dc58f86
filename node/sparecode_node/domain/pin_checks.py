# SPDX-License-Identifier: Apache-2.0
"""Whether a passcode has the PIN that its token wants (A1, A2, K2)."""

import hmac

from sparecode_node.domain.outcomes import Reason
from sparecode_node.domain.passcodes import Reading
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokens import Token


def pin_refused(token: Token, reading: Reading) -> Reason | None:
    """Return why the part before the code is not what the token wants, or None (A1, A2)."""
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
    """Return what is wrong about the PIN of a passcode with a tokencode, or None."""
    if token.pin_rule is not PinRule.PINPAD or not token.pin_set:
        return pin_refused(token, reading)
    return None if folded and reading.bare else Reason.WRONG_PIN


def may_choose_pin(token: Token, reading: Reading) -> bool:
    """
    Say whether the owner of a token without a PIN may choose one (K2).

    Not while the token counts as lost: whoever has it is not to make it theirs (R2).
    """
    return (
        token.pin_rule is not PinRule.NONE
        and not token.pin_set
        and reading.bare
        and not token.lost
    )
