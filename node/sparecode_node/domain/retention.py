# SPDX-License-Identifier: Apache-2.0
"""
How long the audit log stays (U4).

A sealed segment may be removed when it is older than the policy's retention and enough
archives have it. A policy that keeps less takes evidence away, so it has no effect for
some days: an administrator who did not expect it can take it back.
"""

from sparecode_node.domain.policy import DAY_MS, HOUR_MS, Policy

SHORTENING_DELAY_MS = 3 * DAY_MS
"""After a policy that keeps less, nothing is removed for this long."""

RENEW_MS = DAY_MS
"""A node says again after this time what it still reads in its archive."""
FRESH_MS = 7 * DAY_MS
"""An archive of which its node has said nothing for longer does not count."""
LATE_MS = 2 * HOUR_MS
"""
A segment that was sealed earlier should be in each node's archive: as long as the alert
`SparecodeAuditSegmentsUnarchived` waits.
"""


def fresh_since_ms(now_ms: int) -> int:
    """Return the time since which a node must have spoken for its archive to count."""
    return now_ms - FRESH_MS


def counts_since_ms(now_ms: int, shortened_ms: int) -> int:
    """
    Return the time since which a node must have spoken for a removal.

    Before it confirms, a node reads what may be removed while the confirmation counts.
    It judges by the policy, so it must have spoken since the last one that keeps less.
    """
    return max(fresh_since_ms(now_ms), shortened_ms + 1)


def read_before_ms(policy: Policy, now_ms: int) -> int:
    """
    Return the time before which a node reads archived segments before it confirms them.

    They may be removed while that confirmation counts; 0: none.
    """
    if policy.audit_retention_ms is None:
        return 0
    return max(0, now_ms + FRESH_MS - policy.audit_retention_ms)


def takes_evidence(before: Policy, after: Policy) -> bool:
    """Return whether a policy keeps audit events for less time, or in fewer archives."""
    kept, keeps = before.audit_retention_ms, after.audit_retention_ms
    if keeps is None:
        return False
    return (
        kept is None
        or keeps < kept
        or after.audit_archive_copies < before.audit_archive_copies
    )


def removal_begins_ms(shortened_ms: int) -> int:
    """Return when removal may begin after a policy of that time that keeps less."""
    return shortened_ms + SHORTENING_DELAY_MS


def removable_before_ms(policy: Policy, now_ms: int, shortened_ms: int) -> int:
    """Return the time before which archived segments may be removed now; 0: none."""
    if policy.audit_retention_ms is None or now_ms < removal_begins_ms(shortened_ms):
        return 0
    return max(0, now_ms - policy.audit_retention_ms)
