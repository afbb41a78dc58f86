# SPDX-License-Identifier: Apache-2.0
"""The page of a link to sealed codes, in a browser without a session (I13)."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.sync_playwright import Axe
from playwright.async_api import Browser, Page, expect

from sparecode_node.services.load.rates import RateLimits
from tests.console.desk import Desk
from tests.console.desk import desk as open_desk
from tests.console.https_desk import browser_of
from tests.long import long
from tests.services.mail_server import MailServer, mail_server
from tests.services.one_node import CONSOLES, PIN
from tests.services.test_mail import create
from tests.services.test_sealed_messages import allow, let_address_age, send, waiting

pytestmark = pytest.mark.asyncio

HERE, ELSEWHERE = CONSOLES[0], CONSOLES[2]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
DESKTOP = {"viewport": {"width": 1280, "height": 900}}

LOSE_FIRST_ANSWER = """
    const fetched = window.fetch;
    let lost = false;
    window.fetch = async (...args) => {
      const answer = await fetched(...args);
      if (lost) return answer;
      lost = true;
      throw new TypeError("the answer is lost");
    };
"""


@pytest_asyncio.fixture
async def mails(desk: Desk, tmp_path: Path) -> AsyncIterator[MailServer]:
    """Return the mail server of a cluster whose policy allows codes by message."""
    async with mail_server(tmp_path) as started:
        await desk.node.channels.remove(
            desk.node.admin("NoticeService/RemoveChannel"), name="SIEM"
        )
        await create(desk.node, started.url)
        await desk.node.users.update(
            desk.node.admin("UserService/UpdateUser"),
            username="alice",
            email="alice@example.com",
        )
        await let_address_age(desk.node)
        await allow(desk.node)
        yield started


async def put_manager(desk: Desk, email: str = "boss@example.com") -> None:
    """Put a manager on file long ago, to whom the policy lets codes go."""
    await desk.node.users.update(
        desk.node.admin("UserService/UpdateUser"), username="alice", manager_email=email
    )
    await let_address_age(desk.node)
    await allow(desk.node, to_manager=True)


@pytest_asyncio.fixture
async def chromium(desk: Desk, tmp_path: Path) -> AsyncIterator[Browser]:
    async with browser_of(desk, tmp_path, HERE, ELSEWHERE) as browser:
        yield browser


def links_in(server: MailServer) -> list[str]:
    """Return the links of the last mail."""
    body = server.mails[-1].get_body(("plain",))
    assert body is not None
    return re.findall(r"^https://\S+", body.get_content(), re.MULTILINE)


async def serious(page: Page) -> list[str]:
    """Return what axe finds."""
    await page.evaluate(Axe().axe_script)
    found = await page.evaluate("axe.run(document)")
    return [f"{each['id']}: {each['help']}" for each in found["violations"]]


async def codes_on(page: Page) -> list[str]:
    return await page.locator("#codes .code").all_inner_texts()


@pytest.mark.parametrize("scheme", ["light", *long(["dark"])])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_a_click_shows_the_codes_once(
    desk: Desk,
    mails: MailServer,
    chromium: Browser,
    tmp_path: Path,
    size: dict[str, Any],
    scheme: Any,
) -> None:
    """(I13) On any console; no address holds the secret, and axe finds nothing."""
    await send(desk.node, count=10)
    link, _, elsewhere = links_in(mails)
    secret = link.partition("#")[2]
    context = await chromium.new_context(
        ignore_https_errors=True, color_scheme=scheme, **size
    )
    page = await context.new_page()
    asked: list[str] = []
    page.on("request", lambda each: asked.append(each.url + (each.post_data or "")))
    await page.goto(elsewhere)
    await expect(page.get_by_role("button", name="Show the codes")).to_be_enabled()
    assert waiting(desk.node) == 1
    assert await serious(page) == []
    await page.screenshot(path=tmp_path / "closed.png")
    await page.get_by_role("button", name="Show the codes").click()
    await expect(page.get_by_text("These are your codes")).to_be_visible()
    codes = await codes_on(page)
    assert len(codes) == 10
    assert await desk.node.accepts(PIN + codes[0])
    assert await serious(page) == []
    assert secret not in page.url
    assert await page.evaluate(
        "document.documentElement.scrollWidth <= window.innerWidth"
    )
    await page.screenshot(path=tmp_path / "opened.png", full_page=True)
    # The browser's address before `#` is all that a server sees.
    assert not [each for each in asked if secret in each.partition("#")[0]]
    assert not [each for each in asked for code in codes if code in each]
    second = await (await chromium.new_context(ignore_https_errors=True)).new_page()
    await second.goto(link)
    await second.get_by_role("button", name="Show the codes").click()
    await expect(second.get_by_text("These codes cannot be shown")).to_be_visible()
    assert await codes_on(second) == []
    assert await serious(second) == []
    await page.emulate_media(media="print")
    assert await page.locator(".sheet .code").first.is_visible()
    assert not await page.locator(".sealed").is_visible()


async def test_a_reader_of_links_opens_nothing(desk: Desk, mails: MailServer) -> None:
    """(I13) Gateways for mail follow links: the page has no code, and changes nothing."""
    await send(desk.node)
    browser = await desk.browser()
    page = await browser.open("/codes")
    assert page.status == 200
    assert page.response.headers["cache-control"] == "no-store"
    assert "script-src 'self'" in page.response.headers["content-security-policy"]
    head = await browser.client.head("/codes")
    assert head.status_code == 200
    assert (await browser.client.get("/codes/open")).status_code == 405
    for body in (
        "",
        "{}",
        "[]",
        "[" * 60_000,
        '{"opener": 1, "page": 2}',
        '{"opener": "x"}',
    ):
        answer = await browser.client.post("/codes/open", content=body)
        assert answer.status_code == 400
    guess = {"opener": "A" * 43, "page": "B" * 22}
    assert (await browser.client.post("/codes/open", json=guess)).status_code == 410
    other = {"origin": "https://mallory.example", "sec-fetch-site": "cross-site"}
    answer = await browser.client.post("/codes/open", json=guess, headers=other)
    assert answer.status_code == 400
    assert waiting(desk.node) == 1


async def test_a_page_whose_answer_was_lost_asks_again(
    desk: Desk, mails: MailServer, chromium: Browser
) -> None:
    """(I13) For a minute the same page gets the codes."""
    await send(desk.node)
    page = await (await chromium.new_context(ignore_https_errors=True)).new_page()
    await page.add_init_script(LOSE_FIRST_ANSWER)
    await page.goto(links_in(mails)[0])
    await page.get_by_role("button", name="Show the codes").click()
    await expect(page.get_by_text("There was no answer")).to_be_visible()
    await page.get_by_role("button", name="Show the codes").click()
    await expect(page.get_by_text("These are your codes")).to_be_visible()
    assert len(await codes_on(page)) == 3


@pytest.mark.parametrize("scheme", ["light", *long(["dark"])])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
async def test_the_page_tells_a_manager_to_hand_the_codes_over(
    desk: Desk,
    mails: MailServer,
    chromium: Browser,
    tmp_path: Path,
    size: dict[str, Any],
    scheme: Any,
) -> None:
    """(I13) It names the user, and is in the words of a manager."""
    await put_manager(desk)
    await send(desk.node, to_manager=True)
    context = await chromium.new_context(
        ignore_https_errors=True, color_scheme=scheme, **size
    )
    page = await context.new_page()
    await page.goto(links_in(mails)[0])
    await expect(page.get_by_text("Give them to the user in person")).to_be_visible()
    await expect(page.get_by_text("Emergency codes for a user you m")).to_be_visible()
    assert await serious(page) == []
    await page.screenshot(path=tmp_path / "manager-closed.png")
    await page.get_by_role("button", name="Show the codes").click()
    await expect(page.get_by_text("These are the codes.")).to_be_visible()
    await expect(page.locator("#sealed-opened dl").get_by_text("alice")).to_be_visible()
    assert len(await codes_on(page)) == 3
    assert await serious(page) == []
    await page.screenshot(path=tmp_path / "manager-opened.png", full_page=True)


async def test_a_page_that_is_left_forgets_the_codes(
    desk: Desk, mails: MailServer, chromium: Browser
) -> None:
    """(I13) A browser may keep a page that was left, and show it again."""
    await send(desk.node)
    page = await (await chromium.new_context(ignore_https_errors=True)).new_page()
    await page.goto(links_in(mails)[0])
    await page.get_by_role("button", name="Show the codes").click()
    await expect(page.locator("#codes .code")).to_have_count(3)
    codes = await codes_on(page)
    await page.evaluate(
        "dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))"
    )
    content = await page.content()
    assert not [each for each in codes if each in content]
    await expect(page.locator(".sheet")).to_have_count(0)


async def test_malformed_calls_of_the_page_count_in_a_rate(tmp_path: Path) -> None:
    """(I13, L7) As guesses do: an address has one rate for all that it sends."""
    guess = {"opener": "A" * 43, "page": "B" * 22}
    async with open_desk(tmp_path, RateLimits(session=10)) as limited:
        browser = await limited.browser()
        for content in ("{}", "[]", json.dumps(guess)):
            other = {"origin": "https://mallory.example", "sec-fetch-site": ""}
            answers = [
                await browser.client.post("/codes/open", content=content, headers=other)
                for _ in range(150)
            ]
            codes = [each.status_code for each in answers]
            first = codes.index(503)
            assert codes == [400] * first + [503] * (150 - first)
            answer = await browser.client.post("/codes/open", json=guess)
            assert answer.status_code == 503
            limited.node.clock.pass_s(3600)


@pytest.mark.parametrize(
    ("tag", "words"), [("de", "Codes anzeigen"), ("ar", "عرض الرموز")]
)
async def test_the_page_is_in_the_language_of_its_user(
    desk: Desk, mails: MailServer, chromium: Browser, tag: str, words: str
) -> None:
    """(I13) As the sheet is, whatever the browser's language."""
    await desk.node.users.update(
        desk.node.admin("UserService/UpdateUser"), username="alice", language=tag
    )
    await send(desk.node)
    page = await (await chromium.new_context(ignore_https_errors=True)).new_page()
    await page.goto(links_in(mails)[0])
    assert await page.locator("html").get_attribute("lang") == tag
    await page.get_by_role("button", name=words).click()
    await expect(page.locator("#codes .code")).to_have_count(3)
    assert await page.locator("#sealed-opened").get_attribute("lang") == tag


async def test_without_a_script_the_page_says_what_to_do(
    desk: Desk, mails: MailServer, chromium: Browser
) -> None:
    """(I13) The link still works afterwards."""
    await send(desk.node)
    context = await chromium.new_context(
        ignore_https_errors=True, java_script_enabled=False
    )
    page = await context.new_page()
    await page.goto(links_in(mails)[0])
    await expect(page.get_by_text("This page needs a script")).to_be_visible()
    assert waiting(desk.node) == 1
