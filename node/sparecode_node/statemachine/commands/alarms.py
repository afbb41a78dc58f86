# SPDX-License-Identifier: Apache-2.0
"""The command of users who say that it was not them (N9)."""

from dataclasses import dataclass

from sparecode_node.domain.ids import UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class RaiseAlarm:
    """Tell administrators that a user says of a notice: this was not me (N9)."""

    user_id: UserId
    notice_id: str
    kind: str
    """What the notice told."""
    told_at_ms: int
    """When that happened."""
