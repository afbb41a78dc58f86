# SPDX-License-Identifier: Apache-2.0
"""Issuing for many tokens at once; as the others of `commands`, on disk for ever."""

from dataclasses import dataclass

from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import KeyId, SetId, TokenSerial, UserId


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


BulkCommand = IssueTokencodesInBulk | RequestBulkIssue
