# SPDX-License-Identifier: Apache-2.0
"""The sets that each administrator may issue without an approval (P3a)."""

from sparecode_node.domain.administrators import Administrator
from sparecode_node.domain.outcomes import plural
from sparecode_node.domain.policy import DAY_MS, HOUR_MS
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.commands.emergency_access import (
    IssueFixedTokencode,
    IssueTokencodesInBulk,
    SaveEmergencyAccess,
)
from sparecode_node.statemachine.feature_level import ISSUE_ALLOWANCES
from sparecode_node.statemachine.tables import issue_counts

ISSUES = SaveEmergencyAccess | IssueFixedTokencode | IssueTokencodesInBulk
"""The commands that issue a set."""


def count_issued(applying: Applying) -> None:
    """Count a set that was issued without an approval (P3a)."""
    if (
        isinstance(applying.call.command, ISSUES)
        and applying.feature_level >= ISSUE_ALLOWANCES
    ):
        issue_counts.add(
            applying.db, applying.acting_administrator.name, applying.now_ms
        )


def exceeded(applying: Applying, administrator: Administrator) -> str:
    """Return the allowance that one more set exceeds, in words; empty: none (P3a)."""
    policy = applying.policy
    if applying.feature_level < ISSUE_ALLOWANCES:
        return ""
    for span_ms, sets, span in (
        (HOUR_MS, policy.issued_sets_per_hour, "hour"),
        (DAY_MS, policy.issued_sets_per_day, "day"),
    ):
        issued = issue_counts.issued_within(
            applying.db, administrator.name, applying.now_ms, span_ms
        )
        if issued >= sets:
            return f"{plural(sets, 'set')} within one {span}"
    return ""
