# SPDX-License-Identifier: Apache-2.0
"""Commands that issue and disable emergency access."""

from dataclasses import dataclass

from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import KeyId, SetId, TokenSerial, UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCode:
    """A new one-time tokencode: its ordinal in the set (from 1) and its verifier."""

    ordinal: int
    verifier: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveEmergencyAccess:
    """
    Make a generated set of one-time tokencodes live (I1-I8).

    At most one of *ends_at_ms* and *lifetime_ms* is set; neither: no end. If the user or
    token has changed since the codes were generated, the result is `DRAFT_STALE` with a
    *draft_id* (two steps), `STALE_PARAMETERS` without (one step).
    """

    serial: TokenSerial
    user_id: UserId
    auth_version: int
    policy_version: int
    key_id: KeyId
    set_id: SetId
    code_length: int
    codes: tuple[SealedCode, ...]
    ends_at_ms: int | None
    lifetime_ms: int | None
    recovery: RecoveryPolicy
    keep_unused_codes: bool
    weaken_recovery_policy: bool
    draft_id: str
    """Empty if codes are issued in one step."""
    draft_ends_at_ms: int
    opener: str = ""
    """
    For codes that go by message (I13): SHA-256 of what opens them, in hex. Empty: the
    administrator is shown the codes.
    """
    sealed_codes: bytes = b""
    """The codes, encrypted under a key that is only in the link."""
    recipient: str = ""
    """The address that the called node knows, of the user or of the user's manager."""
    to_manager: bool = False
    """Whether they go to the user's manager."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueFixedTokencode:
    """
    Make a fixed tokencode live, which can be used repeatedly until its end (I11).

    At most one of *ends_at_ms* and *lifetime_ms* is set; neither: a week. If the user or
    token has changed since the code was drawn, the result is `STALE_PARAMETERS`.
    """

    serial: TokenSerial
    user_id: UserId
    auth_version: int
    policy_version: int
    key_id: KeyId
    set_id: SetId
    code_length: int
    verifier: bytes
    ends_at_ms: int | None
    lifetime_ms: int | None
    recovery: RecoveryPolicy
    weaken_recovery_policy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueTokencodesInBulk:
    """
    Make a set of one-time tokencodes live, one of many sets issued together.

    At most one of *ends_at_ms* and *lifetime_ms* is set; neither: no end. The token's
    unused older codes become void. If the user or token has changed since the codes
    were drawn, the result is `STALE_PARAMETERS`.
    """

    serial: TokenSerial
    user_id: UserId
    auth_version: int
    policy_version: int
    key_id: KeyId
    set_id: SetId
    code_length: int
    verifiers: tuple[bytes, ...]
    """Verifiers of the codes, ordered by ordinal."""
    ends_at_ms: int | None
    lifetime_ms: int | None
    recovery: RecoveryPolicy
    weaken_recovery_policy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBulkIssue:
    """Announce the tokens for which codes will be issued together (P3)."""

    serials: tuple[TokenSerial, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DisableEmergencyAccess:
    """Void all live codes of a token; clear its lost mark only if requested (R2)."""

    serial: TokenSerial
    reinstate_token: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinstateToken:
    """Accept a lost token again, and end its emergency access."""

    serial: TokenSerial


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSealedCodes:
    """Hand out the codes of a message to the page that opened it, once (I13)."""

    opener: str
    """SHA-256 of what the page sent, in hex."""
    page: str
    """SHA-256 of a number that the page drew, in hex: it alone gets them again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteSealedCodes:
    """Record what became of the mail with the link. If it failed, the set is void (I13)."""

    serial: TokenSerial
    set_id: SetId
    outcome: str
    """A `MailOutcome`."""
    cause: str
    """In words; empty: it was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteEndedSets:
    """Record the sets that have ended by time with codes unused (N6): apply finds them."""
