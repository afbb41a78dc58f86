# SPDX-License-Identifier: Apache-2.0
"""
Passcodes: what a user types, and how it can be read (A1, T4).

A passcode is a PIN followed by a code, or the code alone. The code is a tokencode (6
or 8 digits) or an emergency code. Under the default policy an emergency code always
holds a letter (I5), so the letter tells which of the two it is, and an attempt takes
two hashes. If the policy allows letters in PINs, or codes without letters, both
readings are tried, and every attempt takes one or two hashes more. Each further
accepted code length adds two (T4).
"""

import unicodedata
from dataclasses import dataclass

from sparecode_node.domain.ids import NO_KEY, KeyId, Moment, SetId, TokenSerial
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.tokencodes import DIGITS

_HYPHENS = frozenset("-\u2010\u2011\u2012\u2013\u2014\u2015\u2212")
"""NFKC turns the wide variants into the first one."""
_FORMAT = "Cf"
"""
The category of Unicode's invisible characters: without width, of direction, the soft
hyphen, the byte order mark. Copying a code from a page or a mail brings them along.
"""


def normalized(typed: str) -> str:
    """
    Return a code, PIN or passcode as it is read: in upper case, without what is not seen.

    One rule for all of them: spaces of any kind, hyphens and invisible characters count
    for nothing, wherever they are (I5).
    """
    return "".join(
        character
        for character in unicodedata.normalize("NFKC", typed).upper()
        if not _counts_for_nothing(character)
    )


def _counts_for_nothing(character: str) -> bool:
    return (
        character.isspace()
        or character in _HYPHENS
        or unicodedata.category(character) == _FORMAT
    )


def is_lettered(passcode: str) -> bool:
    """
    Return whether the text holds anything but digits.

    If it does, it does not end with a tokencode.
    """
    return not (passcode.isascii() and passcode.isdigit()) and bool(passcode)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """One way to split a passcode into PIN and code. Clear text: keep it in memory only."""

    pin: str
    """The text before the code; may be empty."""
    code: str
    emergency: bool

    def __repr__(self) -> str:
        """Hide the typed text."""
        return f"Split(***, length={len(self.code)}, emergency={self.emergency})"


def splits(passcode: str, policy: Policy) -> tuple[Split, ...]:
    """Return the ways to read a normalized passcode (T4); see `evaluations`."""
    numeric = policy.pin_letters or not is_lettered(passcode)
    lengths = [length for length in DIGITS if len(passcode) >= length and numeric]
    readings = [
        Split(pin=passcode[:-length], code=passcode[-length:], emergency=False)
        for length in lengths
        if not is_lettered(passcode[-length:])
    ]
    readings += [
        Split(pin=passcode[:-length], code=passcode[-length:], emergency=True)
        for length in policy.code_lengths
        if len(passcode) >= length and _may_be_code(passcode, length, policy)
    ]
    return tuple(readings)


def evaluations(policy: Policy) -> int:
    """Return the number of hashes that every attempt takes under this policy (T4)."""
    lengths = policy.code_lengths
    if not policy.pin_letters and has_letters(policy.code_alphabet):
        # PIN and code for each length. For digits only: the PIN before 6 and before 8.
        return 2 * len(lengths)
    # The PIN before each possible code length, and an emergency code of each length.
    return len({*DIGITS, *lengths}) + len(lengths)


def read_alike(before: Policy, after: Policy) -> bool:
    """Return whether passcodes have the same readings and hashes under both (T2, T4)."""
    return _form(before) == _form(after)


def _form(policy: Policy) -> tuple[object, ...]:
    """Return all that `splits` and `evaluations` read."""
    return policy.pin_letters, policy.code_lengths, has_letters(policy.code_alphabet)


def has_letters(alphabet: str) -> bool:
    """Return whether every emergency code of this alphabet holds a letter (I5)."""
    return any(symbol.isalpha() for symbol in alphabet)


def _may_be_code(passcode: str, length: int, policy: Policy) -> bool:
    """
    Return whether the passcode may end with an emergency code of this length.

    Either all emergency codes hold a letter, or none does (I5).
    """
    if not has_letters(policy.code_alphabet):
        return not is_lettered(passcode[-length:])
    return is_lettered(passcode[-length:] if policy.pin_letters else passcode)


@dataclass(frozen=True, slots=True, kw_only=True)
class PinCandidate:
    """The verifier that the token's PIN has if the typed PIN is right."""

    serial: TokenSerial
    verifier: bytes
    key_id: KeyId = NO_KEY
    """Key of the ring; 0: the command's active key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeCandidate:
    """The verifier that a code of the set has if the typed code is right."""

    set_id: SetId
    verifier: bytes
    key_id: KeyId = NO_KEY
    """Key of the ring; 0: the command's active key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokencodeMatch:
    """The typed digits are the tokencode of *serial* at *moment*, as the primary found."""

    serial: TokenSerial
    moment: Moment
    wide: bool = False
    """
    Whether it matches only in the wide window of resynchronization.

    There one tokencode proves little: it counts only together with the next one (K1).
    """
    folded: bool = False
    """Whether the PIN of a PINpad token was folded in, and is right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """
    One way to read a passcode: its last *length* characters are the code.

    *emergency*: the code is an emergency code, with candidates in *codes*. Otherwise
    it is a tokencode, and the primary fills in *tokencodes*: only the primary unseals
    seeds. *bare*: there is no PIN before the code.
    """

    length: int
    emergency: bool
    bare: bool
    pins: tuple[PinCandidate, ...]
    codes: tuple[CodeCandidate, ...]
    tokencodes: tuple[TokencodeMatch, ...] = ()
    code_tags: tuple[bytes, ...] = ()
    """
    The tags that the code has if it is of a former set of the user: one for each key of
    the ring in use (A5). From feature level 2 on.
    """
