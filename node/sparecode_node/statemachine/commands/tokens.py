# SPDX-License-Identifier: Apache-2.0
"""Commands on one token."""

from dataclasses import dataclass, field

from sparecode_node.domain.ids import KeyId, Moment, NameKey, TokenSerial, UserId
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedFingerprint:
    """A keyed hash of a seed: equal for equal seeds under the same key (K5)."""

    key_id: KeyId
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollToken:
    """Add a token."""

    serial: TokenSerial
    algorithm: Algorithm
    hash_name: HashName
    digits: int
    period_s: int
    """Length of a time step; 0 for HOTP."""
    counter: int
    """The next HOTP counter; 0 for TOTP."""
    sealed_seed: bytes
    key_id: KeyId
    pin_rule: PinRule
    expires_at_ms: int | None
    fingerprints: tuple[SeedFingerprint, ...] = ()
    """One for each key in use; none below feature level 2."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignToken:
    """Assign an unassigned token to a user, up to the policy's maximum per user."""

    serial: TokenSerial
    name_key: NameKey


@dataclass(frozen=True, slots=True, kw_only=True)
class UnassignToken:
    """Unassign a token; its PIN is cleared and its emergency codes become void (R3)."""

    serial: TokenSerial


@dataclass(frozen=True, slots=True, kw_only=True)
class EnableToken:
    """Enable a token."""

    serial: TokenSerial


@dataclass(frozen=True, slots=True, kw_only=True)
class DisableToken:
    """Disable a token; its emergency codes become void (R3)."""

    serial: TokenSerial


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateToken:
    """
    Change a token. Fields that are None keep their value.

    At most one of *expires_at_ms* and *never_expires* is set.
    """

    serial: TokenSerial
    expires_at_ms: int | None
    never_expires: bool
    etag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteToken:
    """Delete a token; its emergency codes become void (R3)."""

    serial: TokenSerial


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceToken:
    """
    Replace a user's token by an unassigned one, and disable the old token (R3).

    With *keep_pin*, *pin_verifier* is that of the old token's PIN, resealed for the new
    serial. It was computed for *user_id* and *auth_version*. If apply finds other values,
    it answers `STALE_PARAMETERS` (T2).
    """

    serial: TokenSerial
    replacement: TokenSerial
    keep_pin: bool
    user_id: UserId
    auth_version: int
    key_id: KeyId
    pin_verifier: bytes
    """Empty unless *keep_pin*."""
    sealed_pin: bytes = b""
    """The resealed PIN if both are PINpad tokens; else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResynchronizeToken:
    """Learn a token's position from two consecutive tokencodes, and spend both (K1)."""

    serial: TokenSerial
    moments: tuple[Moment, ...] = ()
    """
    Moments of the second tokencode at which both are right.

    Filled in by the primary, since only the primary unseals seeds (T1); empty: none.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPin:
    """Set the PIN of an assigned token. The verifier is for this user and token."""

    serial: TokenSerial
    user_id: UserId
    verifier: bytes
    key_id: KeyId
    policy_version: int
    sealed_pin: bytes = b""
    """The sealed PIN of a PINpad token; empty for other tokens."""
    lettered: bool = False
    """Whether the PIN has a letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearPin:
    """Clear the PIN of a token. It accepts no passcode until it has a new PIN (A2)."""

    serial: TokenSerial
