# SPDX-License-Identifier: Apache-2.0
"""
Challenges: what is asked for after a passcode that was right so far (K1, K3).

           right, but 3 wrong ones came before
    passcode ------------------------------> NEXT_TOKENCODE -- it follows --> accepted
        |
        |  right, but the token has no PIN
        +----------------------------------> NEW_PIN -- a PIN, and the next
                                                        tokencode -----------> accepted

A challenge is for one agent, user and state of the user, lives for two minutes,
and is consumed by the commit that decides on its answer, on whichever node. The
state has only the ids of consumed ones; the challenge itself is with the agent,
sealed.
"""

import enum
from dataclasses import dataclass

from sparecode_node.domain.ids import AgentIdentity, Moment, TokenSerial, UserId
from sparecode_node.domain.policy import MINUTE_MS

CHALLENGE_MS = 2 * MINUTE_MS
"""How long a challenge can be answered (K3)."""


class NextStep(enum.StrEnum):
    """What the user has to give. The values are in the log: never reuse one."""

    NEXT_TOKENCODE = "next_tokencode"
    NEW_PIN = "new_pin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What was right so far, and what is asked for now."""

    challenge_id: str
    """That of the attempt that it continues."""
    step: NextStep
    agent: AgentIdentity
    user_id: UserId
    auth_version: int
    """Of the user, when the first step was judged."""
    serial: TokenSerial
    moment: Moment
    """Of the first tokencode, which is spent."""
    ends_at_ms: int

    def problem(
        self, agent: AgentIdentity, auth_version: int, now_ms: int, *, consumed: bool
    ) -> str:
        """Return why it cannot be answered, in words; empty if it can (K3)."""
        if agent != self.agent:
            return "it is another agent's"
        if consumed:
            return "it was answered before"
        if now_ms >= self.ends_at_ms:
            return "it has ended"
        if auth_version != self.auth_version:
            return "the user or a token has changed since"
        return ""
