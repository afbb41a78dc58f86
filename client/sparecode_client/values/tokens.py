# SPDX-License-Identifier: Apache-2.0
"""Tokens."""

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sparecode_client.values.results import ReadPosition


class TokenAlgorithm(enum.StrEnum):
    """How a token computes its tokencodes."""

    TOTP = "totp"
    HOTP = "hotp"
    SECURID = "securid"


class TokenHash(enum.StrEnum):
    """Hash function of a token's HMAC."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA512 = "sha512"


class PinRule(enum.StrEnum):
    """How PIN and tokencode make up a passcode."""

    PREPENDED = "prepended"
    PINPAD = "pinpad"
    """The token folds the PIN into the tokencode. An emergency code follows the PIN."""
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token to enroll. The defaults match most authenticator apps."""

    serial: str
    seed: bytes = field(repr=False)
    """16 to 64 bytes (RFC 4226, R6); 16 for SecurID."""
    algorithm: TokenAlgorithm = TokenAlgorithm.TOTP
    hash: TokenHash = TokenHash.SHA1
    digits: int = 6
    """6 or 8."""
    period: timedelta | None = None
    """A time step of 30 or 60 seconds (default: TOTP 30, SecurID 60); None for HOTP."""
    counter: int = 0
    """The next HOTP counter."""
    pin_rule: PinRule = PinRule.PREPENDED
    expire_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """An enrolled token."""

    serial: str
    algorithm: TokenAlgorithm | None
    """None, here and below: a value that this release does not know."""
    hash: TokenHash | None
    digits: int
    period: timedelta | None
    pin_rule: PinRule | None
    pin_set: bool
    username: str
    """Empty: the token is not assigned."""
    enabled: bool
    expire_time: datetime | None
    lost: bool
    live_codes: int
    position: ReadPosition | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFilter:
    """Selects the tokens that match every field that is set."""

    serial_prefix: str = ""
    search: str = ""
    """Text in the serial, or in the user's names or email address."""
    username: str = ""
    algorithm: TokenAlgorithm | None = None
    enabled: bool | None = None
    in_emergency_access: bool | None = None
