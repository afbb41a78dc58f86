# SPDX-License-Identifier: Apache-2.0
"""
PINs that are easy to guess, which the policy's blocklist refuses (K2).

The called node checks a new PIN, because no other node sees it.
"""

import functools
import re

from zxcvbn.frequency_lists import FREQUENCY_LISTS

from sparecode_node.domain.pin_patterns import pattern_of
from sparecode_node.domain.policy import Policy
from sparecode_node.domain.users import User

_WORDS = re.compile(r"[0-9]+|[^\W\d_]+")
_WORD_MIN = 3
"""Shorter parts of names occur in too many PINs."""


def blocked_pin_problem(pin: str, policy: Policy, user: User | None) -> str:
    """Return why the blocklist refuses a PIN, without quoting it; empty if it does not."""
    if not policy.pin_blocklist:
        return ""
    typed = pin.casefold()
    reason = pattern_of(typed)
    if not reason and typed in _common():
        reason = "one of the most common"
    if not reason and user is not None and _is_of_user(typed, user):
        reason = "part of the user's name or e-mail address"
    return f"this PIN is easy to guess ({reason}): choose another one" if reason else ""


def _is_of_user(pin: str, user: User) -> bool:
    """Return whether a PIN is in the user's names or address, or contains such a part."""
    words = _WORDS.findall(
        f"{user.username} {user.display_name} {user.email}".casefold()
    )
    return any(
        pin in word or (len(word) >= _WORD_MIN and word in pin) for word in words
    )


@functools.cache
def _common() -> frozenset[str]:
    """Return the 30,000 most common passwords, which hold the common longer PINs."""
    return frozenset(FREQUENCY_LISTS["passwords"])
