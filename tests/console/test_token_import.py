# SPDX-License-Identifier: Apache-2.0
"""Import of tokens in the console: rows first, then a result for each (K4)."""

import base64
import re
from pathlib import Path

import pytest

from tests.console.desk import Desk
from tests.services.one_node import SEED, SERIAL, seed_of
from tests.services.test_token_import import file_of

pytestmark = pytest.mark.asyncio

HARDWARE = Path(__file__).parents[1] / "data" / "hardware.sdtid"


def base32(seed: bytes) -> str:
    return base64.b32encode(seed).decode()


OTHER = base32(seed_of("900001"))
TEXT = (
    "serial,seed,digits,pin_rule\n"
    f"900001,{OTHER},8,prepended\n"
    f"{SERIAL},{base32(seed_of('900009'))},6,none\n"
    f"900001,{base32(seed_of('900003'))},6,none\n"
    f"900004,{base32(seed_of('900004'))},99,none\n"
    f"900005,not base 32!,6,none\n"
    f"900006,{base32(SEED)},6,none\n"
    f"900007,{base32(seed_of('900007'))},6,\n"
)


async def test_tokens_are_imported_after_a_look_at_the_rows(desk: Desk) -> None:
    """(K4, Q1) A bad row stops no other; the same form imports nothing twice."""
    browser = await desk.administrator()
    page = await browser.open("/import/tokens")
    entries = len(desk.node.replicator.entries)
    page = await browser.send("Show the rows", token_file=TEXT, pin_rule="pinpad")
    preview = page
    assert "Nothing is imported yet. 3 tokens of 7 rows can be imported" in page.text
    for words in (
        "TOTP, 8 digits",
        "PIN followed by the tokencode",
        "PIN folded into the tokencode",
        "There is a token of this serial.",
        "Row 1 of this file has the same serial.",
        "Seed is not base32.",
    ):
        assert words in page.text, words
    assert len(desk.node.replicator.entries) == entries
    page = await browser.send("Import 3 tokens")
    assert "2 tokens imported of 7 rows" in page.text  # Another token has one's seed.
    assert page.links["900001"] == "/tokens/900001"
    assert "900007" in (await browser.open("/tokens")).text
    browser.page = preview
    page = await browser.send("Import 3 tokens")
    assert "2 tokens imported of 7 rows" in page.text
    (enrolled,) = desk.node.primary_db.execute(
        "SELECT count(*) FROM audit_events "
        "WHERE action = 'EnrollToken' AND outcome = 'applied'"
    ).fetchone()
    assert enrolled == 3  # Alice has one.


async def test_no_page_returns_a_seed_or_a_password(desk: Desk) -> None:
    """(K4) Neither the rows nor a refusal; the file is sealed in between."""
    browser = await desk.administrator()
    await browser.open("/import/tokens")
    page = await browser.send("Show the rows", token_file=TEXT)
    assert OTHER not in page.response.text
    assert page.form("/import/tokens").value("draft")
    page = await browser.send("Import 2 tokens")
    assert OTHER not in page.response.text
    await browser.open("/import/tokens")
    page = await browser.send(
        "Show the rows", token_file=f"x\n{OTHER}", file_password="sesame-sesame"
    )
    assert page.status == 422
    assert OTHER not in page.response.text
    assert "sesame" not in page.response.text


async def test_files_of_manufacturers_are_recognized(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open("/import/tokens")
    page = await browser.send(
        "Show the rows",
        token_file=file_of(["77"], password="a good password").decode(),
        file_password="a good password",
        pin_rule="none",
    )
    assert "1 token of 1 row can be imported" in page.text
    page = await browser.send("Import 1 token")
    assert "1 token imported of 1 row" in page.text
    await browser.open("/import/tokens")
    page = await browser.send(
        "Show the rows", token_file=HARDWARE.read_text(), file_password="wrong"
    )
    assert page.status == 422
    assert "file_password" in page.response.text


async def test_rows_are_imported_by_their_own_administrator_and_soon(
    desk: Desk,
) -> None:
    browser = await desk.administrator()
    await browser.open("/import/tokens")
    page = await browser.send("Show the rows", token_file=TEXT)
    desk.node.clock.pass_s(16 * 60)
    again = await desk.administrator()
    shown = await again.open("/import/tokens")
    answer = await again.client.post(
        "/import/tokens",
        data={
            **dict(shown.form("/import/tokens").fields),
            "draft": page.form("/import/tokens").value("draft"),
            "action": "import",
        },
    )
    assert answer.status_code == 409
    assert "choose the file again" in answer.text
    assert "900001" not in (await again.open("/tokens")).text


@pytest.mark.parametrize(
    ("path", "field", "command"),
    [
        ("/import/tokens", "token_file", "sparecode tokens import FILE"),
        ("/import/users", "content", "sparecode users import FILE"),
    ],
)
@pytest.mark.parametrize("characters", [20_001, 60_000, 900_000])
async def test_a_file_that_is_too_long_is_refused_with_the_command_for_it(
    desk: Desk, path: str, field: str, command: str, characters: int
) -> None:
    """(K4) It is never cut: a part of its rows would be imported, and the last one wrong."""
    browser = await desk.administrator()
    page = await browser.open(path)
    heading = "serial,seed\n" if "tokens" in path else "username\n"
    content = heading + "900001,AAAA\n" * (characters // 12)
    page = await browser.send("Show the rows", **{field: content.ljust(characters)})
    assert page.status in (413, 422)
    assert "Nothing was imported" in page.text
    assert "20 000 characters" in page.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert command in page.text
    assert "can be imported" not in page.text


async def test_the_text_field_of_a_file_does_not_cut_what_is_pasted(
    desk: Desk,
) -> None:
    """With `maxlength` a browser drops the end of a pasted text and says nothing."""
    browser = await desk.administrator()
    for path in ("/import/tokens", "/import/users"):
        page = await browser.open(path)
        (field,) = re.findall(r"<textarea[^>]*>", page.response.text)
        assert "maxlength" not in field
        assert 'data-longest="20000"' in field
