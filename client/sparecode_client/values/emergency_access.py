# SPDX-License-Identifier: Apache-2.0
"""
What callers give and get: plain values, in Python's own types.

Times have a zone. `repr` leaves every secret out.
"""

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Generic, TypeVar

T = TypeVar("T")


class Decision(enum.StrEnum):
    """What an agent learns; never a reason (A6)."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    NEXT_TOKENCODE_REQUIRED = "next_tokencode_required"
    NEW_PIN_REQUIRED = "new_pin_required"


class TokenAlgorithm(enum.StrEnum):
    """How a token makes its tokencodes."""

    TOTP = "totp"
    HOTP = "hotp"
    SECURID = "securid"


class TokenHash(enum.StrEnum):
    """The hash under a token's HMAC."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA512 = "sha512"


class PinRule(enum.StrEnum):
    """How a passcode is made of PIN and tokencode."""

    PREPENDED = "prepended"
    PINPAD = "pinpad"
    """Folded into the tokencode by the token; an emergency code follows the PIN."""
    NONE = "none"


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


class MemberRole(enum.StrEnum):
    """What a member is now."""

    PRIMARY = "primary"
    REPLICA = "replica"
    LEARNER = "learner"


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Where a change was committed: the node that was called, and the log index."""

    node_id: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPosition:
    """How current an answer is: everything up to the applied index is in it."""

    node_id: str
    applied_index: int
    stale: bool
    """It may miss changes that were committed after that index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """A page of a list; `next_page_token` is empty on the last one."""

    items: tuple[T, ...]
    next_page_token: str
    position: ReadPosition


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session of an administrator, valid on every node."""

    administrator: str
    role: str
    end_time: datetime | None
    session: str = field(default="", repr=False)
    """The bearer; only from signing in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A person who authenticates."""

    username: str
    display_name: str
    email: str
    enabled: bool
    token_serials: tuple[str, ...]
    token_failures: int
    emergency_failures: int
    locked: bool
    groups: tuple[str, ...] = ()
    """That the user is in, as they are compared."""
    position: ReadPosition | None = None
    """Of the answer; in a list the page has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token to be enrolled. The defaults are those of most authenticator apps."""

    serial: str
    seed: bytes = field(repr=False)
    """16 to 64 bytes (RFC 4226, R6); of SecurID 16."""
    algorithm: TokenAlgorithm = TokenAlgorithm.TOTP
    hash: TokenHash = TokenHash.SHA1
    digits: int = 6
    """6 or 8."""
    period: timedelta | None = None
    """A step of 30 or 60 seconds (default: TOTP 30, SecurID 60); none for HOTP."""
    counter: int = 0
    """The next HOTP counter."""
    pin_rule: PinRule = PinRule.PREPENDED
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An authenticator."""

    serial: str
    algorithm: TokenAlgorithm | None
    """None here and below: of a kind that this release does not know."""
    hash: TokenHash | None
    digits: int
    period: timedelta | None
    pin_rule: PinRule | None
    pin_set: bool
    username: str
    """Empty: assigned to nobody."""
    enabled: bool
    expire_time: datetime | None
    lost: bool
    live_codes: int
    position: ReadPosition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFilter:
    """Which tokens to list: those for which everything that is given holds."""

    serial_prefix: str = ""
    search: str = ""
    """In the serial, or in the user's names or e-mail."""
    username: str = ""
    algorithm: TokenAlgorithm | None = None
    enabled: bool | None = None
    in_emergency_access: bool | None = None


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of the cluster, as the called node sees it."""

    node_id: str
    reachable: bool
    role: MemberRole | None
    term: int
    commit_index: int
    applied_index: int
    lag: int
    digest: str
    version: str
    clock_offset: timedelta | None
    audit_sequence: int = 0
    """Events in its audit log."""
    audit_head: str = ""
    """Hash of the last of them; equal wherever there are equally many (U1)."""
    feature_level: int = 0
    """The newest that its software knows; 0: it has not told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterStatus:
    """The cluster, as the called node sees it."""

    node_id: str
    cluster_id: str
    primary: str
    """Empty: none is known."""
    quorum: bool
    members: tuple[Member, ...]
    feature_level: int = 0
    """That all members know: what newer releases add waits until it is raised."""
    last_backup_time: datetime | None = None
    """Of the last backup that somebody has taken whole; None: there was none."""
    last_backup_index: int = 0
    """It has everything up to here."""
