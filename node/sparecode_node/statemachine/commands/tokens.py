# SPDX-License-Identifier: Apache-2.0
"""Commands on one token."""

from dataclasses import dataclass

from sparecode_node.domain.ids import KeyId, Moment, NameKey, TokenSerial, UserId
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.tokencodes import Algorithm, HashName


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrollToken:
    """Add a token."""

    serial: TokenSerial
    algorithm: Algorithm
    hash_name: HashName
    digits: int
    period_s: int
    """Of a TOTP step; 0 for HOTP."""
    counter: int
    """The next HOTP counter; 0 for TOTP."""
    sealed_seed: bytes
    key_id: KeyId
    pin_rule: PinRule
    expires_at_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignToken:
    """Give an unassigned token to a user (up to three tokens a user)."""

    serial: TokenSerial
    name_key: NameKey


@dataclass(frozen=True, slots=True, kw_only=True)
class UnassignToken:
    """Take a token from its user, with its PIN and its emergency codes (R3)."""

    serial: TokenSerial


@dataclass(frozen=True, slots=True, kw_only=True)
class EnableToken:
    """Let a token be used."""

    serial: TokenSerial


@dataclass(frozen=True, slots=True, kw_only=True)
class DisableToken:
    """Refuse a token and everything that stands in for it; its codes are void (R3)."""

    serial: TokenSerial


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateToken:
    """
    Change what is given of a token; what is absent stays.

    Of *expires_at_ms* and *never_expires* at most one is given.
    """

    serial: TokenSerial
    expires_at_ms: int | None
    never_expires: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteToken:
    """Delete a token; its codes are void (R3)."""

    serial: TokenSerial


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceToken:
    """
    Put an unassigned token in the place of a user's: the old one is out of use (R3).

    With *keep_pin* the verifier is that of the old token's PIN, sealed anew for
    the new serial. It was made from the state that *user_id* and *auth_version*
    name; if apply sees another it answers `STALE_PARAMETERS` (T2).
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
    """The PIN sealed anew, where both are PINpad tokens; else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResynchronizeToken:
    """Learn from two consecutive tokencodes where a token is, and spend them (K1)."""

    serial: TokenSerial
    moments: tuple[Moment, ...] = ()
    """
    Of the second tokencode, each with the first one right before it.

    Filled in by the primary, which alone unseals seeds (T1); empty: there is none.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class SetPin:
    """Set the PIN of an assigned token; the verifier was made for this user and token."""

    serial: TokenSerial
    user_id: UserId
    verifier: bytes
    key_id: KeyId
    policy_version: int
    sealed_pin: bytes = b""
    """The PIN of a PINpad token, sealed for it; else empty."""
    lettered: bool = False
    """The PIN has a letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearPin:
    """Clear the PIN of a token: until there is another, no passcode is accepted (A2)."""

    serial: TokenSerial


@dataclass(frozen=True, slots=True, kw_only=True)
class ReinstateToken:
    """Say that a lost token is its owner's again: end its emergency access and accept it."""

    serial: TokenSerial
