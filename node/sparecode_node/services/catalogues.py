# SPDX-License-Identifier: Apache-2.0
"""
Catalogues of texts: the translations of the console and of mails.

English texts are in the code and in the templates; each is the key of its translations
in `languages/LANGUAGE/LC_MESSAGES/DOMAIN.po`.
"""

import gettext
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po

ENGLISH: Final = "en"


def languages(folder: Path) -> tuple[str, ...]:
    """Return English, and the languages that *folder* has catalogues of."""
    return (ENGLISH, *sorted(each.name for each in folder.iterdir() if each.is_dir()))


def best(preferred: Iterable[str], available: Iterable[str]) -> str:
    """Return the first of *available* for tags such as `de-AT`, or else English."""
    known = {tag.casefold(): tag for tag in available}
    for tag in preferred:
        # RFC 4647, section 3.4: leave out the last parts until a language matches.
        parts = tag.casefold().replace("_", "-").split("-")
        for many in range(len(parts), 0, -1):
            if match := known.get("-".join(parts[:many])):
                return match
    return ENGLISH


def read(folder: Path, language: str, domain: str) -> gettext.NullTranslations:
    """
    Return a catalogue. What it lacks is shown in English.

    It is compiled here, so no compiled file can be older than its source.
    """
    if language == ENGLISH:
        return gettext.NullTranslations()
    source = folder / language / "LC_MESSAGES" / f"{domain}.po"
    compiled = io.BytesIO()
    with source.open("rb") as file:
        write_mo(compiled, read_po(file, locale=language))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)
