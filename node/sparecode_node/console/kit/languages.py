# SPDX-License-Identifier: Apache-2.0
"""
Languages: the catalogues of texts, and the language of the page being answered.

English texts are in the code and in the templates; each is the key of its translations
in `languages/LANGUAGE/LC_MESSAGES/console.po`. What a catalogue lacks is shown in
English. `services.catalogues` reads them.
"""

import contextlib
import functools
import gettext as standard
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from babel import Locale
from markupsafe import Markup

from sparecode_node.services import catalogues

ENGLISH: Final = catalogues.ENGLISH
CATALOGUES: Final = Path(__file__).parents[1] / "languages"
LEFT_TO_RIGHT: Final = "\N{LEFT-TO-RIGHT ISOLATE}"
END: Final = "\N{POP DIRECTIONAL ISOLATE}"
_PREFERRED_MAX = 20
"""The languages of a browser that are looked at; others are ignored."""
_HEADER_MAX = 400
_QUALITY_DEFAULT = 1.0

COMPLETE: Final = frozenset({ENGLISH, "de"})
"""Languages with every text, as a test demands."""

_current: ContextVar[str] = ContextVar("language", default=ENGLISH)
_lacks: ContextVar[bool] = ContextVar("lacks", default=False)


@functools.cache
def languages() -> Mapping[str, str]:
    """Return the languages of the console: each with its name in that language."""
    tags = catalogues.languages(CATALOGUES)
    return {tag: Locale.parse(tag).get_display_name(tag) or tag for tag in tags}


def current() -> str:
    """Return the language of the page being answered."""
    return _current.get()


def locale() -> Locale:
    """Return the locale of the page being answered."""
    return _locale(_current.get())


def direction() -> str:
    """Return the direction of writing, as HTML names it: `ltr` or `rtl`."""
    return locale().text_direction


@contextlib.contextmanager
def using(language: str) -> Iterator[None]:
    """Write in a language; in English if it has no catalogue."""
    token = _current.set(best([language]))
    earlier = _lacks.set(False)
    try:
        yield
    finally:
        _lacks.reset(earlier)
        _current.reset(token)


def lacks_texts() -> bool:
    """Return whether a text of the page so far was English for lack of a translation."""
    return _lacks.get()


def best(preferred: list[str]) -> str:
    """Return the first language that the console has, of tags such as `de-AT`."""
    return catalogues.best(preferred, languages())


def accepted(header: str) -> list[str]:
    """Return the languages of an `Accept-Language` header, the most wanted first."""
    wanted = []
    for item in header[:_HEADER_MAX].split(",")[:_PREFERRED_MAX]:
        tag, _, parameter = item.partition(";")
        try:
            quality = float(parameter.partition("=")[2] or _QUALITY_DEFAULT)
        except ValueError:
            continue
        if quality > 0:
            wanted.append((quality, tag.strip()))
    return [tag for _, tag in sorted(wanted, key=lambda each: -each[0])]


def gettext(message: str, **values: object) -> str:
    """Return a text in the language of the page, with *values* for its `%(names)s`."""
    text = plain_gettext(message)
    if any(isinstance(value, Markup) for value in values.values()):
        return Markup(text) % values  # noqa: S704 - The rest of the values is escaped.
    return text % values if values else text


def ngettext(one: str, more: str, many: int, **values: object) -> str:
    """Return the text for a number of things, with *values* for its `%(names)s`."""
    return plain_ngettext(one, more, many) % values


def N_(message: str) -> str:  # noqa: N802 - The name that extraction knows.
    """Mark a constant as a text; it is translated where it is shown."""
    return message


def plural(one: str, more: str) -> tuple[str, str]:
    """Mark both forms of a text for a number of things, as `N_` marks a text."""
    return one, more


def plain_gettext(message: str) -> str:
    """Return a text whose values the template fills in."""
    # The key "" has the header of the catalogue.
    if not message:
        return ""
    return _isolated(_catalogue(_current.get()).gettext(message), (message,))


def plain_ngettext(one: str, more: str, many: int) -> str:
    """Return the text for a number of things, whose values the template fills in."""
    text = _catalogue(_current.get()).ngettext(one, more, many)
    return _isolated(text, (one, more))


def _isolated(text: str, english: tuple[str, ...]) -> str:
    """
    Return a text that may be English for lack of a translation, for the page.

    On a page from right to left such a text would have its full stop in front. The
    characters around it (Unicode, UAX #9) keep it from left to right.
    """
    if text not in english:
        return text
    if _current.get() not in COMPLETE:
        _lacks.set(True)
    if direction() == "ltr":
        return text
    return f"{LEFT_TO_RIGHT}{text}{END}"


@functools.cache
def _locale(language: str) -> Locale:
    return Locale.parse(language, sep="-")


@functools.cache
def _catalogue(language: str) -> standard.NullTranslations:
    return catalogues.read(CATALOGUES, language, "console")
