# SPDX-License-Identifier: Apache-2.0
"""
Waits after wrong passwords of administrators, and the guesses that they allow (L7).

Each failure doubles the wait up to a maximum. There is no lock: otherwise anyone could
shut administrators out by typing wrong passwords. Two kinds of callers are counted:

* *Strangers* share one count for each administrator, in the administrator's row.
* A *known client* has a count of its own, so strangers cannot make it wait. It is a
  device whose cookie shows an earlier sign-in, or an open session.
"""

from dataclasses import dataclass

from sparecode_node.domain.policy import DAY_MS, MINUTE_MS, SECOND_MS

STRANGERS_WAIT_MS_MAX = MINUTE_MS
"""Short, because the administrator may be one of the strangers: on a new device."""
CLIENT_WAIT_MS_MAX = 15 * MINUTE_MS
"""Longer: it holds up only the client that types wrong passwords."""
CLIENTS_MAX = 16
"""Known clients of one administrator that have a count. Others count as strangers."""
COUNT_KEPT_MS = DAY_MS
"""The count of a client is forgotten after this time without a failure."""
DEVICE_COOKIE_MS = 90 * DAY_MS
"""The age at which a device cookie ends. Each sign-in gives the device a new one."""


def wait_ms(failures: int, at_most_ms: int) -> int:
    """Return the wait after one more wrong password."""
    return min(SECOND_MS << min(failures, 16), at_most_ms)


def guesses(within_ms: int, at_most_ms: int) -> int:
    """Return how many passwords can be tried in a time, beginning with no failures."""
    count, at_ms = 0, 0
    while at_ms < within_ms:
        at_ms += wait_ms(count, at_most_ms)
        count += 1
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientWait:
    """The wrong passwords that a known client has typed for one administrator."""

    failures: int = 0
    blocked_until_ms: int = 0
    ends_at_ms: int = 0
    """The count is then forgotten."""

    def blocks(self, now_ms: int) -> bool:
        """Return whether a password is refused now without checking it."""
        return now_ms < self.blocked_until_ms

    def failed(self, now_ms: int) -> "ClientWait":
        """Return the wait after a wrong password."""
        return ClientWait(
            failures=self.failures + 1,
            blocked_until_ms=now_ms + wait_ms(self.failures, CLIENT_WAIT_MS_MAX),
            ends_at_ms=now_ms + COUNT_KEPT_MS,
        )
