# SPDX-License-Identifier: Apache-2.0
"""Commands that issue and disable emergency access."""

from dataclasses import dataclass

from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import KeyId, SetId, TokenSerial, UserId


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedCode:
    """One new one-time tokencode: its ordinal in the set (from 1) and its verifier."""

    ordinal: int
    verifier: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveEmergencyAccess:
    """
    Make a generated set of one-time tokencodes live (I1-I8).

    Of *ends_at_ms* and *lifetime_ms* at most one is given; neither: no end.
    With a *draft_id* (two steps) anything changed since the draft is
    `DRAFT_STALE`; without (one step) it is `STALE_PARAMETERS`.
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
    """Empty for the one-step way."""
    draft_ends_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueFixedTokencode:
    """
    Make one code live that may be used again and again until its end (I11).

    Of *ends_at_ms* and *lifetime_ms* at most one is given; neither: a week.
    Anything changed since it was drawn is `STALE_PARAMETERS`.
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
    Make a set of one-time tokencodes live, as one of many that are issued together.

    Of *ends_at_ms* and *lifetime_ms* at most one is given; neither: no end.
    Unused codes of before are void. Anything changed since the codes were drawn
    is `STALE_PARAMETERS`.
    """

    serial: TokenSerial
    user_id: UserId
    auth_version: int
    policy_version: int
    key_id: KeyId
    set_id: SetId
    code_length: int
    verifiers: tuple[bytes, ...]
    """Of the codes, in the order of their ordinals."""
    ends_at_ms: int | None
    lifetime_ms: int | None
    recovery: RecoveryPolicy
    weaken_recovery_policy: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBulkIssue:
    """Say for which tokens codes are about to be issued together (P3)."""

    serials: tuple[TokenSerial, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DisableEmergencyAccess:
    """Void all live codes of a token; clear its lost mark only if asked (R2)."""

    serial: TokenSerial
    reinstate_token: bool
