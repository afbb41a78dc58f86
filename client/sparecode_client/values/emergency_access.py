# SPDX-License-Identifier: Apache-2.0
"""Emergency access: recovery policies, codes and their sets."""

import enum
from dataclasses import dataclass, field
from datetime import datetime

from sparecode_client.values.results import Commit, ReadPosition


class RecoveryPolicy(enum.StrEnum):
    """What happens when a lost token is used again (R)."""

    DENY = "deny"
    """It stays refused until an administrator reinstates it."""
    ALLOW_AND_DISABLE = "allow_and_disable"
    """Its first accepted passcode voids all live codes."""
    ALLOW_AFTER_EXPIRY = "allow_after_expiry"
    """It is refused while codes live, and accepted once they have expired."""


class TokencodeState(enum.StrEnum):
    """The state of one emergency code."""

    LIVE = "live"
    USED = "used"
    VOID = "void"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokencode:
    """One emergency code, with its number in the set."""

    ordinal: int
    code: str = field(repr=False)
    """As `K7PM-4XQ2`; the hyphen is for reading only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedTokencodes:
    """Codes that are not active until they are saved. Nobody can read them again."""

    serial: str
    codes: tuple[Tokencode, ...]
    draft: bytes = field(repr=False)
    """To be saved on any node; holds verifiers, never codes."""
    draft_end_time: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedTokencodes:
    """A set after the commit that made it live."""

    set_id: str
    codes: int
    live_codes: int
    """Of the token, kept ones included."""
    voided_codes: int
    end_time: datetime | None
    """Effective end: the earlier of the set's and the token's; None: never."""
    commit_time: datetime | None
    commit: Commit
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedTokencodes:
    """Live codes: generated, kept in memory, saved. Nobody can read them again."""

    serial: str
    codes: tuple[Tokencode, ...]
    saved: SavedTokencodes

    @property
    def end_time(self) -> datetime | None:
        """The effective end; None: never."""
        return self.saved.end_time

    @property
    def commit(self) -> Commit:
        """The node that was called, and the log index."""
        return self.saved.commit


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedFixedTokencode:
    """One live code that use does not spend. Nobody can read it again."""

    serial: str
    code: str = field(repr=False)
    """As `K7PM-4XQ2`; the hyphen is for reading only."""
    saved: SavedTokencodes


@dataclass(frozen=True, slots=True, kw_only=True)
class TokencodeRecord:
    """One code of a set, without the code."""

    ordinal: int
    state: TokencodeState | None
    use_time: datetime | None
    agent: str
    node_id: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokencodeSet:
    """A set of one-time tokencodes, or a fixed tokencode."""

    set_id: str
    issuer: str
    node_id: str
    index: int
    issue_time: datetime | None
    end_time: datetime | None
    expired: bool
    codes: tuple[TokencodeRecord, ...]
    fixed: bool = False
    """Its one code is not spent by use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyAccess:
    """The emergency access of a token."""

    serial: str
    username: str
    enabled: bool
    """The token has codes that can be used."""
    lost: bool
    recovery_policy: RecoveryPolicy | None
    live_codes: int
    end_time: datetime | None
    """When the last live code ends; None: never."""
    sets: tuple[TokencodeSet, ...]
    """Newest first; not in a list."""
    position: ReadPosition | None = None
