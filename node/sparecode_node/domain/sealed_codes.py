# SPDX-License-Identifier: Apache-2.0
"""
Codes delivered by message: encrypted for a link that is mailed, for an hour (I13).

The mail goes to the address on file of the user, or of the user's manager.
The key is in the link alone. The state has the encrypted codes and two hashes: of what
the page of the link sends to get them, and of what tells that page from others.

    WAITING ---- opened ----> OPENED ---- a minute ----> deleted
      |
      +--- the mail was refused, or an hour has passed ---> deleted, and the set is void
"""

import enum
from dataclasses import dataclass

from sparecode_node.domain.ids import SetId
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import HOUR_MS, MINUTE_MS, Policy
from sparecode_node.domain.users import User

WAITING_MS = HOUR_MS
"""How long the codes wait to be opened. Then the set is void."""
OPENED_MS = MINUTE_MS
"""How long the page that opened them may get them again: its answer may be lost."""
NEW_ADDRESS_MS = 72 * HOUR_MS
"""How long an address is new: no codes go to it."""

TO_USER, TO_MANAGER = "by message to the user", "by message to the user's manager"
"""
To whom codes went, as the audit log says it.

It keeps no address: it is kept for years, and goes to other systems.
"""


def way(*, to_manager: bool) -> str:
    """Return to whom codes go, in the words of the audit log."""
    return TO_MANAGER if to_manager else TO_USER


class MailOutcome(enum.StrEnum):
    """What became of the mail with the link. The values are in the log."""

    SENT = "sent"
    UNKNOWN = "unknown"
    """The server may have taken it."""
    FAILED = "failed"
    """The server has not taken it, so the set is void at once."""


class MessageObstacle(enum.Enum):
    """Why codes cannot go to a user, or the user's manager, by message."""

    POLICY = enum.auto()
    NO_USER = enum.auto()
    NO_PIN = enum.auto()
    """A code alone signs in, so the mail would be enough."""
    NO_ADDRESS = enum.auto()
    NEW_ADDRESS = enum.auto()
    """It was set or changed within 72 hours."""
    NO_CHANNEL = enum.auto()
    NO_CONSOLE = enum.auto()


def is_allowed(policy: Policy, *, to_manager: bool) -> bool:
    """Return whether the policy lets codes go to users, or to their managers."""
    return policy.codes_by_message and (policy.codes_to_manager or not to_manager)


def address_of(user: User, *, to_manager: bool) -> str:
    """Return the address that codes go to; empty: none is on file."""
    return user.manager_email if to_manager else user.email


def heard_of_manager(user: User) -> bool:
    """
    Return whether a user was told who was put on file as their manager.

    The address must have been old enough at that time to be the user's own. 0: it is
    older than the time that is kept.
    """
    return bool(user.email) and (
        not user.email_since_ms
        or user.email_since_ms + NEW_ADDRESS_MS <= user.manager_since_ms
    )


def obstacle(
    user: User, pin_rule: PinRule, *, to_manager: bool, now_ms: int
) -> MessageObstacle | None:
    """
    Return what about a user and their token stands in the way of codes by message.

    The user's rows of former addresses do not tell whether an address is new: a first
    address leaves none, and more than three are not kept.
    """
    if pin_rule is PinRule.NONE:
        return MessageObstacle.NO_PIN
    if not address_of(user, to_manager=to_manager):
        return MessageObstacle.NO_ADDRESS
    since_ms = user.manager_since_ms if to_manager else user.email_since_ms
    if since_ms > now_ms - NEW_ADDRESS_MS:
        return MessageObstacle.NEW_ADDRESS
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCodes:
    """The codes of one set, encrypted for the link that was mailed."""

    set_id: SetId
    opener: str
    """SHA-256 of what the page of the link sends, in hex."""
    ciphertext: bytes
    recipient: str
    """The address that the link was mailed to."""
    to_manager: bool
    """Whether that is the address of the user's manager."""
    ends_at_ms: int
    page: str = ""
    """SHA-256 of the number drawn by the page that opened them; empty: none did."""
