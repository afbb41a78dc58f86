# SPDX-License-Identifier: Apache-2.0
"""Codes by message from the form of emergency access, with a real mail server (I13)."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from sparecode_node.domain.administrators import Role
from sparecode_node.services.notices import mail
from tests.console import test_sealed_codes
from tests.console.desk import Desk
from tests.console.https_desk import browser_of
from tests.console.test_emergency_access import PAGE, in_days
from tests.console.test_sealed_codes import (
    DESKTOP,
    HERE,
    PHONE,
    put_manager,
    serious,
)
from tests.long import long
from tests.services.mail_server import MailServer
from tests.services.one_node import PASSWORD, PIN, ROOT
from tests.services.test_administrators import OWN, settled
from tests.services.test_mail import create
from tests.services.test_sealed_messages import allow, link_in, opened, waiting

pytestmark = pytest.mark.asyncio

mails = test_sealed_codes.mails
BY_MESSAGE = {"kind": "message"}
ALICE, BOSS = "alice @example.com", "boss @example.com"
"""As the text of a page has it: a line may break before the `@`."""


@pytest_asyncio.fixture
async def chromium(desk: Desk, tmp_path: Path) -> AsyncIterator[Browser]:
    async with browser_of(desk, tmp_path, HERE) as browser:
        yield browser


async def test_saving_mails_the_link_and_shows_no_code(
    desk: Desk, mails: MailServer
) -> None:
    """(I13, I9) In one step, without a script; the codes that the user opens work."""
    browser = await desk.administrator()
    page = await browser.open(PAGE)
    assert f"by message to {ALICE}" in page.text
    page = await browser.send("Save", tick=BY_MESSAGE, count="3", **in_days(6))
    assert page.status == 200, page.text
    assert page.codes == []
    assert f"The mail server has taken the mail with the link for {ALICE}" in page.text
    assert "Tell the user to open the mail" in page.text
    assert "Void unless opened by 2023-11-17 23:13 UTC in 1 hour" in page.text
    assert "Valid until 2023-11-" in page.text
    link = link_in(mails)
    got = await opened(desk.node, link)
    assert got is not None
    codes = link.decrypt(got)
    assert len(codes) == 3
    assert not any(code in page.response.text for code in codes)
    assert await desk.node.accepts(PIN + codes[0])


async def test_codes_that_go_by_message_are_not_generated(
    desk: Desk, mails: MailServer
) -> None:
    """(I13) The Enter key presses *Generate Codes* where there is no script."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Generate Codes", tick=BY_MESSAGE, count="3")
    assert page.status == 422
    assert page.codes == []
    assert "Press “Save” to mail them." in page.text
    assert mails.mails == []


async def test_a_mail_that_is_refused_is_told_with_its_cause(
    desk: Desk, mails: MailServer
) -> None:
    """(I13) The codes are void, and the page says what to do."""
    mails.answers["RCPT"] = "550 no"
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Save", tick=BY_MESSAGE, count="3", **in_days(6))
    assert f"Not sent. The mail server has not taken the mail for {ALICE}" in page.text
    assert "answered 550 to RCPT" in page.text
    assert "Correct the address or the channel" in page.text
    assert "Void unless opened by" not in page.text
    assert waiting(desk.node) == 0


