# SPDX-License-Identifier: Apache-2.0
"""
Patterns of PINs that people choose, and that thieves try first (K2).

People choose repeated digits, runs, years and dates. These patterns describe 1,044 of the
10,000 PINs of four digits: a blocklist of about a tenth of all PINs is what Markert et al.
recommend ("This PIN Can Be Easily Guessed", IEEE S&P 2020). A birthday is a date, so it
needs no record of the user's birthday.
"""

import itertools

_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_YEARS = range(1900, 2050)
_BLOCKS = (2, 3, 4)
"""Lengths of a repeated part, as in 1212 and 123123."""


def pattern_of(pin: str) -> str:
    """Return the pattern of a PIN in words; empty if it has none of these."""
    if len(set(pin)) == 1:
        return "one symbol, repeated"
    if not pin.isdigit():
        return ""
    steps = {
        (int(after) - int(before)) % 10 for before, after in itertools.pairwise(pin)
    }
    if len(steps) == 1:
        return "a run of digits"
    if pin == pin[::-1] or any(_repeats(pin, length) for length in _BLOCKS):
        return "a repeated or mirrored part"
    if len(pin) % 2 == 0 and all(pin[i] == pin[i + 1] for i in range(0, len(pin), 2)):
        return "pairs of digits"
    if len(pin) == len("2000") and int(pin) in _YEARS:
        return "a year"
    return "a date" if _is_date(pin) else ""


def _repeats(pin: str, length: int) -> bool:
    count, rest = divmod(len(pin), length)
    return count > 1 and rest == 0 and pin == pin[:length] * count


def _is_date(pin: str) -> bool:
    """Return whether the digits are a day and a month, perhaps with a year."""
    match len(pin):
        case 4:
            return _is_day(pin)
        case 6:
            return _is_day(pin[:4]) or _is_day(pin[2:])
        case 8:
            return (int(pin[4:]) in _YEARS and _is_day(pin[:4])) or (
                int(pin[:4]) in _YEARS and _is_day(pin[4:])
            )
        case _:
            return False


def _is_day(digits: str) -> bool:
    """Return whether four digits are a day and a month, in either order."""
    first, second = int(digits[:2]), int(digits[2:])
    return any(
        1 <= month <= len(_DAYS) and 1 <= day <= _DAYS[month - 1]
        for day, month in ((first, second), (second, first))
    )
