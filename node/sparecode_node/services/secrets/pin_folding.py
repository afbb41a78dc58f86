# SPDX-License-Identifier: Apache-2.0
"""
PINs folded into the code: what a PINpad token shows, and how the node reads it.

The primary subtracts the PIN from the typed digits and looks for the remaining
tokencode. So it must know the PIN: the PIN of a PINpad token is stored sealed under the
ring, like seeds, beside the verifier that is used with emergency codes.
"""

from collections.abc import Sequence

from sparecode_node.domain.ids import KeyId, UserId
from sparecode_node.domain.pins import PinRule, folding_problem, unfolded
from sparecode_node.domain.tokens import Token
from sparecode_node.services.secrets.sealing import Sealing


def new_pin_problem(pin: str, token: Token | None) -> str:
    """Return what is wrong with a PIN for this token, apart from the policy. Empty: nothing."""
    if token is None or token.pin_rule is not PinRule.PINPAD:
        return ""
    return folding_problem(pin, token.parameters.digits)


def sealed_for(
    sealing: Sealing, token: Token, user: UserId, pin: str, key_id: KeyId
) -> bytes:
    """Return the sealed PIN for the token. Empty: a verifier is enough."""
    if token.pin_rule is not PinRule.PINPAD:
        return b""
    return sealing.seal_pin(user, token.serial, pin, key_id)


def carried(
    sealing: Sealing, old: Token, new: Token, user: UserId, key_id: KeyId
) -> bytes:
    """
    Return the PIN of *old* sealed for *new*; empty if it cannot be folded there.

    Raises `BrokenSealError` and `UnknownKeyError`.
    """
    if new.pin_rule is not PinRule.PINPAD or not old.sealed_pin:
        return b""
    pin = sealing.unseal_pin(user, old.serial, old.sealed_pin, old.pin_key_id)
    if folding_problem(pin, new.parameters.digits):
        return b""
    return sealing.seal_pin(user, new.serial, pin, key_id)


def tokencodes_in(
    typed: Sequence[str], token: Token, sealing: Sealing
) -> list[tuple[Sequence[str], bool]]:
    """
    Return the possible tokencodes in *typed*, each with whether the PIN was folded in.

    A PINpad token with a PIN shows the sum. Without a PIN, and until the PIN is typed
    into it, it shows the tokencode. Raises `BrokenSealError` and `UnknownKeyError`.
    """
    whole = all(len(each) == token.parameters.digits for each in typed)
    if token.user_id is None or not token.sealed_pin or not whole:
        return [(typed, False)]
    pin = sealing.unseal_pin(
        token.user_id, token.serial, token.sealed_pin, token.pin_key_id
    )
    return [([unfolded(digits, pin) for digits in typed], True), (typed, False)]
