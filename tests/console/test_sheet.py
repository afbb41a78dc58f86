# SPDX-License-Identifier: Apache-2.0
"""The sheet of codes says the same on paper, as a text file and as a PDF."""

import io
from html.parser import HTMLParser

import httpx
import pypdf
import pytest

from tests.console.desk import Desk
from tests.console.paper import Page
from tests.console.test_emergency_access import in_days
from tests.services.one_node import SERIAL

pytestmark = pytest.mark.asyncio

PAGE = f"/tokens/{SERIAL}/emergency-access"


class _SheetReader(HTMLParser):
    """Collects what a page's printed sheet says: its texts, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section" and dict(attrs).get("class") == "sheet":
            self._inside = True
        elif self._inside and tag in ("h1", "th", "td", "p", "li"):
            self.texts.append("")
        elif self._inside and tag == "span":
            self.texts[-1] += " "

    def handle_endtag(self, tag: str) -> None:
        if tag == "section":
            self._inside = False

    def handle_data(self, text: str) -> None:
        if self._inside and self.texts:
            self.texts[-1] += text


def words_of_sheet(page: Page) -> list[str]:
    """Return all words of the printed sheet, in order."""
    reader = _SheetReader()
    reader.feed(page.response.text)
    return " ".join(reader.texts).split()


def words_of_file(text: str, labels: int) -> list[str]:
    """Return all words of the text file, without its boxes and the colons of labels."""
    lines = text.split("\r\n")
    facts = slice(2, 2 + labels)
    lines[facts] = [line.replace(":", " ", 1) for line in lines[facts]]
    return " ".join(line.removeprefix("[ ]") for line in lines).split()


@pytest.mark.parametrize("language", ["", "de", "ar"])
@pytest.mark.parametrize("kind", ["set", "fixed"])
async def test_the_text_file_says_everything_that_the_sheet_says(
    desk: Desk, kind: str, language: str
) -> None:
    """Every label, value, code and sentence, in the same order, and nothing else."""
    await desk.node.users.update(
        desk.node.admin("UserService/UpdateUser"),
        username="alice",
        display_name="Alice Ash",
        language=language,
    )
    browser = await desk.administrator()
    page = await browser.open(PAGE)
    if kind == "set":
        await browser.send("Generate Codes", count="3")
        page = await browser.send("Save", **in_days(3))
    else:
        page = await browser.send("Save", tick={"kind": "fixed"}, **in_days(3))
    labels = page.response.text.count("<th>")
    file = await browser.send("Download", action=f"{PAGE}/sheet.txt")
    sheet = words_of_sheet(page)
    assert words_of_file(file.response.text, labels) == sheet
    assert (labels, len(page.codes)) == (4, 3 if kind == "set" else 1)
    assert {"Alice", "(alice)", SERIAL, *page.codes} <= {*sheet}
    assert "root" in " ".join(sheet)


@pytest.mark.parametrize("language", ["en", "de"])
async def test_the_pdf_says_everything_that_the_sheet_says(
    desk: Desk, language: str
) -> None:
    """Every word; the order is that of the layout."""
    await desk.node.users.update(
        desk.node.admin("UserService/UpdateUser"), username="alice", language=language
    )
    browser = await desk.administrator()
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="3")
    page = await browser.send("Save", **in_days(3))
    form = page.form(f"{PAGE}/sheet.txt")
    answer = await browser.client.post(
        f"{PAGE}/sheet.pdf",
        content=str(httpx.QueryParams(form.fields)).encode(),
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    reader = pypdf.PdfReader(io.BytesIO(answer.content))
    reader.decrypt(form.value("pdf_password"))
    text = " ".join(each.extract_text() for each in reader.pages)
    assert sorted(text.split()) == sorted(words_of_sheet(page))
