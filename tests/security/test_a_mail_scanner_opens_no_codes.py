# SPDX-License-Identifier: Apache-2.0
"""
A link to codes is used up by a click on its page, and tells no one else (I13).

The attacks: scanners of mail that open links in a browser, run scripts, submit forms and
follow links, or send other methods; a link that a mail program has written otherwise; and
the next person at the tab that has shown the codes.
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Request, expect

from tests.console.desk import Desk
from tests.console.https_desk import browser_of
from tests.console.test_sealed_codes import codes_on, links_in
from tests.services.mail_server import MailServer, mail_server
from tests.services.one_node import CONSOLES, PIN
from tests.services.test_mail import create
from tests.services.test_sealed_messages import allow, let_address_age, send, waiting

pytestmark = pytest.mark.asyncio

HERE = CONSOLES[0]
SCAN = """
async () => {
  for (const form of document.forms) form.requestSubmit();
  for (const link of document.querySelectorAll("a[href], link[href], script[src]")) {
    await fetch(link.href || link.src);
  }
  for (const kind of ["load", "focus", "hashchange", "pageshow", "visibilitychange"]) {
    for (const place of [window, document]) place.dispatchEvent(new Event(kind));
  }
  for (const kind of ["mouseover", "mousemove", "focusin", "scroll", "touchstart"]) {
    for (const each of document.querySelectorAll("*")) {
      each.dispatchEvent(new Event(kind, { bubbles: true }));
    }
  }
  for (const method of ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]) {
    await fetch("/codes/open", { method });
  }
  const answer = await fetch("/codes/open", {
    method: "POST",
    body: new URLSearchParams({ opener: location.hash.slice(1), page: "scanner" }),
  });
  return answer.status;
}
"""
"""What a scanner does with a page that it has opened. It presses no button."""


@pytest_asyncio.fixture
async def mails(desk: Desk, tmp_path: Path) -> AsyncIterator[MailServer]:
    """Return the mail server of a cluster whose policy allows codes by message."""
    async with mail_server(tmp_path) as started:
        admin = desk.node.admin
        await desk.node.channels.remove(
            admin("NoticeService/RemoveChannel"), name="SIEM"
        )
        await create(desk.node, started.url)
        await desk.node.users.update(
            admin("UserService/UpdateUser"), username="alice", email="alice@example.com"
        )
        await let_address_age(desk.node)
        await allow(desk.node)
        yield started


@pytest_asyncio.fixture
async def chromium(desk: Desk, tmp_path: Path) -> AsyncIterator[Browser]:
    async with browser_of(desk, tmp_path, HERE) as browser:
        yield browser


async def new_page(chromium: Browser) -> Page:
    """Open a tab of another browser."""
    return await (await chromium.new_context(ignore_https_errors=True)).new_page()


async def press(page: Page) -> None:
    await page.get_by_role("button", name="Show the codes").click()


async def test_a_scanner_that_runs_scripts_uses_up_no_link(
    desk: Desk, mails: MailServer, chromium: Browser
) -> None:
    """(I13) It opens the whole link, and does all but press the button."""
    await send(desk.node)
    link = links_in(mails)[0]
    scanner = await new_page(chromium)
    await scanner.goto(link, wait_until="networkidle")
    assert await scanner.locator("form").count() == 0
    assert await scanner.evaluate(SCAN) == 400
    await scanner.reload(wait_until="networkidle")
    assert waiting(desk.node) == 1
    user = await new_page(chromium)
    await user.goto(link)
    await press(user)
    await expect(user.get_by_text("These are your codes")).to_be_visible()
    assert await desk.node.accepts(PIN + (await codes_on(user))[0])


async def test_the_secret_of_a_link_is_told_to_no_one(
    desk: Desk,
    mails: MailServer,
    chromium: Browser,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """(I13) No header has it, and no log, even if a mail program sends it to the node."""
    await send(desk.node)
    caplog.set_level("DEBUG")  # The mail server of the test logs mails.
    link = links_in(mails)[0]
    secret = link.partition("#")[2]
    page, asked = await new_page(chromium), list[Request]()

    def note(request: Request) -> None:
        asked.append(request)

    page.on("request", note)
    await page.goto(link)
    await press(page)
    await expect(page.get_by_text("These are your codes")).to_be_visible()
    # The browser sends what is before the `#`.
    sent = [
        f"{each.url.partition('#')[0]} {await each.all_headers()} {each.post_data}"
        for each in asked
    ]
    assert any("/codes/open" in each for each in sent)
    assert not [each for each in sent if secret in each]
    told = {(await each.all_headers()).get("referer") for each in asked}
    assert told <= {None, f"{HERE}/"}
    kept = await page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    )
    assert not [each for each in (secret, *await codes_on(page)) if each in kept]
    for changed in (link.replace("#", "%23"), link.replace("#", "?link=")):
        await (await new_page(chromium)).goto(changed)
    assert secret not in caplog.text


async def test_the_next_person_at_the_tab_sees_no_code(
    desk: Desk, mails: MailServer, chromium: Browser
) -> None:
    """
    (I13) The link is in the list of visited pages, and the minute is not over.

    The page gets the codes again if their answer was lost. It was not: they were shown.
    """
    await send(desk.node)
    link = links_in(mails)[0]
    page = await new_page(chromium)
    await page.goto(link)
    await press(page)
    await expect(page.get_by_text("These are your codes")).to_be_visible()
    codes = await codes_on(page)
    await page.goto(f"{HERE}/sign-in")
    await page.go_back()
    content = await page.content()
    assert not [each for each in codes if each in content]
    assert not re.search("#.", page.url)
    await page.goto(link)
    await press(page)
    await expect(page.get_by_text("These codes cannot be shown")).to_be_visible()
    assert await codes_on(page) == []
