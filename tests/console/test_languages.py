# SPDX-License-Identifier: Apache-2.0
"""Languages of the console: catalogues, negotiation, and pages in other languages."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from babel import Locale

from sparecode_node.console import app
from sparecode_node.console.kit import languages, rendering
from tests.console.desk import Desk

TEMPLATES = sorted((Path(app.__file__).parent / "templates").glob("*.html"))
SHOWN = {"alt", "aria-label", "data-label", "data-unsaved", "placeholder", "title"}
NAMES = {
    "Class",
    "Filter-Id",
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
