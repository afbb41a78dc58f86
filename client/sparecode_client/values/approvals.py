# SPDX-License-Identifier: Apache-2.0
"""What one administrator has asked for and another one decides (P3, I10)."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """It ends a day after it was asked for or approved."""

    approval_id: int
    author: str
    """Who has asked."""
    action: str
    """What is wanted, as in the audit log: `UpdatePolicy`, `RequestBulkIssue`, ..."""
    target: str
    description: str
    serials: tuple[str, ...]
    """The tokens that codes are wanted for, if it is about codes."""
    ask_time: datetime | None
    end_time: datetime | None
    approver: str
    """Who has approved: the author may issue now. Empty: it waits."""
