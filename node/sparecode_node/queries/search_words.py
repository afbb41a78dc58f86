# SPDX-License-Identifier: Apache-2.0
"""
The words of a search, and the texts that they are compared with.

People type a name as they heard it, on the keyboard that they have: `muller`, `mueller`
and `MÜLLER` find Müller, and `ivanov` finds Иванов. Use this for display only: which
letters are alike depends on the release of a library, so no decision may depend on it.

A name that is only heard may be spelled in other ways: `sounds_of` tells names that
sound alike, such as Meier, Maier, Mayer and Meyer. Sounds stand in the text of a user as
private characters, which no plain text has: so one index combines them with letters.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from anyascii import anyascii
from jellyfish import jaro_winkler_similarity, metaphone, soundex

WORDS_MAX = 8
"""Further words are ignored."""
PART_CHARACTERS = 3
"""A shorter word must begin a word of the text; a longer one may be anywhere in it."""

_TWO_LETTERS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ø": "oe", "å": "aa"}  # codespell:ignore
)
"""How these are written where the keyboard has none (for German: DIN 5007-2)."""

SOUND_LETTERS = 3
"""A shorter word has too few sounds to tell names apart."""
_PRIVATE = 0xE000
"""The first private character of Unicode."""
_LETTERS = re.compile(r"[a-z]+")

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


@dataclass(frozen=True, slots=True)
class HeardWord:
    """One word of a query that was heard: it matches by its letters or by its sound."""

    parts: Spellings
    """Of these one must be in the text."""
    sounds: tuple[str, ...]
    """Or all of these; none for a word without a sound."""


@functools.lru_cache(maxsize=64)
def heard_words_of(query: str) -> tuple[HeardWord, ...]:
    """Return the words of a query with their sounds."""
    return tuple(
        HeardWord(parts, sounds_of(word)[:WORDS_MAX])
        for word, parts in zip(query.split()[:WORDS_MAX], words_of(query), strict=True)
    )


def _part(spelling: str) -> str:
    return spelling if len(spelling) >= PART_CHARACTERS else f" {spelling}"


def expression_of(query: str) -> str:
    """Return the expression of FTS5 for a query; empty: its words are too short."""
    return " AND ".join(
        f"({' OR '.join(f'({_trigrams(part)})' for part in word)})"
        for word in words_of(query)
        if _is_indexed(word)
    )


def heard_expression_of(query: str) -> str:
    """
    Return the expression for users of whom each word of a query has the letters or sound.

    It is empty if no word has a sound.
    """
    words = heard_words_of(query)
    if not any(word.sounds for word in words):
        return ""
    return " AND ".join(
        f"({' OR '.join(_alternatives(word))})"
        for word in words
        if _is_indexed(word.parts)
    )


def _alternatives(word: HeardWord) -> list[str]:
    parts = [f"({_trigrams(part)})" for part in word.parts]
    if not word.sounds:
        return parts
    return [*parts, f"({' AND '.join(map(_trigrams, word.sounds))})"]


def _is_indexed(parts: Sequence[str]) -> bool:
    return all(len(part) >= PART_CHARACTERS for part in parts)


def _trigrams(part: str) -> str:
    size = PART_CHARACTERS
    trigrams = dict.fromkeys(
        part[start : start + size] for start in range(len(part) - size + 1)
    )
    return " AND ".join('"' + each.replace('"', '""') + '"' for each in trigrams)


def matches(query: str, fields: Iterable[str]) -> bool:
    """Return whether each word of a query is in one of the fields."""
    text = text_of(fields)
    return all(any(part in text for part in word) for word in words_of(query))


def names_in(text: str) -> tuple[str, ...]:
    """Return the words of a text that have a sound: letters only, without repetition."""
    words = _LETTERS.findall(plain(text).replace("'", ""))  # O'Brien is one word.
    return tuple(dict.fromkeys(word for word in words if len(word) >= SOUND_LETTERS))


def sound_of(word: str) -> str:
    """
    Return the sound of a plain word, as three private characters: one trigram.

    Soundex tells no vowels apart; Metaphone tells how the word begins, so Catherine and
    Katherine are alike, and Philip and Filip.
    """
    first = metaphone(word)[:1] or word[:1].upper()
    digits = soundex(word)[1:]
    return (
        chr(_PRIVATE + ord(first))
        + chr(_PRIVATE + 0x100 + int(digits[:1]))
        + chr(_PRIVATE + 0x200 + int(digits[1:]))
    )


def sounds_of(text: str) -> tuple[str, ...]:
    """Return the sounds of the words of a text."""
    return tuple(dict.fromkeys(sound_of(word) for word in names_in(text)))


def likeness(query: str, fields: Sequence[str]) -> float:
    """
    Return how alike a query and a person are, from 0 to 1: the least of its words.

    A word whose letters are in a field is as alike as can be.
    """
    text = text_of(fields)
    names = [name for field in fields for name in names_in(field)]
    return min(
        (
            max((jaro_winkler_similarity(name, each) for each in names), default=0.0)
            for word, heard in zip(query.split(), heard_words_of(query), strict=False)
            if not any(part in text for part in heard.parts)
            for name in names_in(word)
        ),
        default=1.0,
    )
