# SPDX-License-Identifier: Apache-2.0
"""The end of new codes that their forms suggest: in seven days, or as the policy allows."""

import datetime as dt
from dataclasses import dataclass
from typing import Final

from sparecode_node.console.kit import rendering
from sparecode_node.domain.policy import DAY_MS, HOUR_MS, Policy

DAYS: Final = 7
_LONGEST_MS: Final = DAYS * DAY_MS + HOUR_MS
"""Seven days of a calendar, if clocks are put back during them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuggestedEnd:
    """A time in UTC, which the script converts to the browser's time zone."""

    at: dt.datetime
    days: int
    """
    The script counts as many days in that zone, to the same time of day: a day on which
    clocks are put forward has 23 hours. 0: it converts `at`.
    """


def suggested_end(policy: Policy, now_ms: int) -> SuggestedEnd:
    """Return the end to suggest. No policy refuses it, in any time zone."""
    longest_ms = policy.lifetime_ms_max or _LONGEST_MS
    span_ms = min(DAYS * DAY_MS, longest_ms)
    return SuggestedEnd(
        at=rendering.utc(now_ms + span_ms),
        days=DAYS if longest_ms >= _LONGEST_MS else 0,
    )
