# SPDX-License-Identifier: Apache-2.0
"""Decisions on passcodes."""

import enum
from dataclasses import dataclass, field


class Decision(enum.StrEnum):
    """What the agent learns. It never learns the reason (A6)."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NEXT_TOKENCODE_REQUIRED = "next_tokencode_required"
    NEW_PIN_REQUIRED = "new_pin_required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Authentication:
    """The decision on one passcode. A quorum committed it before the node answered."""

    decision: Decision
    authentication_id: str
    """Identifies the decision in the audit log."""
    challenge: bytes = field(default=b"", repr=False)
    """Sent back by `continue_authentication`; empty unless a next step is required."""
    cluster: str = ""
    """The cluster that decided, as the slot table names it; empty: there is only one."""

    @property
    def accepted(self) -> bool:
        """Whether the user is accepted."""
        return self.decision is Decision.ACCEPTED

    @property
    def next_step(self) -> bool:
        """Whether the passcode was right and `continue_authentication` must follow."""
        return self.decision in (
            Decision.NEXT_TOKENCODE_REQUIRED,
            Decision.NEW_PIN_REQUIRED,
        )
