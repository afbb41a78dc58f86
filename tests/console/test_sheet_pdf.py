# SPDX-License-Identifier: Apache-2.0
"""The sheet as an encrypted PDF: it opens with its password only, and holds every code."""

import io
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pypdf
import pytest
from pypdf import PasswordType

from sparecode_node.console.kit import sheet_pdf
from sparecode_node.console.kit.sheet import Sheet
from sparecode_node.services.ambient import SystemEntropy
from sparecode_node.services.emergency.emergency_access import ShownCode
from tests.console.desk import Desk
from tests.console.paper import Page
from tests.console.test_emergency_access import in_days
from tests.services.one_node import SERIAL

SECRET = "ABCDE-FGHJK-MNPQR-STVWX"


def sheet(name: str, codes: int = 2, language: str = "en") -> Sheet:
    return Sheet(
        language=language,
        direction="rtl" if language == "ar" else "ltr",
        title="Emergency access tokencodes",
        facts=(("User", name), ("Token serial number", SERIAL)),
        rules="Each code works once.",
        codes=tuple(
            ShownCode(ordinal=number, code=f"AB{number:02}-WXYZ")
            for number in range(1, codes + 1)
        ),
        keeping="Keep this sheet.",
        issued="",
    )


def opened(content: bytes, secret: str = SECRET) -> pypdf.PdfReader:
    reader = pypdf.PdfReader(io.BytesIO(content))
    assert reader.is_encrypted
    assert reader.decrypt(secret) is not PasswordType.NOT_DECRYPTED
    return reader


@pytest.mark.asyncio
async def test_it_opens_with_the_password_only_by_aes_256() -> None:
    content = await sheet_pdf.pdf_of(sheet("Alice"), SECRET, 0)
    reader = pypdf.PdfReader(io.BytesIO(content))
    for wrong in ("", SECRET.lower(), SECRET[:-1]):
        assert reader.decrypt(wrong) is PasswordType.NOT_DECRYPTED
    encryption = reader.trailer["/Encrypt"]
    assert (encryption["/V"], encryption["/Length"]) == (5, 256)
    assert b"AB01-WXYZ" not in content
    assert "AB01-WXYZ" in opened(content).pages[0].extract_text()


@pytest.mark.asyncio
@pytest.mark.parametrize("tag", ["en", "de", "ar"])
async def test_a_screen_reader_learns_language_and_title(tag: str) -> None:
    """The window shows the title instead of the name of the file."""
    made = sheet("Alice", language=tag)
    reader = opened(await sheet_pdf.pdf_of(made, SECRET, 0))
    root = reader.trailer["/Root"]
    assert root["/Lang"] == tag
    assert root["/ViewerPreferences"]["/DisplayDocTitle"] is not False
    assert reader.metadata is not None
    assert reader.metadata.title == made.title


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["田中 有紀", "王伟", "Zoë 王"])
async def test_the_font_of_debian_has_chinese_and_japanese_letters(name: str) -> None:
    """Where fonts-droid-fallback is installed; letters of Korean are not in it."""
    if not sheet_pdf.FALLBACK.exists():
        pytest.skip("fonts-droid-fallback is missing: make system-packages")
    assert not await sheet_pdf.lacks_letters(name)
    text = opened(await sheet_pdf.pdf_of(sheet(name), SECRET, 0)).pages[0]
    assert name in text.extract_text()
    assert await sheet_pdf.lacks_letters("김민수")


