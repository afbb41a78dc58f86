# SPDX-License-Identifier: Apache-2.0
"""
Tokencodes: HOTP (RFC 4226), TOTP (RFC 6238), SecurID; their windows and drift.

The primary finds the *moments* (time steps or HOTP counters) at which the typed
digits are the tokencode; apply decides whether one of them may still be spent.
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
    """How a token makes its tokencodes."""

    TOTP = "totp"
    SECURID = "securid"
    """SecurID, 128 bit: AES over time and serial."""
    HOTP = "hotp"


class HashName(enum.StrEnum):
    """The hash under HMAC (RFC 6238, 1.2)."""

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
    """What a token's tokencodes depend on besides its seed and the moment."""

    algorithm: Algorithm
    hash_name: HashName
    """Under HMAC; SecurID has none."""
    digits: int
    period_s: int
    """Of a time step; 0 for HOTP."""
    serial: TokenSerial = NO_SERIAL
    """Of a SecurID token: it goes into the tokencode."""

    @property
    def by_time(self) -> bool:
        """Moments are steps of time, and not counters."""
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
    """Return what makes a token of these impossible, in words; empty if nothing does."""
    if parameters.digits not in DIGITS:
        return f"a tokencode has 6 or 8 digits, not {parameters.digits}"
    match parameters.algorithm:
        case Algorithm.HOTP:
            if parameters.period_s or counter < 0:
                return "a HOTP token has a counter from 0 on, and no period"
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
    """Return the tokencode of a moment (RFC 4226, 5.3; a TOTP step is a counter too)."""
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
    Return the moments whose tokencode would be taken now, spent ones included.

    By time: the window around now, shifted by the token's learned drift (RFC 6238,
    6). HOTP: the look-ahead after the last spent counter (RFC 4226, 7.4), and
    that counter itself. Spent moments are there so that a tokencode that comes
    twice is known as such in the audit log; apply refuses them.
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
    Return the moments of the next tokencode, after that of *moment*.

    HOTP: the one that follows (RFC 4226, 7.4). By time: any that the token has shown
    by then, if it is given *within_ms*: people miss one.
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
    Return the moments of the second of two tokencodes that follow each other.

    *moments* are tried for the first. Two in a row are as unlikely to be hit by
    chance in a wide window as one in a narrow one is (RFC 4226, 7.4).
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
    """Return those moments at which *digits* is the tokencode, in their order."""
    return tuple(
        moment
        for moment in moments
        if pyotp.utils.strings_equal(tokencode_at(seed, parameters, moment), digits)
    )
