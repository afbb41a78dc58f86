# SPDX-License-Identifier: Apache-2.0
"""
Passcodes: what a user types, and the ways in which it can be read (A1, T4).

A passcode is a PIN followed by a code, or the code alone. The code is a token's
tokencode (6 or 8 digits) or an emergency code, which always holds a letter
under the default policy (I5): so a letter tells which of the two it is, and
there are never more than two hashes. Where policy lets PINs have letters, or codes
have none, both readings are tried, and everybody pays a hash or two more; and two
more for each further length of codes that is accepted (T4).
"""

import unicodedata
from dataclasses import dataclass

from sparecode_node.domain.ids import NO_KEY, KeyId, Moment, SetId, TokenSerial
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.tokencodes import DIGITS

_SPACES = " \t\r\n\v\f\u2028\u2029\u200b\ufeff"
_HYPHENS = "-\u00ad\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_FOR_READING_ALOUD = str.maketrans("", "", _SPACES + _HYPHENS)
"""Of both also what comes along unseen where a code is copied; wide ones NFKC makes these."""


def normalized(typed: str) -> str:
    """Return what was typed without what is for reading aloud: case, spaces, hyphens."""
    return unicodedata.normalize("NFKC", typed).upper().translate(_FOR_READING_ALOUD)


def is_lettered(passcode: str) -> bool:
    """Say whether anything but digits is in it: then no token's tokencode ends it."""
    return not (passcode.isascii() and passcode.isdigit()) and bool(passcode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One way to cut a passcode in two. Clear text: lives in memory only."""

    pin: str
    """What stands before the code; empty: nothing does."""
    code: str
    emergency: bool

    def __repr__(self) -> str:
        """Hide what was typed."""
        return f"Split(***, length={len(self.code)}, emergency={self.emergency})"


def splits(passcode: str, policy: Policy) -> tuple[Split, ...]:
    """Return the ways to read a normalized passcode (T4); see `evaluations`."""
    numeric = policy.pin_letters or not is_lettered(passcode)
    lengths = [length for length in DIGITS if len(passcode) >= length and numeric]
    found = [
        Split(pin=passcode[:-length], code=passcode[-length:], emergency=False)
        for length in lengths
        if not is_lettered(passcode[-length:])
    ]
    found += [
        Split(pin=passcode[:-length], code=passcode[-length:], emergency=True)
        for length in policy.code_lengths
        if len(passcode) >= length and _may_be_code(passcode, length, policy)
    ]
    return tuple(found)


def evaluations(policy: Policy) -> int:
    """Return how many hashes an attempt takes under this policy, always (T4)."""
    lengths = policy.code_lengths
    if not policy.pin_letters and has_letters(policy.code_alphabet):
        # PIN and code of each length; or, of digits alone, the PIN before 6 and 8.
        return 2 * len(lengths)
    # The PIN before each length that a code may have, and the emergency codes.
    return len({*DIGITS, *lengths}) + len(lengths)


def has_letters(alphabet: str) -> bool:
    """Say whether emergency codes of this alphabet hold a letter, each of them (I5)."""
    return any(symbol.isalpha() for symbol in alphabet)


def _may_be_code(passcode: str, length: int, policy: Policy) -> bool:
    """Say whether an emergency code may end it: all hold a letter, or none does (I5)."""
    if not has_letters(policy.code_alphabet):
        return not is_lettered(passcode[-length:])
    return is_lettered(passcode[-length:] if policy.pin_letters else passcode)


@dataclass(frozen=True, slots=True, kw_only=True)
class PinCandidate:
    """What the PIN of *serial* would have as verifier if what was typed is right."""

    serial: TokenSerial
    verifier: bytes
    key_id: KeyId = NO_KEY
    """Of the ring; 0: the active one, of the command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeCandidate:
    """What a code of the set would have as verifier if what was typed is one."""

    set_id: SetId
    verifier: bytes
    key_id: KeyId = NO_KEY
    """Of the ring; 0: the active one, of the command."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokencodeMatch:
    """The primary found that the digits are the tokencode of *serial* at *moment*."""

    serial: TokenSerial
    moment: Moment
    wide: bool = False
    """
    Only within the window of resynchronizing, where one alone proves little.

    It counts where the next tokencode is asked for as well (K1).
    """
    folded: bool = False
    """The PIN of a PINpad token was folded in, and is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """
    One way to read a passcode: so many trailing characters are the code.

    *emergency* says as what: an emergency code (`codes` holds candidates) or a
    token's tokencode (`tokencodes` is filled in by the primary, which alone
    unseals seeds). *bare*: nothing stands before the code, so no PIN was given.
    """

    length: int
    emergency: bool
    bare: bool
    pins: tuple[PinCandidate, ...]
    codes: tuple[CodeCandidate, ...]
    tokencodes: tuple[TokencodeMatch, ...] = ()
