# SPDX-License-Identifier: Apache-2.0
"""
The words of a search, and the texts that they are compared with.

People type a name as they heard it, on the keyboard that they have: `muller`, `mueller`
and `MÜLLER` find Müller, and `ivanov` finds Иванов. Use this for display only: which
letters are alike depends on the release of a library, so no decision may depend on it.
"""

import functools
import unicodedata
from collections.abc import Iterable

from anyascii import anyascii

WORDS_MAX = 8
"""Further words are ignored."""
PART_CHARACTERS = 3
"""A shorter word must begin a word of the text; a longer one may be anywhere in it."""

_TWO_LETTERS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"}  # codespell:ignore
)
"""How these are written where the keyboard has none (for German: DIN 5007-2)."""

Spellings = tuple[str, ...]
"""The ways to write one word; each is plain text."""


def plain(text: str) -> str:
    """Return a text in small ASCII letters, with single spaces between words."""
    return " ".join(anyascii(_folded(text)).lower().split())


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def spellings(text: str) -> Spellings:
    """Return the plain spellings of a text: one, or two if it has an umlaut."""
    spelled = (plain(text), plain(_folded(text).translate(_TWO_LETTERS)))
    return tuple(dict.fromkeys(spelled))


def text_of(fields: Iterable[str]) -> str:
    """Return the text in which words are looked for; each word has a space before it."""
    return "".join(f" {each}" for field in fields for each in spellings(field))


@functools.lru_cache(maxsize=64)
def words_of(query: str) -> tuple[Spellings, ...]:
    """
    Return the words of a query, each as the parts of which one must be in the text.

    A short word has a space before it.
    """
    return tuple(
        tuple(_part(each) for each in spellings(word))
        for word in query.split()[:WORDS_MAX]
    )


def _part(spelling: str) -> str:
    return spelling if len(spelling) >= PART_CHARACTERS else f" {spelling}"


def matches(query: str, fields: Iterable[str]) -> bool:
    """Return whether each word of a query is in one of the fields."""
    text = text_of(fields)
    return all(any(part in text for part in word) for word in words_of(query))
