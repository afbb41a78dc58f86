# SPDX-License-Identifier: Apache-2.0
"""Paging: a page ends with an opaque token that holds its last key."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TypeVar

from sparecode_node.queries.views import Page

T = TypeVar("T")

KEY_MAX = 1024
LAST = chr(0x10FFFF)
FIRST_SURROGATE, AFTER_SURROGATES = chr(0xD800), chr(0xE000)


class PageTokenError(Exception):
    """A page token that no answer has held."""


def encode(key: str) -> str:
    """Return the page token that says: after *key*."""
    return base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")


def decode(token: str) -> str:
    """
    Return the key that the next page begins after; no token: before the first.

    Raises `PageTokenError`.
    """
    try:
        padded = token + "=" * (-len(token) % 4)
        key = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise PageTokenError from None
    # One spelling only, so that what was never handed out is not taken.
    if encode(key) != token or len(key) > KEY_MAX:
        raise PageTokenError
    return key


def page(found: Sequence[T], size: int, key: Callable[[T], str]) -> Page[T]:
    """Make a page of *size* from one row more than that, if there are more."""
    items = tuple(found[:size])
    more = len(found) > size
    return Page(items=items, next_page_token=encode(key(items[-1])) if more else "")


def prefix_range(prefix: str) -> tuple[str, str | bytes]:
    """
    Return the first key that begins with *prefix*, and the first after all such.

    As a range of the index, so that none of the prefix's characters means
    anything to SQLite, which compares UTF-8, that is, code points. A blob is
    greater than every text.
    """
    kept = prefix.rstrip(LAST)
    if not kept:
        return prefix, b""
    following = chr(ord(kept[-1]) + 1)
    if following == FIRST_SURROGATE:  # Surrogates have no UTF-8.
        following = AFTER_SURROGATES
    return prefix, kept[:-1] + following
