# SPDX-License-Identifier: Apache-2.0
"""Pages of lists. A page has an opaque token that holds its last key."""

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sparecode_node.queries.transaction import ReadTransaction, Value
from sparecode_node.queries.views import Page

T = TypeVar("T")

COUNTED_MAX = 10_000
"""Matches that a search counts and pages through; an administrator narrows it."""
BROAD_MAX = 1_000
"""The same for a search whose words are in many names."""
KEY_MAX = 1024
LAST = chr(0x10FFFF)
FIRST_SURROGATE, AFTER_SURROGATES = chr(0xD800), chr(0xE000)


class PageTokenError(Exception):
    """A page token that this service has never returned."""


def encode(key: str) -> str:
    """Return the page token of the page after *key*."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def decode(token: str) -> str:
    """
    Return the key after which the page begins; an empty token gives an empty key.

    Raises `PageTokenError`.
    """
    try:
        padded = token + "=" * (-len(token) % 4)
        key = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise PageTokenError from None
    # Accept only the spelling that `encode` returns.
    if encode(key) != token or len(key) > KEY_MAX:
        raise PageTokenError
    return key


def page(rows: Sequence[T], size: int, key: Callable[[T], str]) -> Page[T]:
    """Return a page of *size* items. *rows* has one more if there is another page."""
    items = tuple(rows[:size])
    more = len(rows) > size
    return Page(items=items, next_page_token=encode(key(items[-1])) if more else "")


@dataclass(frozen=True, slots=True)
class Matches:
    """How many rows a search matches."""

    total: int
    """At most one more than `most`."""
    most: int

    @property
    def more(self) -> bool:
        """Whether there are more than `most`: they are not counted."""
        return self.total > self.most

    @property
    def counted(self) -> int:
        """The number to show."""
        return min(self.total, self.most)

    def before(self, number: int, size: int) -> int:
        """Return how many rows are before page *number*, from 1 on."""
        return min((number - 1) * size, self.most)


async def count(
    transaction: ReadTransaction,
    rows: str,
    values: Mapping[str, Value],
    *,
    broad: bool,
) -> Matches:
    """Count the rows of a query, at most `COUNTED_MAX`, or `BROAD_MAX` if it is *broad*."""
    most = BROAD_MAX if broad else COUNTED_MAX
    counted = await transaction.one(
        f"SELECT count(*) AS total FROM ({rows} LIMIT :most)", **values, most=most + 1
    )
    return Matches(total=0 if counted is None else int(counted["total"]), most=most)


def prefix_range(prefix: str) -> tuple[str, str | bytes]:
    """
    Return the first key with this prefix, and the first key after all of them.

    A range of the index gives no character of the prefix a special meaning. SQLite
    compares UTF-8, which orders by code points. A blob is greater than every text.
    """
    kept = prefix.rstrip(LAST)
    if not kept:
        return prefix, b""
    following = chr(ord(kept[-1]) + 1)
    if following == FIRST_SURROGATE:  # Surrogates have no UTF-8.
        following = AFTER_SURROGATES
    return prefix, kept[:-1] + following
