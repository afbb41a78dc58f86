# SPDX-License-Identifier: Apache-2.0
"""
Challenges: the next step after a passcode that was right so far (K1, K3).

           right, after 3 wrong ones
    passcode ------------------------------> NEXT_TOKENCODE -- consecutive --> accepted
        |
        |  right, but the token has no PIN
        +----------------------------------> NEW_PIN -- a PIN, and the next
                                                        tokencode -----------> accepted

A challenge is valid for one agent, one user and one version of the user, for two
minutes. The commit that decides on the answer consumes it; the answer may come in on
any node. The state holds only the ids of consumed challenges. The agent holds the
challenge itself, sealed.
"""

import enum
from dataclasses import dataclass

from sparecode_node.domain.ids import AgentIdentity, Moment, TokenSerial, UserId
from sparecode_node.domain.policy import MINUTE_MS

CHALLENGE_MS = 2 * MINUTE_MS
"""How long a challenge can be answered (K3)."""


class NextStep(enum.StrEnum):
    """What the user has to enter next. The values are in the log: never reuse one."""

    NEXT_TOKENCODE = "next_tokencode"
    NEW_PIN = "new_pin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What was right so far, and what the user has to enter next."""

    challenge_id: str
    """The id of the authentication that the answer continues."""
    step: NextStep
    agent: AgentIdentity
    user_id: UserId
    auth_version: int
    """The user's version when the first step was judged."""
    serial: TokenSerial
    moment: Moment
    """The moment of the first tokencode, which is spent."""
    ends_at_ms: int

    def problem(
        self, agent: AgentIdentity, auth_version: int, now_ms: int, *, consumed: bool
    ) -> str:
        """Return why the challenge cannot be answered now; empty if it can (K3)."""
        if agent != self.agent:
            return "the challenge belongs to another agent"
        if consumed:
            return "the challenge was already answered"
        if now_ms >= self.ends_at_ms:
            return "the challenge has expired"
        if auth_version != self.auth_version:
            return "the user or a token has changed since the challenge"
        return ""
