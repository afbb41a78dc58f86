# SPDX-License-Identifier: Apache-2.0
"""
Bounds of all that comes from another cluster, so that no later command fails on it.

SQLite takes any number of 64 bits, and makes numbers of texts that look like one. A
count at its end would stop every node at the next failure.
"""

from collections.abc import Mapping
from typing import Any, Final

from sparecode_node.domain.policy import TIME_MS_MAX

_COUNT: Final = (0, 2**31 - 1)
_FLAG: Final = (0, 1)
_TIME: Final = (0, TIME_MS_MAX)
_POSITION_MAX: Final = 2**62
"""Of an HOTP counter, or of the log: far from the end of what a column holds."""

NUMBERS: Final[Mapping[str, tuple[int, int]]] = {
    **dict.fromkeys(
        (
            "enabled",
            "off",
            "of_manager",
            "lost",
            "out_of_step",
            "pin_lettered",
            "voided",
            "fixed",
            "untold",
            "is_new",
            "issued_elsewhere",
        ),
        _FLAG,
    ),
    **dict.fromkeys(
        (
            "auth_version",
            "failures",
            "rung",
            "uses",
            "digits",
            "period_s",
            "code_length",
            "ordinal",
            "key",
        ),
        _COUNT,
    ),
    **dict.fromkeys(
        (
            "email_since_ms",
            "manager_since_ms",
            "blocked_until_ms",
            "failed_at_ms",
            "expires_at_ms",
            "issued_at_ms",
            "used_at_ms",
            "told_at_ms",
            "raised_at_ms",
            "ends_at_ms",
            "minute_ms",
        ),
        _TIME,
    ),
    "spent": (-1, _POSITION_MAX),
    "maybe_spent": (-1, TIME_MS_MAX),
    "issued_index": (0, _POSITION_MAX),
    "used_index": (0, _POSITION_MAX),
    "drift": (-(2**31), 2**31 - 1),
}
"""The columns that hold numbers, with the least and the greatest."""

_LISTS: Final[Mapping[str, tuple[str, ...]]] = {
    "fingerprints": ("key", "fingerprint"),
    "codes": (
        "ordinal",
        "verifier",
        "state",
        "used_at_ms",
        "used_agent",
        "used_node_id",
        "used_index",
    ),
}
TEXT_MAX: Final = 1024
"""Characters of a text, or of bytes in base64."""
TAGS_MAX: Final = 8192
"""Of the tags of one set, in base64."""
_CONTROL: Final = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0))))
"""A fixed list: replicas with other versions of Unicode must agree."""


def check_form(row: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a row with a value out of bounds."""
    for name, value in row.items():
        if name in _LISTS:
            if not isinstance(value, list):
                raise ValueError(name)
            for each in value:
                check_form(dict(zip(_LISTS[name], each, strict=True)))
        elif value is None:
            pass  # The schema knows which column may be empty.
        elif name in NUMBERS:
            least, most = NUMBERS[name]
            if not isinstance(value, int) or not least <= value <= most:
                raise ValueError(name)
        elif (
            not isinstance(value, str)
            or len(value) > (TAGS_MAX if name == "tags" else TEXT_MAX)
            or not _CONTROL.isdisjoint(value)
        ):
            raise ValueError(name)
