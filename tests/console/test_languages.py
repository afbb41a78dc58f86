# SPDX-License-Identifier: Apache-2.0
"""Languages of the console: catalogues, negotiation, and pages in other languages."""

import io
import re
import typing
from html.parser import HTMLParser
from pathlib import Path

import pytest
from babel import Locale
from babel.messages import Catalog
from babel.messages.pofile import read_po
from jinja2.ext import babel_extract

from sparecode_node.console import app
from sparecode_node.console.kit import event_words, languages, rendering
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.explanations import EXPLANATIONS
from sparecode_node.domain.outcomes import Reason
from sparecode_node.statemachine.commands import Command
from tests.console.desk import Desk
from tests.console.test_pages import FOR_SCRIPTS, PAGES, with_role
from tests.services.one_node import SERIAL

TEMPLATES = sorted((Path(app.__file__).parent / "templates").glob("*.html"))
SHOWN = {"alt", "aria-label", "data-label", "data-unsaved", "placeholder", "title"}
NAMES = {
    "Class",
    "Filter-Id",
    "HTTP",
    "Message-Authenticator",
    "RADIUS",
    "Session-Timeout",
    "Sparecode",
    "· Sparecode",
}
"""Names, which have no translation."""


class _Unmarked(HTMLParser):
    """Collects the texts of a template, outside of code."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._code = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._code += tag in ("code", "pre")
        self.texts += [value or "" for name, value in attrs if name in SHOWN]

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag in ("code", "pre")

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.texts.append(data.strip())


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_every_text_of_a_template_is_in_the_catalogues(template):
    """A text that no catalogue has would stay English in every language."""
    source = re.sub(
        r"\{% trans.*?endtrans %\}", "", template.read_text(), flags=re.DOTALL
    )
    reader = _Unmarked()
    reader.feed(re.sub(r"\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", source, flags=re.DOTALL))
    texts = {each for each in reader.texts if re.search("[A-Za-z]{2}", each)}
    assert {each for each in texts if not each.startswith("aria-")} <= NAMES


def test_every_counted_noun_is_in_the_catalogues():
    used = {
        f"%(number)s {noun}"
        for template in TEMPLATES
        for noun in re.findall(r'\|count\("([^"]+)"', template.read_text())
    }
    assert used <= {one for one, _ in rendering.COUNTED}


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-AT,de;q=0.9,en;q=0.8", "de"),
        ("en;q=0.5, ar;q=0.7", "ar"),
        ("tlh, xx-YY", "en"),
        ("de;q=0, en", "en"),
        ("de;q=nonsense", "en"),
        ("../../etc/passwd", "en"),
        ("de\udcff", "en"),
        ("," * 10_000 + "de", "en"),
    ],
)
def test_the_browsers_languages_choose_a_known_language(header, language):
    assert languages.best(languages.accepted(header)) == language


def test_an_unknown_language_falls_back_to_english():
    with languages.using("tlh"):
        assert languages.current() == "en"
        assert rendering.count(2, "user") == "2 users"


def test_numbers_dates_and_distances_are_those_of_the_language():
    with languages.using("de"):
        assert rendering.plain_time(0) == "01.01.1970 00:00 UTC"
        assert rendering.number(1_234_567) == "1.234.567"
        assert rendering.within(7 * 86_400_000, 0) == "in 7 Tagen"
        assert rendering.within(0, 7_200_000) == "vor 2 Stunden"
        assert rendering.span(3_600_000) == "1 Stunde"


@pytest.mark.asyncio
async def test_a_page_states_its_language_and_direction(desk: Desk):
    browser = await desk.browser()
    for tag in languages.languages():
        page = await browser.client.get("/sign-in", headers={"accept-language": tag})
        direction = Locale.parse(tag).text_direction
        assert f'<html lang="{tag}" dir="{direction}"' in page.text


@pytest.mark.asyncio
async def test_a_browser_keeps_the_language_that_was_chosen(desk: Desk):
    browser = await desk.browser()
    await browser.open("/sign-in")
    await browser.send("Deutsch", action="/language")
    assert browser.page.path == "/sign-in"
    assert '<html lang="de"' in (await browser.open("/sign-in")).response.text
    english = {"accept-language": "ar"}
    assert 'lang="de"' in (await browser.client.get("/sign-in", headers=english)).text
    cookies = {"__Host-sparecode-language": "../de"}
    foreign = await desk.browser()
    foreign.client.cookies.update(cookies)
    assert '<html lang="en"' in (await foreign.open("/sign-in")).response.text


@pytest.mark.asyncio
async def test_a_language_is_chosen_only_by_a_form_of_the_console(desk: Desk):
    browser = await desk.browser()
    await browser.open("/sign-in")
    answer = await browser.client.post(
        "/language", data={"language": "de", "next": "//evil.test"}
    )
    assert answer.headers["location"] == "/"
    assert "set-cookie" not in answer.headers


CORE = (
    "sign_in.html",
    "not_me.html",
    "sealed_codes.html",
    "sheet.html",
    "emergency_access.html",
    "emergency_saved.html",
    "code_sets.html",
    "layout.html",
    *("find.html", "user.html", "users.html", "token.html", "tokens.html"),
    *("explanation.html", "password.html", "reauthentication.html", "continue.html"),
)
"""What is complete in every language: the sheet, and what a help desk works with."""
PLACE = re.compile(r"%\((\w+)\)s")


def catalogue(tag: str) -> Catalog:
    path = languages.CATALOGUES / tag / "LC_MESSAGES" / "console.po"
    with path.open("rb") as file:
        return read_po(file, locale=tag)


def forms(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def translated(tag: str) -> set[str]:
    return {
        forms(message.id)[0]
        for message in catalogue(tag)
        if message.id and all(forms(message.string))
    }


def test_german_is_complete():
    missing = {
        forms(message.id)[0] for message in catalogue("de") if message.id
    } - translated("de")
    assert not missing


@pytest.mark.parametrize("tag", sorted(set(languages.languages()) - {"en"}))
def test_the_core_is_complete_in_every_language(tag):
    sources = [path.read_bytes() for path in TEMPLATES if path.name in CORE]
    options = {"extensions": "jinja2.ext.i18n", "trimmed": "true"}
    used = {
        forms(text)[0]
        for source in sources
        for _, _, text, _ in babel_extract(
            io.BytesIO(source), ("_", "gettext", "ngettext"), (), options
        )
    }
    assert len(used) > 100
    assert used <= translated(tag)


@pytest.mark.parametrize("tag", sorted(set(languages.languages()) - {"en"}))
def test_translations_have_the_places_and_marks_of_their_texts(tag):
    """A lost place loses a value; a lost tag breaks a page. `count` may be a word."""
    for message in catalogue(tag):
        if not message.id or not all(forms(message.string)):
            continue
        original = forms(message.id)[-1]
        for text in forms(message.string):
            places = set(PLACE.findall(text))
            lacking = set(PLACE.findall(original)) - places
            assert places <= set(PLACE.findall(original)), original
            assert not lacking or (message.pluralizable and lacking <= {"number"})
            assert sorted(re.findall(r"<[^>]*>", text)) == sorted(
                re.findall(r"<[^>]*>", original)
            )


def test_every_action_outcome_and_reason_has_words_in_the_catalogues():
    commands = {
        rendering.english_words(each.__name__) for each in typing.get_args(Command)
    }
    assert commands <= set(event_words.ACTIONS)
    assert {rendering.english_words(each) for each in Reason} == set(
        event_words.REASONS
    )
    words = {each.words for each in EXPLANATIONS.values()}
    assert words <= set(event_words.EXPLANATIONS)


@pytest.mark.asyncio
@pytest.mark.parametrize("tag", ["de", "ar"])
async def test_every_page_opens_in_every_language(desk: Desk, tag):
    browser = await desk.administrator()
    browser.client.headers["accept-language"] = tag
    for path in PAGES:
        if path in FOR_SCRIPTS or "export" in path:
            continue
        page = await browser.open(path)
        assert page.status in (200, 404, 409), (path, page.text)
        assert f'<html lang="{tag}"' in page.response.text, path
        assert "%(" not in page.text


@pytest.mark.asyncio
async def test_the_audit_log_is_searched_by_the_words_that_it_shows(desk: Desk):
    browser = await desk.administrator()
    browser.client.headers["accept-language"] = "de"
    page = await browser.open("/audit?action=Benutzer%20anlegen")
    assert "Benutzer anlegen" in page.text
    assert "Keine passenden Ereignisse." not in page.text


@pytest.mark.asyncio
async def test_the_sheet_is_in_the_language_of_the_user(desk: Desk):
    """Whatever the language of the administrator; so is the text file."""
    browser = await desk.administrator()
    browser.client.headers["accept-language"] = "de"
    await browser.open("/users/alice")
    await browser.send("Speichern", action="/users/alice", language="ar")
    path = f"/tokens/{SERIAL}/emergency-access"
    await browser.open(path)
    await browser.send("Codes erzeugen", count="2")
    ends = {"expires_date": "2023-11-17", "expires_time": "22:13"}
    page = await browser.send("Speichern", **ends)
    assert '<html lang="de" dir="ltr"' in page.response.text
    assert '<section class="sheet" lang="ar" dir="rtl"' in page.response.text
    assert "احتفظ بهذه الورقة" in page.text
    assert "Gespeichert." in page.text
    file = await browser.send("Herunterladen", action=f"{path}/sheet.txt")
    assert "احتفظ بهذه الورقة" in file.response.text
    assert page.codes[0] in file.response.text


@pytest.mark.asyncio
async def test_the_sheet_of_an_unknown_language_is_english(desk: Desk):
    browser = await desk.administrator()
    browser.client.headers["accept-language"] = "de"
    await browser.open("/users/alice")
    page = await browser.send("Speichern", action="/users/alice", language="fr")
    assert page.form("/users/alice").value("language") == "fr"
    path = f"/tokens/{SERIAL}/emergency-access"
    await browser.open(path)
    await browser.send("Codes erzeugen", count="2")
    ends = {"expires_date": "2023-11-17", "expires_time": "22:13"}
    page = await browser.send("Speichern", **ends)
    assert '<section class="sheet" lang="en" dir="ltr"' in page.response.text


@pytest.mark.asyncio
async def test_a_language_must_exist(desk: Desk):
    browser = await desk.administrator()
    await browser.open("/users/alice")
    page = await browser.send("Save", action="/users/alice", language="klingonisch")
    assert "Must be the tag of a language, such as de or pt-BR." in page.text


@pytest.mark.parametrize(
    ("tag", "isolated"), [("en", False), ("de", False), ("ar", True)]
)
def test_english_words_on_a_page_from_right_to_left_keep_their_order(tag, isolated):
    """Otherwise the full stop of an English sentence is in front of it."""
    missing = "A text without a translation."
    with languages.using(tag):
        texts = (
            languages.gettext(missing),
            languages.ngettext("%(n)s flag", "%(n)s flags", 3, n=3),
        )
    marks = (languages.LEFT_TO_RIGHT, languages.END)
    for text, plain in zip(texts, (missing, "3 flags"), strict=True):
        assert text == (f"{marks[0]}{plain}{marks[1]}" if isolated else plain)


def test_translated_words_have_no_marks_of_direction():
    with languages.using("ar"):
        assert languages.LEFT_TO_RIGHT not in languages.gettext("Saved.")


HELP_DESK_PAGES = (
    *("/", "/find", "/find?q=alica", "/find?q=zzzz", "/users", "/users?q=zz"),
    *("/users/alice", "/tokens", "/tokens?q=zz", f"/tokens/{SERIAL}"),
    *(f"/tokens/{SERIAL}/emergency-access", f"/tokens/{SERIAL}/clear-pin"),
    *("/account", "/account/password", "/account/second-factor", "/sessions"),
)
"""What a help desk opens while it issues codes."""
TECHNICAL = {"TOTP", "HOTP", "SecurID"}
FALLBACK = re.compile(f"{languages.LEFT_TO_RIGHT}([^{languages.END}]*){languages.END}")


@pytest.mark.asyncio
async def test_the_help_desk_works_in_arabic_alone(desk: Desk):
    """No English text is in the middle of its pages; other pages say that some are."""
    await desk.node.issue(count=3)
    assert not await desk.node.accepts("4712ABCD-EFGH")
    browser = await with_role(desk, Role.HELP_DESK)
    browser.client.headers["accept-language"] = "ar"
    for path in HELP_DESK_PAGES:
        page = await browser.open(path)
        english = set(FALLBACK.findall(page.response.text)) - TECHNICAL
        assert not english, path
        assert page.status == 200, path
    browser = await desk.administrator()
    browser.client.headers["accept-language"] = "ar"
    page = await browser.open("/policy")
    assert FALLBACK.search(page.response.text)
    assert 'id="untranslated"' in page.response.text
    browser.client.headers["accept-language"] = "de"
    assert 'id="untranslated"' not in (await browser.open("/policy")).response.text
