# SPDX-License-Identifier: Apache-2.0
"""
Lockout of one factor of one user: what repeated failures cost (L1-L6).

                    failure            failure             failure
    free ------------------> waiting ---------> locked  -----------> off
     ^   <- success, unlock -|  (1 s, 5 s)  (15 min, doubling)  (100 failures,
     |<----------------------+------------------+                only unlock)

There are two counts because they are reset differently. `failures` counts towards the
100 of NIST SP 800-63B (3.2.2); only a success or an administrator resets it. `rung`
is the position on the ladder of waits; a day without failures also resets it (L6).
"""

import enum
from dataclasses import dataclass, replace

from sparecode_node.domain.policy import DAY_MS, SECOND_MS, Policy


class Factor(enum.StrEnum):
    """What an attacker guesses at. Each factor is locked on its own (L)."""

    TOKEN = "token"
    EMERGENCY = "emergency"


_WAITS_MS = (1 * SECOND_MS, 1 * SECOND_MS, 5 * SECOND_MS, 5 * SECOND_MS)
"""The waits after the first, second, third and fourth failure (L1-L4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lockout:
    """The lockout state of one factor of one user."""

    failures: int = 0
    rung: int = 0
    blocked_until_ms: int = 0
    failed_at_ms: int = 0
    off: bool = False
    """Whether the factor is off until an administrator unlocks the user."""

    def blocks(self, now_ms: int) -> bool:
        """Return whether an attempt now is refused without judging or counting (L5)."""
        return self.off or now_ms < self.blocked_until_ms

    def asks_next_tokencode(self, policy: Policy) -> bool:
        """Return whether the failures require a second, consecutive tokencode (K1)."""
        return 0 < policy.next_tokencode_from_failures <= self.failures

    def given_up(self, policy: Policy) -> bool:
        """Return whether the number of failures turns the factor off (L4)."""
        return self.failures >= policy.factor_off_at_failures

    def failed(self, now_ms: int, policy: Policy) -> "Lockout":
        """Return the lockout after one more failure."""
        rested = now_ms - self.failed_at_ms >= DAY_MS
        rung = 1 if rested else self.rung + 1
        failures = self.failures + 1
        locked = rung >= policy.lock_from_failures
        after = Lockout(
            failures=failures,
            rung=rung,
            blocked_until_ms=now_ms + _wait_ms(rung, policy),
            failed_at_ms=now_ms,
        )
        off = after.given_up(policy) or (locked and policy.lock_until_unlocked)
        return replace(after, off=off)


FREE = Lockout()
"""The state after a success of the factor, or after `UnlockUser` (L6)."""


def _wait_ms(rung: int, policy: Policy) -> int:
    over = rung - policy.lock_from_failures
    if over < 0:
        return _WAITS_MS[min(rung, len(_WAITS_MS)) - 1]
    # After 64 doublings every lock has its maximum; the bound keeps the numbers small.
    return min(policy.lock_ms << min(over, 64), policy.lock_ms_max)
