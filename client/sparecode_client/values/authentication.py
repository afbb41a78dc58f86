# SPDX-License-Identifier: Apache-2.0
"""Decisions on passcodes."""

import enum
from dataclasses import dataclass, field


class Decision(enum.StrEnum):
    """What an agent learns; never a reason (A6)."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NEXT_TOKENCODE_REQUIRED = "next_tokencode_required"
    NEW_PIN_REQUIRED = "new_pin_required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """The decision on one passcode, committed by a quorum before it was sent."""

    decision: Decision
    authentication_id: str
    """Names the decision in the audit log."""
    challenge: bytes = field(default=b"", repr=False)
    """What `continue_authentication` hands back; for a next step only."""

    @property
    def accepted(self) -> bool:
        """Whether the user may come in."""
        return self.decision is Decision.ACCEPTED

    @property
    def next_step(self) -> bool:
        """Whether it was right so far, and `continue_authentication` has to follow."""
        return self.decision in (
            Decision.NEXT_TOKENCODE_REQUIRED,
            Decision.NEW_PIN_REQUIRED,
        )
