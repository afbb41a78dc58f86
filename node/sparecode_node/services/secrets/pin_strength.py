# SPDX-License-Identifier: Apache-2.0
"""
PINs that are easy to guess, which the policy's blocklist refuses (K2).

The called node checks a new PIN, because no other node sees it. The most common PINs come
from the passwords that zxcvbn holds in the order of their frequency. Bonneau et al. count
the numbers in leaked passwords, too, for want of a public list of PINs ("A Birthday
Present Every Eleven Wallets?", Financial Cryptography 2012, section 3).
"""

import functools
import re
from collections import Counter

from zxcvbn.frequency_lists import FREQUENCY_LISTS

from sparecode_node.domain.pin_patterns import pattern_of
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.users import User

_NUMBERS = re.compile(r"[0-9]+")
_WORDS = re.compile(r"[0-9]+|[^\W\d_]+")
_WORD_MIN = 3
"""Shorter parts of names occur in too many PINs."""
_MOST_COMMON = 1_000
"""Numbers of one length that are refused: a tenth of the PINs of four digits."""


def blocked_pin_problem(pin: str, policy: Policy, user: User | None) -> str:
    """Return why the blocklist refuses a PIN, without quoting it; empty if it does not."""
    if not policy.pin_blocklist:
        return ""
    typed = pin.casefold()
    reason = pattern_of(typed)
    if not reason and (typed in _common_passwords() or typed in most_common(len(pin))):
        reason = "one of the most common"
    if not reason and user is not None and _is_of_user(typed, user):
        reason = "part of the user's name or e-mail address"
    return f"this PIN is easy to guess ({reason}): choose another one" if reason else ""


@functools.cache
def most_common(digits: int) -> frozenset[str]:
    """
    Return the thousand numbers of *digits* digits that occur most in common passwords.

    A number in a password counts with its first and its last *digits* digits. Fewer are
    returned if the passwords have fewer.
    """
    counts = Counter(
        number[start : start + digits]
        for password in FREQUENCY_LISTS["passwords"]
        for number in _NUMBERS.findall(password)
        if len(number) >= digits
        for start in sorted({0, len(number) - digits})
    )
    return frozenset(number for number, _ in counts.most_common(_MOST_COMMON))


def _is_of_user(pin: str, user: User) -> bool:
    """Return whether a PIN is in the user's names or address, or contains such a part."""
    words = _WORDS.findall(
        f"{user.username} {user.display_name} {user.email}".casefold()
    )
    return any(
        pin in word or (len(word) >= _WORD_MIN and word in pin) for word in words
    )


@functools.cache
def _common_passwords() -> frozenset[str]:
    """Return the 30,000 most common passwords, which hold common PINs of any length."""
    return frozenset(FREQUENCY_LISTS["passwords"])
