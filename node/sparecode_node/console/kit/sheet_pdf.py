# SPDX-License-Identifier: Apache-2.0
"""
The sheet of codes as an encrypted PDF (AES-256), to send by a channel that is not trusted.

The password is on the page with the codes and nowhere else; it goes another way, such
as by phone.
"""

import asyncio
import datetime as dt
import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

from sparecode_node.console.kit.sheet import Sheet
from sparecode_node.services.ambient import Entropy

if TYPE_CHECKING:
    from fpdf import FPDF
    from fpdf.fonts import TTFFont

FOLDER: Final = Path(__file__).parents[1] / "fonts"
FONTS: Final = {
    "": FOLDER / "DejaVuSans.ttf",
    "B": FOLDER / "DejaVuSans-Bold.ttf",
    "mono": FOLDER / "DejaVuSansMono-Bold.ttf",
}
"""Latin, Greek, Cyrillic, Arabic, Hebrew, Armenian, Georgian; fetched with the assets."""
FALLBACK: Final = Path("/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf")
"""Chinese, Japanese, Korean: Debian's fonts-droid-fallback (4 MB), if it is installed."""
SYMBOLS: Final = "23456789ABCDEFGHJKMNPQRSTVWXYZ"
"""30 symbols, as easy to tell by phone as a code."""
GROUPS: Final = 4
GROUP: Final = 5
"""20 symbols have 98 bits: a found file is not opened by guessing."""
PASSWORD: Final = re.compile(
    rf"[{SYMBOLS}]{{{GROUP}}}(-[{SYMBOLS}]{{{GROUP}}}){{{GROUPS - 1}}}"
)
CJK: Final = 0x2E80
"""The first letter of those alphabets."""
MISSING: Final = "□"
_LOOKS: Final = ((20, (2, 10.0, 15)), (60, (3, 8.0, 12)), (10**9, (4, 6.5, 10)))
"""Columns, height of a row in mm and size of letters, by the most codes."""
_one_at_a_time = asyncio.Semaphore(1)


def password(entropy: Entropy) -> str:
    """Draw a password for one file."""
    drawn = entropy.choices(SYMBOLS, GROUPS * GROUP)
    return "-".join(drawn[at : at + GROUP] for at in range(0, len(drawn), GROUP))


async def pdf_of(sheet: Sheet, secret: str, made_at_ms: int) -> bytes:
    """
    Return the file, which opens with the password *secret*.

    It takes half a second of a processor: one at a time, beside the event loop.
    """
    async with _one_at_a_time:
        return await asyncio.to_thread(_draw, sheet, secret, made_at_ms)


async def lacks_letters(text: str) -> bool:
    """Return whether the fonts lack a letter of a text, such as a Chinese one."""
    if text.isascii():
        return False
    letters = await asyncio.to_thread(_letters)
    return any(ord(each) not in letters for each in text)


@functools.cache
def _letters() -> frozenset[int]:
    """Return the letters that all styles have, or the fallback. It takes a moment, once."""
    from fpdf import FPDF  # noqa: PLC0415 - As below.

    pdf = FPDF()
    known = []
    for style in ("", "B"):
        pdf.add_font("sans", style, FONTS[style])
        pdf.set_font("sans", style)
        font = cast("TTFFont", pdf.current_font)
        known.append(frozenset(font.cmap))
        font.close()  # Nothing is drawn, which would close its file.
    further: frozenset[int] = frozenset()
    if FALLBACK.exists():
        pdf.add_font("fallback", "", FALLBACK)
        pdf.set_font("fallback")
        font = cast("TTFFont", pdf.current_font)
        further = frozenset(font.cmap)
        font.close()
    return known[0] & known[1] | further


def _needs_fallback(sheet: Sheet) -> bool:
    """Return whether a text of the sheet has letters that DejaVu has not."""
    texts = (sheet.title, sheet.rules, sheet.keeping, sheet.issued)
    return any(
        ord(letter) >= CJK
        for text in (*texts, *(word for fact in sheet.facts for word in fact))
        for letter in text
    )