async def test_a_mail_that_was_perhaps_sent_is_told(
    desk: Desk, mails: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I13) And so is the same form, sent again: it sends no second mail."""
    monkeypatch.setattr(mail, "COMMAND_S", 4.0)
    mails.answers["DATA"] = "HANG"
    browser = await desk.administrator()
    form = await browser.open(PAGE)
    page = await browser.send("Save", tick=BY_MESSAGE, count="3", **in_days(6))
    assert "Perhaps sent. The mail server may have taken the mail" in page.text
    assert "Ask the user whether the mail has arrived" in page.text
    assert "Void unless opened by" in page.text
    del mails.answers["DATA"]
    browser.page = form
    page = await browser.send("Save", tick=BY_MESSAGE, count="3", **in_days(6))
    assert "Perhaps sent. An earlier request issued these codes" in page.text
    assert mails.mails == []


async def test_the_form_says_why_codes_cannot_go_by_message(
    desk: Desk, mails: MailServer
) -> None:
    """(I13) A forged choice is refused."""
    browser, node = await desk.administrator(), desk.node

    async def told(words: str) -> None:
        page = await browser.open(PAGE)
        assert f"One-Time Tokencodes by message {words}" in page.text
        assert 'id="kind-message" disabled' in page.response.text
        page = await browser.send("Save", kind="message", count="3", **in_days(6))
        assert page.status == 409, page.text
        assert waiting(node) == 0

    async def address(email: str) -> None:
        await node.users.update(
            node.admin("UserService/UpdateUser"), username="alice", email=email
        )

    await address("mallory@example.com")
    await told("The user’s address was set or changed within the last 72 hours.")
    await address("")
    await told("The user has no address on file.")
    await node.channels.remove(node.admin("NoticeService/RemoveChannel"), name="siem")
    await told("No channel for mail is enabled that encrypts its connection.")
    await create(
        node, "smtp+cleartext://127.0.0.1:1", login="", secret="", authority=""
    )
    await told("No channel for mail is enabled that encrypts its connection.")
    await allow(node, allowed=False)
    await told("The policy does not allow it.")
    assert mails.mails == []


async def test_the_manager_can_be_chosen(desk: Desk, mails: MailServer) -> None:
    """(I13) If the policy allows it; the answer says to whom the codes went."""
    browser, to_manager = await desk.administrator(), {"kind": "manager"}
    page = await browser.open(PAGE)
    assert "to the manager" not in page.text
    page = await browser.send("Save", kind="manager", count="3", **in_days(6))
    assert page.status == 409, page.text
    assert "codes_by_message and codes_to_manager do not allow it" in page.text
    await put_manager(desk)
    browser = await desk.administrator()
    page = await browser.open(PAGE)
    assert f"by message to the manager, {BOSS}" in page.text
    page = await browser.send("Generate Codes", tick=to_manager, count="3")
    assert "Press “Save” to mail them." in page.text
    page = await browser.send("Save", tick=to_manager, count="3", **in_days(9))
    assert page.status == 200, page.text
    assert page.codes == []
    assert f"The mail server has taken the mail with the link for {BOSS}" in page.text
    assert "Tell the manager to open the mail" in page.text
    assert f"Manager {BOSS}" in page.text
    link = link_in(mails)
    got = await opened(desk.node, link)
    assert got is not None
    assert await desk.node.accepts(PIN + link.decrypt(got)[0])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"RCPT": "550 no"}, "Correct the address or the channel"),
        ({"DATA": "HANG"}, "Ask the manager whether the mail has arrived"),
    ],
)
async def test_a_mail_to_a_manager_that_is_not_sent_is_told(
    desk: Desk,
    mails: MailServer,
    monkeypatch: pytest.MonkeyPatch,
    answer: dict[str, str],
    words: str,
) -> None:
    monkeypatch.setattr(mail, "COMMAND_S", 4.0)
    mails.answers.update(answer)
    await put_manager(desk)
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Save", tick={"kind": "manager"}, **in_days(9))
    assert words in page.text
    assert BOSS in page.text


async def test_the_form_says_why_codes_cannot_go_to_the_manager(
    desk: Desk, mails: MailServer
) -> None:
    """(I13) A forged choice is refused, beside the choice."""
    await allow(desk.node, to_manager=True)
    browser = await desk.administrator()
    page = await browser.open(PAGE)
    assert "by message to the manager The user has no manager on file." in page.text
    assert 'id="kind-manager" disabled' in page.response.text
    page = await browser.send("Save", kind="manager", count="3", **in_days(6))
    assert page.status == 409
    assert "alice has no manager on file" in page.text
    await desk.node.users.update(
        desk.node.admin("UserService/UpdateUser"),
        username="alice",
        manager_email="boss@example.com",
    )
    page = await browser.open(PAGE)
    assert "The manager’s address was set or changed within the last 72" in page.text
    assert mails.mails == []


@pytest.mark.parametrize(
    ("tag", "choice", "answer"),
    [
        ("de", "Führungskraft, boss", "Bitten Sie die Führungskraft"),
        ("ar", "المدير", "المدير"),
    ],
)
async def test_the_choice_of_the_manager_is_in_the_language_of_the_page(
    desk: Desk, mails: MailServer, tag: str, choice: str, answer: str
) -> None:
    await put_manager(desk)
    browser = await desk.administrator()
    browser.client.headers["accept-language"] = tag
    page = await browser.open(PAGE)
    assert choice in page.text
    assert "manager" not in page.text
    save = "Speichern" if tag == "de" else "حفظ"
    page = await browser.send(save, tick={"kind": "manager"}, **in_days(9))
    assert answer in page.text
    assert "manager" not in page.text
    assert len(mails.mails) == 1


async def test_an_approver_reads_on_the_page_to_whom_codes_go(
    desk: Desk, mails: MailServer
) -> None:
    """(P3, I13) By message, and to which address. The author is shown no code."""
    await put_manager(desk)
    await settled(desk.node, Role.SUPER_ADMIN)
    author = await desk.administrator()
    for kind in ("message", "manager"):
        await author.open(PAGE)
        page = await author.send("Save", tick={"kind": kind}, **in_days(9))
        assert page.status == 409, page.text
        assert "another super administrator must approve" in page.text
    approver = await desk.administrator("dora", OWN)
    page = await approver.open("/approvals")
    assert "by message to the user The codes go by message to alice" in page.text
    assert (
        "by message to the user’s manager The codes go by message to boss" in page.text
    )
    assert "root does not see them." in page.text
    assert mails.mails == []


@pytest.mark.parametrize(
    ("tag", "choice", "answer"),
    [("de", "Nachricht an", "Gesendet."), ("ar", "برسالة إلى", "أُرسلت.")],
)
async def test_the_choice_and_its_answer_are_in_the_language_of_the_page(
    desk: Desk, mails: MailServer, tag: str, choice: str, answer: str
) -> None:
    browser = await desk.administrator()
    browser.client.headers["accept-language"] = tag
    page = await browser.open(PAGE)
    assert choice in page.text
    save = "Speichern" if tag == "de" else "حفظ"
    page = await browser.send(save, tick=BY_MESSAGE, count="3", **in_days(6))
    assert answer in page.text
    assert len(mails.mails) == 1


@pytest.mark.parametrize("scheme", ["light", *long(["dark"])])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_the_manager_is_chosen_by_keyboard_and_axe_finds_nothing(
    desk: Desk,
    mails: MailServer,
    chromium: Browser,
    tmp_path: Path,
    size: dict[str, Any],
    scheme: Any,
) -> None:
    await put_manager(desk)
    context = await chromium.new_context(
        ignore_https_errors=True, color_scheme=scheme, **size
    )
    page = await context.new_page()
    await sign_in(page)
    await page.goto(f"{HERE}{PAGE}")
    await page.locator("#kind-message").focus()
    await page.keyboard.press("ArrowDown")
    await expect(page.locator("#kind-manager")).to_be_checked()
    await expect(page.locator("#generate")).to_be_hidden()
    assert await serious(page) == []
    await page.screenshot(path=tmp_path / "manager-form.png", full_page=True)
    await page.locator("#save").press("Enter")
    await expect(page.get_by_text("Tell the manager to open")).to_be_visible()
    assert await serious(page) == []
    assert await page.evaluate(
        "document.documentElement.scrollWidth <= window.innerWidth"
    )
    await page.screenshot(path=tmp_path / "manager-sent.png", full_page=True)
    assert len(mails.mails) == 1


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_the_keyboard_sends_codes_and_axe_finds_nothing(
    desk: Desk,
    mails: MailServer,
    chromium: Browser,
    tmp_path: Path,
    size: dict[str, Any],
) -> None:
    """What belongs to shown codes goes away, and nothing is wider than the screen."""
    context = await chromium.new_context(ignore_https_errors=True, **size)
    page = await context.new_page()
    await sign_in(page)
    await page.goto(f"{HERE}{PAGE}")
    await page.locator("#kind-set").focus()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await expect(page.locator("#kind-message")).to_be_checked()
    await expect(page.locator("#generate")).to_be_hidden()
    await expect(page.locator("#count")).to_be_visible()
    await expect(page.get_by_label("No expiration")).to_be_visible()
    assert await serious(page) == []
    await page.screenshot(path=tmp_path / "form.png", full_page=True)
    await page.locator("#save").press("Enter")
    await expect(page.get_by_text("What to do next")).to_be_visible()
    assert await page.locator("[role=status]").first.evaluate(
        "each => each === document.activeElement"
    )
    assert await serious(page) == []
    assert await page.evaluate(
        "document.documentElement.scrollWidth <= window.innerWidth"
    )
    await page.screenshot(path=tmp_path / "sent.png", full_page=True)
    assert len(mails.mails) == 1


async def sign_in(page: Page) -> None:
    await page.goto(f"{HERE}/sign-in")
    await page.locator("[name=administrator]").fill(ROOT)
    await page.locator("[name=password]").fill(PASSWORD)
    await page.locator("[name=password]").press("Enter")
    await page.wait_for_url(lambda url: "/sign-in" not in url)
