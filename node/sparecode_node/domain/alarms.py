# SPDX-License-Identifier: Apache-2.0
"""
Alarms: a user says "this was not me" on the page of a link in a notice (N9).

An alarm tells administrators, and gives nobody anything. So the link may stand in a mail.
"""

from dataclasses import dataclass

from sparecode_node.domain.ids import UserId
from sparecode_node.domain.policy import DAY_MS

LINK_MS = 7 * DAY_MS
"""How long after its event the link of a notice raises an alarm."""
SHOWN_MS = 7 * DAY_MS
"""
How long administrators see an alarm.

It is also how long the state knows it, which is longer than its link raises it. So one
notice never raises two.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """What a user says about one notice."""

    user_id: UserId
    notice_id: str
    kind: str
    """What the notice told: a `PersonalKind`."""
    told_at_ms: int
    """When that happened."""
    raised_at_ms: int
