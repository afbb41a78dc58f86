# SPDX-License-Identifier: Apache-2.0
"""
Tokencodes of HOTP (RFC 4226), TOTP (RFC 6238) and SecurID, with windows and drift.

The primary finds the *moments* (time steps or HOTP counters) at which the typed
digits are the tokencode. Apply decides whether one of them may still be spent.
"""

import enum
import hashlib
import re
from base64 import b32encode
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import pyotp
import securid

from sparecode_node.domain.ids import Moment, TokenSerial


class Algorithm(enum.StrEnum):
    """How a token computes its tokencodes."""

    TOTP = "totp"
    SECURID = "securid"
    """SecurID with 128-bit seeds: AES over time and serial."""
    HOTP = "hotp"


class HashName(enum.StrEnum):
    """The hash function of HMAC (RFC 6238, 1.2)."""

    SHA1 = "sha1"
    SHA256 = "sha256"
    SHA512 = "sha512"


DIGITS = (6, 8)
PERIODS_S = (30, 60)
SECURID_SEED_BYTES = 16
NO_SERIAL = TokenSerial("")
SECURID_SERIAL = re.compile(r"[0-9]{12}", re.ASCII)

_HASHES = {
    HashName.SHA1: hashlib.sha1,
    HashName.SHA256: hashlib.sha256,
    HashName.SHA512: hashlib.sha512,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokencodeParameters:
    """What tokencodes depend on, apart from the seed and the moment."""

    algorithm: Algorithm
    hash_name: HashName
    """Hash function of HMAC; SecurID does not use it."""
    digits: int
    period_s: int
    """Length of a time step; 0 for HOTP."""
    serial: TokenSerial = NO_SERIAL
    """Serial of a SecurID token, which is part of the computation."""

    @property
    def by_time(self) -> bool:
        """Whether moments are time steps, not counters."""
        return self.algorithm is not Algorithm.HOTP


def parameters_of(
    serial: TokenSerial,
    *,
    algorithm: Algorithm,
    hash_name: HashName,
    digits: int,
    period_s: int,
) -> TokencodeParameters:
    """Return the parameters of the token with this serial."""
    return TokencodeParameters(
        algorithm=algorithm,
        hash_name=hash_name,
        digits=digits,
        period_s=period_s,
        serial=serial if algorithm is Algorithm.SECURID else NO_SERIAL,
    )


def parameters_problem(parameters: TokencodeParameters, counter: int) -> str:
    """Return why no token can have these parameters; empty if one can."""
    if parameters.digits not in DIGITS:
        return f"a tokencode has 6 or 8 digits, not {parameters.digits}"
    match parameters.algorithm:
        case Algorithm.HOTP:
            if parameters.period_s or counter < 0:
                return "an HOTP token has a counter of 0 or more, and no period"
        case Algorithm.TOTP:
            if parameters.period_s not in PERIODS_S or counter:
                return "a TOTP token has a period of 30 or 60 s, and no counter"
        case Algorithm.SECURID:
            if parameters.period_s not in PERIODS_S or counter:
                return "a SecurID token has a period of 30 or 60 s, and no counter"
            if not SECURID_SERIAL.fullmatch(parameters.serial):
                return "the serial of a SecurID token is 12 digits"
    return ""


def tokencode_at(seed: bytes, parameters: TokencodeParameters, moment: Moment) -> str:
    """Return the tokencode of a moment (RFC 4226, 5.3; for TOTP the step is the counter)."""
    if parameters.algorithm is Algorithm.SECURID:
        return _securid_tokencode_at(seed, parameters, moment)
    generator = pyotp.HOTP(
        b32encode(seed).decode(),
        digits=parameters.digits,
        digest=_HASHES[parameters.hash_name],
    )
    return generator.at(moment)


def _securid_tokencode_at(
    seed: bytes, parameters: TokencodeParameters, moment: Moment
) -> str:
    generator = securid.Token(
        serial=parameters.serial,
        seed=seed,
        interval=parameters.period_s,
        digits=parameters.digits,
        pin=None,
    )
    shown_from = datetime.fromtimestamp(moment * parameters.period_s, tz=UTC)
    return generator.generate_otp(shown_from)


def step_at(at_ms: int, parameters: TokencodeParameters) -> Moment:
    """Return the time step of a time (RFC 6238, 4.2, with T0 = 0)."""
    return Moment(at_ms // (1_000 * parameters.period_s))


def moments_to_try(
    parameters: TokencodeParameters,
    *,
    at_ms: int,
    drift: int,
    spent: Moment,
    window_steps: int,
    look_ahead: int,
) -> Iterable[Moment]:
    """
    Return the moments whose tokencode is acceptable now, including spent moments.

    TOTP and SecurID: the window around now, shifted by the token's learned drift (RFC
    6238, 6). HOTP: the last spent counter and the look-ahead after it (RFC 4226, 7.4).
    Spent moments are included so that the audit log can name a repeated tokencode;
    apply refuses them.
    """
    if parameters.by_time:
        middle = step_at(at_ms, parameters) + drift
        first, last = middle - window_steps, middle + window_steps
    else:
        first, last = spent, spent + look_ahead
    return (Moment(moment) for moment in range(max(first, 0), last + 1))


def moments_after(
    parameters: TokencodeParameters, moment: Moment, *, within_ms: int
) -> Iterable[Moment]:
    """
    Return the moments of the next tokencode after *moment*.

    HOTP: the next counter (RFC 4226, 7.4). TOTP and SecurID: every step that the token
    can show until *within_ms* have passed, because people miss one.
    """
    count = 1
    if parameters.by_time:
        count += -(-within_ms // (1_000 * parameters.period_s))
    return (Moment(moment + ahead) for ahead in range(1, count + 1))


def consecutive_moments(
    seed: bytes,
    parameters: TokencodeParameters,
    digits: tuple[str, str],
    moments: Iterable[Moment],
) -> tuple[Moment, ...]:
    """
    Return the moments of the second of two consecutive tokencodes.

    *moments* are tried for the first one. Guessing two in a row in a wide window is as
    unlikely as guessing one in a narrow window (RFC 4226, 7.4).
    """
    first, second = digits
    return tuple(
        after
        for moment in matching_moments(seed, parameters, first, moments)
        for after in matching_moments(seed, parameters, second, (Moment(moment + 1),))
    )


def matching_moments(
    seed: bytes,
    parameters: TokencodeParameters,
    digits: str,
    moments: Iterable[Moment],
) -> tuple[Moment, ...]:
    """Return the moments at which *digits* is the tokencode, in the given order."""
    return tuple(
        moment
        for moment in moments
        if pyotp.utils.strings_equal(tokencode_at(seed, parameters, moment), digits)
    )


def significant(seed: bytes) -> bytes:
    """
    Return the part of a seed that decides its tokencodes (K5).

    HMAC fills its key up with zero bytes (RFC 2104), so seeds that differ only in zero
    bytes at the end make the same tokencodes.
    """
    return seed.rstrip(b"\0")
