# SPDX-License-Identifier: Apache-2.0
"""Users."""

from dataclasses import dataclass
from datetime import datetime

from sparecode_client.values.results import ReadPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person who signs in with tokens."""

    username: str
    display_name: str
    email: str
    enabled: bool
    token_serials: tuple[str, ...]
    token_failures: int
    emergency_failures: int
    locked: bool
    groups: tuple[str, ...] = ()
    """Groups of the user, in the form used for comparison."""
    language: str = ""
    """Of what is written for the user, a tag of BCP 47; empty: not known."""
    manager_email: str = ""
    """Empty: no manager is on file."""
    position: ReadPosition | None = None
    """None in a list: see the position of the page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocker:
    """What stands in the way of a user's passcodes now."""

    reason: str
    """As in the audit log, such as `locked`."""
    words: str
    next_step: str
    """What the caller can do, or whom to ask."""
    serial: str
    """The token that it concerns; empty: the user, with all tokens."""
    factor: str
    """`token` or `emergency`; empty: both."""
    end_time: datetime | None
    """When a lock ends by itself; None: it does not."""
    failures: int
    """Consecutive wrong passcodes that led to a lock."""
    agents: tuple[str, ...]
    """The agents whose allow lists exclude the user; empty: it concerns every agent."""

    def concerns_codes_of(self, serial: str) -> bool:
        """Return whether it stands in the way of the emergency codes of a token."""
        return self.serial in {"", serial} and self.factor != "token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A decision on one passcode, or on the answer to a challenge."""

    time: datetime | None
    agent: str
    node_id: str
    """The node that the agent called."""
    client_address: str
    """Where the user came from, as the agent said."""
    resource: str
    """What the user wanted to reach, as the agent said."""
    serial: str
    """Empty: the token is not known."""
    outcome: str
    """`accepted`, `refused`, `next_tokencode_required` or `new_pin_required`."""
    reason: str
    words: str
    next_step: str
    """Empty: nothing is to be done."""
    authentication_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UserExplanation:
    """Why a user is, or was, refused."""

    username: str
    blockers: tuple[Blocker, ...]
    """Empty: nothing stands in the way."""
    attempts: tuple[Attempt, ...]
    """Newest first, at most 20."""
    position: ReadPosition
    older_attempts_missing: bool = False
    """The node is still fetching older events: there may be older attempts."""