def _draw(sheet: Sheet, secret: str, made_at_ms: int) -> bytes:
    # With the first file: fpdf takes 25 MB, and most nodes never draw one.
    from fpdf import FPDF  # noqa: PLC0415
    from fpdf.enums import AccessPermission, EncryptionMethod  # noqa: PLC0415
    from fpdf.output import OutputProducer, PDFCatalog  # noqa: PLC0415
    from fpdf.prefs import ViewerPreferences  # noqa: PLC0415
    from fpdf.syntax import PDFString  # noqa: PLC0415

    pdf = FPDF(format="A4")
    pdf.alias_nb_pages("")  # A name with `{nb}` is no number of pages.
    pdf.set_encryption(
        owner_password=secret,
        user_password=secret,
        encryption_method=EncryptionMethod.AES_256,
        permissions=AccessPermission.all(),
        encrypt_metadata=True,
    )
    pdf.set_creation_date(dt.datetime.fromtimestamp(made_at_ms / 1000, dt.UTC))
    pdf.set_title(sheet.title)
    pdf.viewer_preferences = ViewerPreferences(display_doc_title=True)
    for style in ("", "B"):
        pdf.add_font("sans", style, FONTS[style])
    pdf.add_font("mono", "", FONTS["mono"])
    if FALLBACK.exists() and _needs_fallback(sheet):
        for style in ("", "B"):
            pdf.add_font("fallback", style, FALLBACK)
        pdf.set_fallback_fonts(["fallback"])
    pdf.set_text_shaping(use_shaping_engine=True)
    pdf.set_margin(18)
    pdf.add_page()
    begin = "R" if sheet.direction == "rtl" else "L"
    _lines(pdf, sheet.title, begin, size=20, style="B", after=5)
    for name, value in sheet.facts:
        _lines(pdf, name, begin, size=9, gray=90)
        _lines(pdf, value, begin, size=12, style="B", after=1.5)
    pdf.ln(3)
    _lines(pdf, sheet.rules, begin, after=4)
    _codes(pdf, sheet)
    _lines(pdf, sheet.keeping, begin, size=9, gray=60)
    _lines(pdf, sheet.issued, begin, size=9, gray=60)

    class Producer(OutputProducer):
        """Encrypts the language, too: fpdf leaves it plain, and no reader then finds it."""

        def _add_catalog(self) -> PDFCatalog:
            catalog = super()._add_catalog()
            catalog.lang = PDFString(sheet.language, encrypt=True)
            return catalog

    return bytes(pdf.output(output_producer_class=Producer))


def _lines(
    pdf: "FPDF",
    text: str,
    align: str,
    *,
    size: float = 11,
    style: str = "",
    gray: int = 0,
    after: float = 0,
) -> None:
    """Write a text over the whole width, wrapped at words."""
    pdf.set_font("sans", style, size)
    pdf.set_text_color(gray)
    pdf.multi_cell(
        0,
        size * 0.5,
        _shown(pdf, text),
        align=align,
        new_x="LMARGIN",
        new_y="NEXT",
    )
    pdf.set_text_color(0)
    pdf.ln(after)


def _codes(pdf: "FPDF", sheet: Sheet) -> None:
    """Write the codes in columns, each with a box to tick off; read downwards."""
    columns, height, size = next(
        look for most, look in _LOOKS if len(sheet.codes) <= most
    )
    rows = -(-len(sheet.codes) // columns)
    width = pdf.epw / columns
    if pdf.will_page_break(rows * height):
        pdf.add_page()  # Below long names: a list is not torn in two.
    top = pdf.get_y()
    for place, code in enumerate(sheet.codes):
        column, row = divmod(place, rows)
        x, y = pdf.l_margin + column * width, top + row * height
        pdf.rect(x, y + height / 2 - 2, 4, 4, round_corners=True, corner_radius=0.6)
        pdf.set_font("sans", "", 8)
        pdf.set_xy(x + 5, y)
        pdf.cell(7, height, str(code.ordinal), align="R")
        pdf.set_font("mono", "", size)
        pdf.cell(width - 13, height, code.code)
    pdf.set_xy(pdf.l_margin, top + rows * height + 5)


def _shown(pdf: "FPDF", text: str) -> str:
    """Return a text with a box for each letter that the present font lacks."""
    known = [getattr(pdf.current_font, "cmap", {})]
    if "fallback" in pdf.fonts:
        known.append(cast("TTFFont", pdf.fonts["fallback"]).cmap)
    return "".join(
        each if any(ord(each) in letters for letters in known) else MISSING
        for each in text
    )
