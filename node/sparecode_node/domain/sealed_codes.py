# SPDX-License-Identifier: Apache-2.0
"""
Codes delivered by message: encrypted for a link that is mailed, for an hour (I13).

The key is in the link alone. The state has the encrypted codes and two hashes: of what
the page of the link sends to get them, and of what tells that page from others.

    WAITING ---- opened ----> OPENED ---- a minute ----> deleted
      |
      +--- the mail was refused, or an hour has passed ---> deleted, and the set is void
"""

import enum
from dataclasses import dataclass

from sparecode_node.domain.ids import SetId
from sparecode_node.domain.policy import HOUR_MS, MINUTE_MS

WAITING_MS = HOUR_MS
"""How long the codes wait to be opened. Then the set is void."""
OPENED_MS = MINUTE_MS
"""How long the page that opened them may get them again: its answer may be lost."""
NEW_ADDRESS_MS = 72 * HOUR_MS
"""How long an address is new: no codes go to it."""
HASH_DIGITS = 64
"""Hex digits of SHA-256."""


class MailOutcome(enum.StrEnum):
    """What became of the mail with the link. The values are in the log."""

    SENT = "sent"
    UNKNOWN = "unknown"
    """The server may have taken it."""
    FAILED = "failed"
    """The server has not taken it, so the set is void at once."""


class MessageObstacle(enum.Enum):
    """Why codes cannot go to a user by message."""

    POLICY = enum.auto()
    NO_USER = enum.auto()
    NO_PIN = enum.auto()
    """A code alone signs in, so the mail would be enough."""
    NO_ADDRESS = enum.auto()
    NEW_ADDRESS = enum.auto()
    """It was set or changed within 72 hours."""
    NO_CHANNEL = enum.auto()
    NO_CONSOLE = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCodes:
    """The codes of one set, encrypted for the link that was mailed."""

    set_id: SetId
    opener: str
    """SHA-256 of what the page of the link sends, in hex."""
    ciphertext: bytes
    recipient: str
    """The address that the link was mailed to."""
    ends_at_ms: int
    page: str = ""
    """SHA-256 of the number drawn by the page that opened them; empty: none did."""
