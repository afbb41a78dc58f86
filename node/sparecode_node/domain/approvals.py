# SPDX-License-Identifier: Apache-2.0
"""
A second approver: what one administrator asks for and another one allows (P3, I10).

A change waits as it was asked for, and is made by the commit that approves it.
Codes cannot wait, since nobody keeps them (I9): for issuing, what is approved is a
permit, which its author uses.
"""

import enum
from dataclasses import dataclass, replace

from sparecode_node.domain.ids import AdministratorName, TokenSerial
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import DAY_MS

APPROVAL_MS = DAY_MS
"""So long something waits, and so long a permit lasts."""

PIN_KNOWN_MS = DAY_MS
"""So long whoever set or cleared a PIN does not issue for its token alone (I10)."""

PENDING_MAX = 20
"""Of one author: somebody is to look through them."""


class ApprovalKind(enum.StrEnum):
    """What approving does. The values are in the state: never reuse one."""

    CHANGE = "change"
    """Makes the change."""
    ISSUE = "issue"
    """Lets the author issue for one token, once."""
    BULK_ISSUE = "bulk_issue"
    """Lets the author issue for many tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Something that was asked for, and by whom it was approved, if it was."""

    approval_id: int
    kind: ApprovalKind
    author: AdministratorName
    action: str
    """The command that is wanted, by its name."""
    target: str
    said: str
    """In words, for whoever decides."""
    change: str
    """Of a `CHANGE`: the command, as it was asked for."""
    serials: tuple[TokenSerial, ...]
    """The tokens that codes are wanted for."""
    asked_at_ms: int
    ends_at_ms: int
    approver: AdministratorName | None = None

    def approved(
        self, approver: AdministratorName, now_ms: int
    ) -> "Approval | Rejected":
        """Return the permit: never of its author's own hand (P3)."""
        if approver == self.author:
            return Rejected(
                Reason.SELF_SERVICE_FORBIDDEN,
                "nobody approves what they have asked for: another super "
                "administrator has to do it",
            )
        if self.approver is not None:
            return Rejected(
                Reason.APPROVAL_UNKNOWN,
                f"approval {self.approval_id} was given already, by {self.approver}",
                "approval_id",
            )
        return replace(self, approver=approver, ends_at_ms=now_ms + APPROVAL_MS)

    def covers(self, serials: tuple[TokenSerial, ...]) -> bool:
        """Say whether all these tokens are among its own."""
        return set(serials) <= set(self.serials)
