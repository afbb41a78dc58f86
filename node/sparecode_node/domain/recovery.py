# SPDX-License-Identifier: Apache-2.0
"""
The lost token comes back (R).

| policy               | while a set lives              | after the last set has ended |
|----------------------|--------------------------------|------------------------------|
| `DENY`               | refused, codes work            | still refused                |
| `ALLOW_AND_DISABLE`  | accepted; all live codes die   | accepted                     |
| `ALLOW_AFTER_EXPIRY` | refused, codes work            | accepted from the last end   |
|                      |                                | on, if the newest reached    |
|                      |                                | its own (I8)                 |

Voided or used-up sets do not clear the lost mark under `DENY` and
`ALLOW_AFTER_EXPIRY`: a thief cannot revive a stolen token by voiding the codes with wrong
guesses (R2). A kept set counts while it has live codes. It also counts until its own end
if one of its codes was used after the newest set had ended, but not if it was used up
before.
"""

from collections.abc import Sequence

from sparecode_node.domain.emergency_access import (
    EmergencyCodeSet,
    RecoveryPolicy,
    live_codes,
    used_while_it_outlives,
)
from sparecode_node.domain.tokens import Token


def refuses_recovered(
    token: Token, sets: Sequence[EmergencyCodeSet], now_ms: int
) -> bool:
    """
    Return whether a right passcode of the token is refused because it counts as lost.

    *sets* belong to the token, newest first: the newest set decides (I8).
    """
    if not token.lost:
        return False
    if token.recovery is RecoveryPolicy.ALLOW_AND_DISABLE:
        return False
    if token.recovery is RecoveryPolicy.DENY:
        return True
    if live_codes(sets, now_ms, token.expires_at_ms):
        return True
    if used_while_it_outlives(sets, now_ms):
        return True
    return not (sets and sets[0].reached_its_end(now_ms, token.expires_at_ms))
