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
`ALLOW_AFTER_EXPIRY`: a thief who makes the codes die by wrong guesses does not
revive the token that he stole (R2). A kept set counts here while it lives, and once it
was used after the newest had ended; used up before, it does not.
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

    *sets* are those of the token, newest first: the newest governs (I8).
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
