# SPDX-License-Identifier: Apache-2.0
"""Requests that another administrator must approve (P3, I10)."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A request that needs approval. It expires a day after the request or the approval."""

    approval_id: int
    author: str
    """The administrator who made the request."""
    action: str
    """The requested action, as in the audit log: `UpdatePolicy`, `RequestBulkIssue`, ..."""
    target: str
    description: str
    serials: tuple[str, ...]
    """The tokens to issue codes for, if the request is about codes."""
    ask_time: datetime | None
    end_time: datetime | None
    approver: str
    """The administrator who approved: the author may issue now. Empty: it waits."""
    usernames: tuple[str, ...] = ()
    """
    The users of these tokens when the request was made, in their order; empty for a token
    without a user. The approval is for these users only. An older node sends none.
    """
    recipient: str = ""
    """
    The address that the codes go to by message. The approval is for this address only.
    Empty: the author is shown the codes, or the request is about something else.
    """
