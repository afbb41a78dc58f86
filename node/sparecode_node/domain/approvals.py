# SPDX-License-Identifier: Apache-2.0
"""
Approvals: requests of one administrator that another one has to approve (P3, I10).

A change is stored as requested, and the commit that approves it makes the change.
Codes cannot be stored (I9), and neither can the secret of a join ticket (P5). So for
these an approval is a permit: its author makes the same request again and uses it. `statemachine/handlers/approvals.py`
decides which commands need an approval.
"""

import enum
from dataclasses import dataclass, replace

from sparecode_node.domain.ids import AdministratorName, TokenSerial
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.policy import DAY_MS

APPROVAL_MS = DAY_MS
"""How long a request waits, and how long a permit is valid."""

PIN_KNOWN_MS = DAY_MS
"""
How long the administrator who set or cleared a PIN needs an approval to issue (I10).
"""

PENDING_MAX = 20
"""Maximum waiting requests of one author, so that approvers can review them all."""


class ApprovalKind(enum.StrEnum):
    """What an approval allows. The values are in the state: never reuse one."""

    CHANGE = "change"
    """The change itself, made when approved."""
    ISSUE = "issue"
    """A permit for the author to issue codes for one token, once."""
    BULK_ISSUE = "bulk_issue"
    """A permit for the author to issue codes for several tokens."""
    TOKEN = "token"
    """A permit for the author to set a token's PIN, replace or resynchronize it, once."""
    TICKET = "ticket"
    """A permit for the author to create one join ticket, once; its secret is not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A request that needs an approval, and its approver once it has one."""

    approval_id: int
    kind: ApprovalKind
    author: AdministratorName
    action: str
    """The name of the requested command."""
    target: str
    description: str
    """Description of the request, for the approver to read."""
    change: str
    """For a `CHANGE`, `TICKET` and `TOKEN`: the command, as JSON; otherwise empty."""
    serials: tuple[TokenSerial, ...]
    """The tokens to issue codes for, or to use; empty for other requests."""
    asked_at_ms: int
    ends_at_ms: int
    approver: AdministratorName | None = None
    basis: str = ""
    """What the request relies on; if it has changed, the request is void."""
    owners: tuple[str, ...] = ()
    """
    The users of the tokens, in the order of the serials; empty: no user.

    A request from before feature level 2 has none, and covers no token there.
    """
    used: tuple[TokenSerial, ...] = ()
    """
    The tokens that it covers no longer (P3a).

    Each uses it once. It is also void for a token whose PIN its author has changed since
    the request: the approver did not know that (I10).
    """
    recipient: str = ""
    """The address that codes go to by message (I13); empty: their author is shown them."""

    def approved(
        self, approver: AdministratorName, now_ms: int
    ) -> "Approval | Rejected":
        """Return the approved request; an author cannot approve their own (P3)."""
        if approver == self.author:
            return Rejected(
                Reason.SELF_SERVICE_FORBIDDEN,
                "you cannot approve your own request: another super administrator "
                "must do it",
            )
        if self.approver is not None:
            return Rejected(
                Reason.APPROVAL_UNKNOWN,
                f"approval {self.approval_id} was already given by {self.approver}",
                "approval_id",
            )
        return replace(self, approver=approver, ends_at_ms=now_ms + APPROVAL_MS)

    def covers(
        self, serials: tuple[TokenSerial, ...], owners: tuple[str, ...] | None
    ) -> bool:
        """
        Return whether the request is for all of these tokens.

        *owners* are their users now. None: the users do not matter (feature level 1).
        """
        if owners is None:
            return set(serials) <= set(self.serials)
        return {*zip(serials, owners, strict=True)} <= {
            *zip(self.serials, self.owners, strict=False)
        }

    def with_use(self, serial: TokenSerial) -> "Approval":
        """Return the permit after a set was issued for a token."""
        return replace(self, used=(*self.used, serial))

    @property
    def exhausted(self) -> bool:
        """Whether every token has used the permit."""
        return set(self.serials) <= set(self.used)


@dataclass(frozen=True, slots=True)
class Hold:
    """A command that must wait, unless an existing permit lets it pass."""

    kind: ApprovalKind
    description: str
    serials: tuple[TokenSerial, ...] = ()
    change: str = ""
    """For a `TICKET` and a `TOKEN`: the request, as JSON. A permit is for exactly this (P3)."""
    owners: tuple[str, ...] | None = None
    """The users of the tokens now; None: a permit does not depend on them."""
    recipient: str = ""
    """
    The address that codes go to by message (I13); empty: their author is shown them.

    A permit for one is none for the other, nor for another address.
    """
    permit: Approval | None = None

    def matches(self, approval: Approval) -> bool:
        """Return whether a request or permit is for this."""
        return (
            approval.change == self.change
            and approval.recipient == self.recipient
            and approval.covers(self.serials, self.owners)
        )
