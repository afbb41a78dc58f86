# SPDX-License-Identifier: Apache-2.0
"""Emergency access: recovery policies, codes and their sets."""

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypedDict

from sparecode_client.values.results import Commit, ReadPosition


class RecoveryPolicy(enum.StrEnum):
    """What happens when a lost token is used again (R)."""

    DENY = "deny"
    """The token is refused until an administrator reinstates it."""
    ALLOW_AND_DISABLE = "allow_and_disable"
    """The token works, and its first accepted passcode voids all live codes."""
    ALLOW_AFTER_EXPIRY = "allow_after_expiry"
    """The token is refused until the codes have expired."""


class TokencodeState(enum.StrEnum):
    """The state of one emergency code."""

    LIVE = "live"
    USED = "used"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokencode:
    """One emergency code and its number in the set."""

    ordinal: int
    code: str = field(repr=False)
    """Such as `K7PM-4XQ2`; the hyphen only helps reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedTokencodes:
    """Generated codes. They work once they are saved, and cannot be shown again."""

    serial: str
    codes: tuple[Tokencode, ...]
    draft: bytes = field(repr=False)
    """Can be saved on any node; contains verifiers, never codes."""
    draft_end_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedTokencodes:
    """A saved set: its codes are live."""

    set_id: str
    codes: int
    live_codes: int
    """All live codes of the token, including kept ones."""
    voided_codes: int
    end_time: datetime | None
    """Effective end: the earlier of the set's and the token's; None: no end."""
    commit_time: datetime | None
    commit: Commit
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedTokencodes:
    """Issued codes: they are live, and cannot be shown again."""

    serial: str
    codes: tuple[Tokencode, ...]
    saved: SavedTokencodes

    @property
    def end_time(self) -> datetime | None:
        """The effective end; None: no end."""
        return self.saved.end_time

    @property
    def commit(self) -> Commit:
        """The called node and the log index."""
        return self.saved.commit


class MailOutcome(enum.StrEnum):
    """What became of the mail that has the link to codes."""

    SENT = "sent"
    """The mail server has taken it."""
    UNKNOWN = "unknown"
    """It may have. If the user does not open the codes within an hour, they are void."""
    FAILED = "failed"
    """It has not, and the codes are void."""


class TokencodeTerms(TypedDict, total=False):
    """The terms of a set of codes: see `Admin.issue_tokencodes`."""

    count: int | None
    lifetime: datetime | timedelta | None
    recovery_policy: RecoveryPolicy
    keep_unused_codes: bool
    weaken_recovery_policy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SentTokencodes:
    """Codes that were mailed to their user, or the user's manager, as a sealed message."""

    serial: str
    saved: SavedTokencodes
    outcome: MailOutcome | None
    recipient: str
    """The address on file, to which the link went."""
    cause: str
    """Why it was not sent, or is not known to be, in words; empty: it was sent."""
    open_until: datetime | None
    """Codes that the recipient has not opened by then are void."""
    to_manager: bool = False
    """Whether the recipient is the user's manager."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedFixedTokencode:
    """A live code that works until it expires. It cannot be shown again."""

    serial: str
    code: str = field(repr=False)
    """Such as `K7PM-4XQ2`; the hyphen only helps reading."""
    saved: SavedTokencodes


@dataclass(frozen=True, slots=True, kw_only=True)
class TokencodeRecord:
    """State of one code in a set, without the code itself."""

    ordinal: int
    state: TokencodeState | None
    use_time: datetime | None
    agent: str
    node_id: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokencodeSet:
    """A set of one-time tokencodes, or one fixed tokencode."""

    set_id: str
    issuer: str
    node_id: str
    index: int
    issue_time: datetime | None
    end_time: datetime | None
    expired: bool
    codes: tuple[TokencodeRecord, ...]
    fixed: bool = False
    """A temporary fixed tokencode: using it does not spend it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyAccess:
    """The emergency access of a token."""

    serial: str
    username: str
    enabled: bool
    """The token has live codes."""
    lost: bool
    recovery_policy: RecoveryPolicy | None
    live_codes: int
    end_time: datetime | None
    """When the last live code ends; None: no end."""
    sets: tuple[TokencodeSet, ...]
    """Newest first; empty in a list of tokens."""
    position: ReadPosition | None = None
