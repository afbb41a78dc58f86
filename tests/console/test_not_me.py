# SPDX-License-Identifier: Apache-2.0
"""The page "This was not me" of a link in a notice, without a session (N9)."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.console.desk import Desk
from tests.console.https_desk import browser_of
from tests.console.test_sealed_codes import DESKTOP, PHONE, serious
from tests.services.mail_server import MailServer, mail_server
from tests.services.one_node import CONSOLES
from tests.services.test_alarms import deliver, events, links_to
from tests.services.test_mail import ALICE, create, ending

pytestmark = pytest.mark.asyncio

BUTTON = "Tell the help desk"


@pytest_asyncio.fixture
async def mails(desk: Desk, tmp_path: Path) -> AsyncIterator[MailServer]:
    """Return a mail server that has the notice of codes issued for Alice."""
    async with mail_server(tmp_path) as started, ending(desk.node):
        await desk.node.channels.remove(
            desk.node.admin("NoticeService/RemoveChannel"), name="SIEM"
        )
        await create(desk.node, started.url)
        await desk.node.users.update(
            desk.node.admin("UserService/UpdateUser"), username="alice", email=ALICE
        )
        await deliver(desk.node, started)
        await desk.node.issue()
        await deliver(desk.node, started)
        yield started


@pytest_asyncio.fixture
async def chromium(desk: Desk, tmp_path: Path) -> AsyncIterator[Browser]:
    async with browser_of(desk, tmp_path, *CONSOLES[:2]) as browser:
        yield browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_a_click_tells_the_help_desk(
    desk: Desk,
    mails: MailServer,
    chromium: Browser,
    tmp_path: Path,
    size: dict[str, Any],
    scheme: Any,
) -> None:
    """(N9) On any console, without a script; administrators see it at once."""
    first, elsewhere = links_to(mails, ALICE)
    context = await chromium.new_context(
        ignore_https_errors=True, color_scheme=scheme, **size
    )
    page = await context.new_page()
    await page.goto(elsewhere)
    assert await serious(page) == []
    await page.screenshot(path=tmp_path / "asked.png")
    assert events(desk.node, "RaiseAlarm") == []
    await page.get_by_role("button", name=BUTTON).click()
    await expect(page.get_by_text("The help desk has been told")).to_be_visible()
    assert await serious(page) == []
    assert await page.evaluate(
        "document.documentElement.scrollWidth <= window.innerWidth"
    )
    await page.screenshot(path=tmp_path / "told.png")
    without_script = await chromium.new_context(
        ignore_https_errors=True, java_script_enabled=False
    )
    page = await without_script.new_page()
    await page.goto(first)
    await page.get_by_role("button", name=BUTTON).click()
    await expect(page.get_by_text("The help desk has been told")).to_be_visible()
    assert len(events(desk.node, "RaiseAlarm")) == 1
    administrator = await desk.administrator()
    for path in ("/", "/users/alice"):
        shown = await administrator.open(path)
        assert "This was not me" in shown.text
        assert "codes_issued" in shown.text


async def test_a_reader_of_links_changes_nothing(desk: Desk, mails: MailServer) -> None:
    """(N9) Nor does another site's form, or what is no link of this cluster."""
    parts = urlsplit(links_to(mails, ALICE)[0])
    path = f"{parts.path}?{parts.query}"
    browser = await desk.browser()
    entries = len(desk.node.replicator.entries)
    page = await browser.open(path)
    assert page.status == 200
    assert page.response.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in page.response.headers["content-security-policy"]
    assert (await browser.client.head(path)).status_code == 200
    for method in ("PUT", "DELETE", "OPTIONS"):
        assert (await browser.client.request(method, path)).status_code == 405
    form = {"content-type": "application/x-www-form-urlencoded"}
    content = parts.query.encode()
    other = {"origin": "https://mallory.example", "sec-fetch-site": "cross-site"}
    for headers, body, status in (
        (form | other, content, 400),
        (form, b"", 410),
        (form, b"token=AAAA", 410),
        (form, "token=é".encode(), 400),
        (form, b"token=" + b"A" * 100_000, 400),
    ):
        answer = await browser.client.post(parts.path, content=body, headers=headers)
        assert answer.status_code == status
    assert len(desk.node.replicator.entries) == entries
    answer = await browser.client.post(parts.path, content=content, headers=form)
    assert answer.status_code == 200
    assert len(events(desk.node, "RaiseAlarm")) == 1


@pytest.mark.parametrize(
    ("tag", "words"),
    [("de", "Dem Helpdesk sagen"), ("ar", "أخبر مكتب المساعدة")],
)
async def test_the_page_is_in_the_language_of_its_user(
    desk: Desk, mails: MailServer, chromium: Browser, tag: str, words: str
) -> None:
    """(N9) As the mail is, before the click and after it."""
    await desk.node.users.update(
        desk.node.admin("UserService/UpdateUser"), username="alice", language=tag
    )
    await desk.node.issue()
    await deliver(desk.node, mails)
    (link, *_) = next(
        links_to(mails, each) for each in {str(each["To"]) for each in mails.mails}
    )
    page = await (await chromium.new_context(ignore_https_errors=True)).new_page()
    await page.goto(link)
    assert await page.locator("html").get_attribute("lang") == tag
    await page.get_by_role("button", name=words).click()
    await expect(page.get_by_role("status")).to_be_visible()
    assert await page.locator("html").get_attribute("lang") == tag
    assert await serious(page) == []