@pytest.fixture
def no_fallback(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the font of Debian be missing, as on most machines."""
    monkeypatch.setattr(sheet_pdf, "FALLBACK", Path("/missing.ttf"))
    sheet_pdf._letters.cache_clear()
    yield
    sheet_pdf._letters.cache_clear()


@pytest.mark.asyncio
@pytest.mark.parametrize("codes", [1, 10, 20, 50, 100])
async def test_every_code_is_on_one_page(codes: int) -> None:
    content = await sheet_pdf.pdf_of(sheet("Alice", codes), SECRET, 0)
    (page,) = opened(content).pages
    text = page.extract_text()
    for number in range(1, codes + 1):
        assert f"AB{number:02}-WXYZ" in text


@pytest.mark.usefixtures("no_fallback")
@pytest.mark.asyncio
@pytest.mark.parametrize(
    "name", ["Zoë Müller", "Ελένη", "Наталья", "ليلى حداد", "נועה", "佐藤 (sato)", ""]
)
async def test_names_of_any_alphabet_make_a_file(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A letter that the fonts lack is a box, and is not logged."""
    with caplog.at_level(logging.WARNING):
        content = await sheet_pdf.pdf_of(sheet(name), SECRET, 0)
    text = opened(content).pages[0].extract_text()
    assert not caplog.records
    if name == "佐藤 (sato)":
        assert "□□ (sato)" in text
    elif name.isascii() or "M" in name or name in ("Ελένη", "Наталья"):
        assert name in text


def test_a_node_that_draws_no_file_does_not_load_fpdf() -> None:
    """It takes 25 MB; where numpy is installed, also a call that the unit forbids."""
    script = "import sys, sparecode_node.console.app; print('fpdf' in sys.modules)"
    done = subprocess.run(
        (sys.executable, "-c", script), capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.asyncio
async def test_a_password_is_drawn_for_each_file() -> None:
    drawn = {sheet_pdf.password(SystemEntropy()) for _ in range(50)}
    assert len(drawn) == 50
    assert all(sheet_pdf.PASSWORD.fullmatch(each) for each in drawn)


@pytest.mark.asyncio
async def test_the_page_shows_the_password_and_the_file_opens_with_it(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    browser = await desk.administrator()
    await browser.open(f"/tokens/{SERIAL}/emergency-access")
    await browser.send("Generate Codes", count="3")
    page = await browser.send("Save", **in_days(3))
    action = f"/tokens/{SERIAL}/emergency-access/sheet"
    form = page.form(f"{action}.txt")
    secret = form.value("pdf_password")
    assert secret in page.text
    with caplog.at_level(logging.DEBUG, "sparecode_node"):
        answer = await browser.client.post(f"{action}.pdf", data=dict(form.fields))
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["cache-control"] == "no-store"
    assert secret not in caplog.text
    text = opened(answer.content, secret).pages[0].extract_text()
    assert form.values("code")[-1] in text
    assert SERIAL in text
    for wrong in ("", "secret", secret.lower()):
        answer = await browser.client.post(
            f"{action}.pdf", data=dict(form.fields) | {"pdf_password": wrong}
        )
        assert answer.status_code == 422


async def saved(desk: Desk, username: str, serial: str) -> tuple[Page, str]:
    """Issue codes for a user; return the page with them, and the address of the PDF."""
    browser = await desk.administrator()
    path = f"/tokens/{serial}/emergency-access"
    await browser.open(path)
    await browser.send("Generate Codes", count="3")
    page = await browser.send("Save", **in_days(3))
    assert username in page.text
    return page, f"{path}/sheet"


async def download(desk: Desk, page: Page, address: str) -> httpx.Response:
    """Press the button of the PDF."""
    browser = await desk.administrator()
    form = dict(page.form(f"{address}.txt").fields)
    path = address.removesuffix("/sheet")
    token = (await browser.open(path)).form(path).value("form_token")
    return await browser.client.post(
        f"{address}.pdf", data=form | {"form_token": token}
    )


async def named(desk: Desk, username: str, **values: str) -> None:
    """Change a user."""
    await desk.node.users.update(
        desk.node.admin("UserService/UpdateUser"), username=username, **values
    )


@pytest.mark.asyncio
async def test_the_file_is_in_the_language_of_its_user(desk: Desk) -> None:
    """The page of the administrator is English."""
    await named(desk, "alice", language="de", display_name="Alice Ash")
    page, address = await saved(desk, "alice", SERIAL)
    assert "Saved." in page.text
    answer = await download(desk, page, address)
    secret = page.form(f"{address}.txt").value("pdf_password")
    reader = opened(answer.content, secret)
    text = reader.pages[0].extract_text()
    assert "Benutzer" in text
    assert "Emergency access tokencodes" not in text


@pytest.mark.usefixtures("no_fallback")
@pytest.mark.asyncio
async def test_a_name_without_letters_in_the_fonts_is_left_out_and_the_page_says_so(
    desk: Desk,
) -> None:
    """No box stands for a letter: the user name tells whose sheet it is."""
    await named(desk, "alice", display_name="田中 有紀")
    page, address = await saved(desk, "alice", SERIAL)
    assert "fonts lack letters of 田中 有紀, so it has the user name only" in page.text
    answer = await download(desk, page, address)
    secret = page.form(f"{address}.txt").value("pdf_password")
    text = opened(answer.content, secret).pages[0].extract_text()
    assert "alice" in text
    assert sheet_pdf.MISSING not in text
    await named(desk, "alice", display_name="Jürgen Ελένη ليلى")
    page, _address = await saved(desk, "alice", SERIAL)
    assert "fonts lack letters" not in page.text


@pytest.mark.usefixtures("no_fallback")
@pytest.mark.asyncio
async def test_a_user_name_without_letters_in_the_fonts_has_no_file(desk: Desk) -> None:
    await desk.node.add_user("田中", serial="000000000042")
    page, address = await saved(desk, "田中", "000000000042")
    assert "There is no PDF for this user" in page.text
    assert "Download as PDF with a password" not in page.buttons
    answer = await download(desk, page, address)
    assert answer.status_code == 422
    assert "print the sheet instead" in answer.text
