# SPDX-License-Identifier: Apache-2.0
"""
Letters: the texts of mails, in the language of the person (N6).

The templates `letter.txt` and `letter.html` are the same for all kinds of notices. The
second one escapes every value. Both get a few named values, and nothing of the state.
"""

import datetime as dt
import functools
import gettext
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from babel import Locale
from babel.dates import format_datetime
from jinja2 import (
    Environment,
    FileSystemLoader,
    StrictUndefined,
    TemplateError,
    select_autoescape,
)

from sparecode_node.domain.audit import AuditEvent
from sparecode_node.domain.personal_notices import PersonalNotice
from sparecode_node.domain.sealed_codes import TO_MANAGER
from sparecode_node.services import catalogues
from sparecode_node.services.notices.letter_words import FACTS, WAYS, WORDS, Fact

HERE: Final = Path(__file__).parent
CATALOGUES: Final = HERE / "languages"
T = TypeVar("T")


class LetterUnwritableError(Exception):
    """A mail that cannot be written. The message says why, and quotes no mail."""

    def __init__(
        self, cause: str, *, places: str = "", of_template: bool = False
    ) -> None:
        super().__init__(cause)
        self.places = places
        """Where in the code the error was raised; empty: the code has no flaw."""
        self.of_template = of_template


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """The text of a mail."""

    subject: str
    text: str
    html: str
    language: str


def guarded(name: str, write: Callable[[], T]) -> T:
    """
    Return what *write* returns. Raises `LetterUnwritableError` for every failure.

    The words of an error could quote a link or an address (N3), and the log tells the
    words of each error that reaches it. So only its class and its places are kept.
    """
    try:
        return write()
    except Exception as error:  # noqa: BLE001 - The caller logs it.
        unwritable = LetterUnwritableError(
            f"the text of {name} fails: {type(error).__name__}",
            places=_places(error),
            of_template=isinstance(error, TemplateError),
        )
    # Not in the clause above: it would make the error the context of this one.
    raise unwritable


def write_letter(
    personal: PersonalNotice,
    event: AuditEvent,
    *,
    contact: str,
    alarm_links: Sequence[str] = (),
) -> Letter:
    """
    Write the mail of a notice. Raises `TemplateError` for a broken template.

    *alarm_links*: to the page where the user raises an alarm (N9).
    """
    language = best_language(personal.language)
    catalogue = catalogue_of(language)
    words = WORDS[personal.kind]
    locale = Locale.parse(language, sep="-")
    subject = catalogue.gettext(words.subject)
    named = {"person": personal.person}
    if personal.to_manager:
        subject = catalogue.gettext("To the manager: %(subject)s") % {
            "subject": subject
        }
    values = {
        "_": catalogue.gettext,
        "language": language,
        "direction": locale.text_direction,
        "subject": subject,
        "greeting": catalogue.gettext("Hello,")
        if personal.to_manager
        else catalogue.gettext("Hello %(person)s,") % named,
        "addressed": catalogue.gettext(
            "You get this mail as the manager of %(person)s. Sparecode has this notice "
            "for %(person)s:"
        )
        % named
        if personal.to_manager
        else "",
        "happened": catalogue.gettext(words.happened),
        "advice": catalogue.gettext(
            "You need not do anything if you expect this. Otherwise ask %(person)s."
        )
        % named
        if personal.to_manager
        else catalogue.gettext(
            words.advice_of_manager
            if words.advice_of_manager and TO_MANAGER in event.detail
            else words.advice
        ),
        "alarm": catalogue.gettext("If this is not right, tell the help desk at once:")
        if personal.to_manager
        else catalogue.gettext("If this was not you, tell the help desk at once:"),
        "time": format_datetime(
            dt.datetime.fromtimestamp(event.at_ms / 1000, tz=dt.UTC),
            "long",
            tzinfo=dt.UTC,
            locale=locale,
        ),
        "facts": [
            (catalogue.gettext(FACTS[fact]), _value(fact, event, catalogue))
            for fact in words.facts
            if fact is not Fact.DELIVERY or _delivery(event)
        ],
        "contact": contact,
        "alarm_links": alarm_links,
        "is_last": personal.is_last,
    }
    return Letter(
        subject=subject,
        text=environment().get_template("letter.txt").render(values),
        html=environment().get_template("letter.html").render(values),
        language=language,
    )


def best_language(wanted: str) -> str:
    """Return the language of a mail to a person who reads *wanted*."""
    return catalogues.best([wanted], languages())


@functools.cache
def languages() -> tuple[str, ...]:
    """Return the languages of mails."""
    return catalogues.languages(CATALOGUES)


def _delivery(event: AuditEvent) -> str:
    """Return to whom codes go by message, in English; empty: they do not."""
    return next((words for way, words in WAYS.items() if way in event.detail), "")


def _value(fact: Fact, event: AuditEvent, catalogue: gettext.NullTranslations) -> str:
    match fact:
        case Fact.TOKEN | Fact.ADMINISTRATOR | Fact.USER:
            return event.target
        case Fact.DELIVERY:
            return catalogue.gettext(_delivery(event))
        case Fact.ACTOR | Fact.AGENT:
            return event.actor.partition(":")[2] or event.actor


def _places(error: Exception) -> str:
    """Return where an error was raised, the innermost place last, without its words."""
    frames = traceback.extract_tb(error.__traceback__)
    return ", ".join(f"{Path(each.filename).name}:{each.lineno}" for each in frames)


@functools.cache
def catalogue_of(language: str) -> gettext.NullTranslations:
    """Return the texts of mails in a language."""
    return catalogues.read(CATALOGUES, language, "mail")


@functools.cache
def environment() -> Environment:
    """Return the templates of mails; those of HTML escape every value."""
    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
