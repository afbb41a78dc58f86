# SPDX-License-Identifier: Apache-2.0
"""
A name on the sheet of codes is a name: in the PDF, in the text file, and in headers.

The attacker chooses a user's name, as an import of users from elsewhere does. The
attacks: operators and objects of PDF, characters that end a line or turn it around, very
long names, and serials that end a header.
"""

import itertools
import re

import pypdf
import pytest

from sparecode_node.console.kit import sheet_pdf
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.fields import DISPLAY_NAME_MAX
from tests.console.desk import Desk
from tests.console.test_emergency_access import in_days
from tests.console.test_sheet_pdf import SECRET, named, opened, sheet
from tests.services.one_node import SERIAL

pytestmark = pytest.mark.asyncio

PAGE = f"/tokens/{SERIAL}/emergency-access"
ACTIVE = re.compile(r"/(AA|JavaScript|JS|Launch|EmbeddedFiles|URI)\b")
NAMES = (
    ") Tj ET Q << /OpenAction << /S /JavaScript /JS (app.alert(1)) >> >> BT (",
    "endstream endobj 1 0 obj << /Type /Catalog /AA << /S /URI >> >> endobj",
    "\\) \\( \\101 \\\\ %PDF-1.7 %%EOF startxref 0 trailer",
    "**bold** __line__ [link](https://evil.example) <b>b</b> {nb} \\n",
)
LONG = (
    "W" * DISPLAY_NAME_MAX,
    "W " * (DISPLAY_NAME_MAX // 2 - 1) + "W",
    "e" + "\u0301" * (DISPLAY_NAME_MAX - 1),
    "\u05d0" * (DISPLAY_NAME_MAX // 2) + "1" * (DISPLAY_NAME_MAX // 2),
    "\u0644\u0627" * (DISPLAY_NAME_MAX // 2),
)

MOVING = "\r\n\0\x1b\x85\u2028\u202e\u2066\u200b\ue000"
"""Ends of lines, the beginning of a terminal's commands, and turns of direction."""
SERIALS = ('1%22; filename="a.html', "1%0d%0aSet-Cookie: a=b", "..%2f..%2fa", "%00")


def objects_of(reader: pypdf.PdfReader) -> str:
    """Return all objects of a file, without its streams, as text."""
    return "\n".join(
        str(reader.get_object(number))
        for number in range(1, int(str(reader.trailer["/Size"])))
    )


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_is_no_part_of_the_pdf(name: str) -> None:
    """Each of them is shown as it is."""
    reader = opened(await sheet_pdf.pdf_of(sheet(name), SECRET, 0))
    (page,) = reader.pages
    shown = page.extract_text()
    assert "".join(name.split()) in "".join(shown.split())
    assert "AB02-WXYZ" in shown
    assert not ACTIVE.search(objects_of(reader))
    assert isinstance(
        reader.trailer["/Root"]["/OpenAction"], list
    )  # A page, no action.
    assert "/Annots" not in page


@pytest.mark.parametrize(
    "name", LONG, ids=["W", "words", "accents", "Hebrew", "Arabic"]
)
async def test_a_long_name_tears_no_list_of_codes(name: str) -> None:
    """All codes are on one page, and none of them is below its end."""
    made = sheet(f"{name} ({name})", codes=100)
    reader = opened(await sheet_pdf.pdf_of(made, SECRET, 0))
    assert len(reader.pages) <= 2
    (listed,) = (
        text for page in reader.pages if "AB01" in (text := page.extract_text())
    )
    assert [f"AB{number:02}-WXYZ" in listed for number in range(1, 101)] == [True] * 100


async def test_a_name_holds_no_character_that_moves_others(desk: Desk) -> None:
    """It could add a line with a code, or turn one around."""
    for character in MOVING:
        name = f"Alice{character}[ ]   1  AAAA-AAAA"
        for field in ("display_name", "email"):
            with pytest.raises(InvalidFieldError, match=field):
                await named(desk, "alice", **{field: name})
        with pytest.raises(InvalidFieldError, match="username"):
            await desk.node.add_user(name, serial="000000000043")


async def test_a_name_adds_no_line_to_the_text_file(desk: Desk) -> None:
    """What a file says of a name is in its one line."""
    name = "Alice: [ ]   1  AAAA-AAAA"
    await named(desk, "alice", display_name=name)
    browser = await desk.administrator()
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="3")
    await browser.send("Save", **in_days(3))
    file = await browser.send("Download", action=f"{PAGE}/sheet.txt")
    lines = file.response.text.split("\r\n")
    assert [line for line in lines if "AAAA-AAAA" in line] == [lines[2]]
    assert sum(line.startswith("[ ]") for line in lines) == 3
    assert not [line for line in lines if "\n" in line or "\r" in line]
    assert file.response.headers["content-disposition"] == (
        f'attachment; filename="tokencodes-{SERIAL}.txt"'
    )
    assert file.response.headers["x-content-type-options"] == "nosniff"


async def test_a_serial_ends_no_header(desk: Desk) -> None:
    """The address of the file names a token that does not exist."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Generate Codes", count="3")
    token = page.form(PAGE).value("form_token")
    sent = {"form_token": token, "code": "AAAA-AAAA", "pdf_password": SECRET}
    for serial, kind in itertools.product(SERIALS, ("txt", "pdf")):
        answer = await browser.client.post(
            f"/tokens/{serial}/emergency-access/sheet.{kind}", data=sent
        )
        assert answer.status_code in (404, 422)
        assert "content-disposition" not in answer.headers
        assert "a=b" not in answer.headers.get("set-cookie", "")
