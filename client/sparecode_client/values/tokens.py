# SPDX-License-Identifier: Apache-2.0
"""Tokens."""

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sparecode_client.values.results import ReadPosition


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
