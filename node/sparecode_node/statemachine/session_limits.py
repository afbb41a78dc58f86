# SPDX-License-Identifier: Apache-2.0
"""How long a session lives, at most and without use (P2)."""

from dataclasses import dataclass

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.policy import Policy
from sparecode_node.statemachine.feature_level import SESSION_LIMITS

PRIVILEGED = (Role.SUPER_ADMIN,)
"""The roles that can give power. Their sessions are worth more to a thief."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """The limits of one administrator's sessions."""

    lifetime_ms: int
    idle_ms: int
    """The session ends when no call has used it for this long, to the minute."""


def session_limits(policy: Policy, role: Role, level: int) -> SessionLimits:
    """
    Return the limits of a role at a feature level of the cluster.

    Release 0.1.0 has one lifetime for all roles, and `session_idle_ms` is for browsers.
    """
    if level < SESSION_LIMITS:
        return SessionLimits(
            lifetime_ms=policy.session_lifetime_ms, idle_ms=policy.session_unused_ms
        )
    lifetime_ms = policy.session_lifetime_ms
    idle_ms = min(policy.session_idle_ms, policy.session_unused_ms)
    if role in PRIVILEGED:
        lifetime_ms = min(lifetime_ms, policy.privileged_session_lifetime_ms)
        idle_ms = min(idle_ms, policy.privileged_session_idle_ms)
    return SessionLimits(lifetime_ms=lifetime_ms, idle_ms=idle_ms)
