# SPDX-License-Identifier: Apache-2.0
"""
The console in Chromium in German and in Arabic, on a desk and on a phone.

One node in this process serves it, so the tests need no cluster. Pictures of every page
are in `var/looks`, for people: no test compares them. English is in
`test_at_the_desk.py`.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from axe_playwright_python.sync_playwright import Axe
from playwright.async_api import Browser, Page, ViewportSize, expect

from sparecode_node.domain.emergency_access import RecoveryPolicy
from tests.console.desk import ORIGIN, Desk
from tests.console.https_desk import browser_of
from tests.services.one_node import PASSWORD, ROOT, SERIAL

pytestmark = pytest.mark.asyncio

PICTURES = Path(__file__).resolve().parents[2] / "var" / "looks"
DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
PATIENCE_MS = 30_000
TOKEN = f"/tokens/{SERIAL}"
PAGES = (
    "/",
    "/find?q=example",
    "/users/alice",
    TOKEN,
    "/import/tokens",
    "/approvals",
    "/account",
)
OPTIONS = {"resultTypes": ["violations"]}
WITHOUT = {"exclude": ["option"]}
"""Hundreds of time zones, shown by the browser itself."""
TOO_WIDE = """() => {
  const outside = [...document.querySelectorAll("button, .button, .banner")]
    .filter((each) => each.checkVisibility() && !each.closest(".table, [popover]"))
    .filter((each) => {
      const { left, right } = each.getBoundingClientRect();
      const around = each.parentElement.getBoundingClientRect();
      return left < around.left - 1 || right > around.right + 1;
    })
    .map((each) => each.outerHTML);
  const page = document.documentElement;
  return page.scrollWidth > page.clientWidth ? ["the page", ...outside] : outside;
}"""
"""What sticks out of its card or of the page."""


@pytest_asyncio.fixture
async def browser(desk: Desk, tmp_path: Path) -> AsyncIterator[Browser]:
    """Serve the console by HTTPS; return a browser that finds it by its name."""
    async with browser_of(desk, tmp_path / "certificates", ORIGIN) as running:
        yield running


@contextlib.asynccontextmanager
async def window(browser: Browser, size: ViewportSize) -> AsyncIterator[Page]:
    """Open a window of a size, at the sign-in page."""
    context = await browser.new_context(
        ignore_https_errors=True,  # The certificate is of the node's own authority.
        timezone_id="Europe/Berlin",
        viewport=size,
    )
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    await page.goto(f"{ORIGIN}/sign-in")
    yield page
    await context.close()


async def sign_in(page: Page) -> None:
    """Sign in, in any language."""
    await page.locator("#administrator").fill(ROOT)
    await page.locator("#password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.locator("#navigation").wait_for(state="attached")


async def look(page: Page, name: str, found: dict[str, object]) -> None:
    """Take a picture of a phone; record what axe finds there, and what is too wide."""
    if not await page.evaluate("typeof axe === 'object'"):
        await page.evaluate(Axe().axe_script)
    for size in (DESK, PHONE):
        await page.set_viewport_size(size)
        kind = f"{name}-{size['width']}"
        for each in await page.evaluate(TOO_WIDE):
            found[f"{kind}: too wide"] = each
    await page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
    report = await page.evaluate(
        "([context, options]) => axe.run(context, options)", [WITHOUT, OPTIONS]
    )
    for each in report["violations"]:
        found[f"{name}: {each['id']}"] = each["nodes"][0]["html"]
    await page.set_viewport_size(DESK)


@pytest.mark.parametrize("tag", ["de", "ar"])
async def test_pages_are_accessible_and_fit(
    desk: Desk, browser: Browser, tag: str
) -> None:
    """German words are long, and Arabic pages are written from right to left."""
    await desk.node.users.update(
        desk.node.admin("UserService/UpdateUser"),
        username="alice",
        display_name="Alice Ash",
        email="alice@example.com",
        language=tag,
    )
    found: dict[str, object] = {}
    PICTURES.mkdir(parents=True, exist_ok=True)
    async with window(browser, DESK) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        await page.locator(f".languages button[lang={tag}]").click()
        await expect(page.locator("html")).to_have_attribute("lang", tag)
        await look(page, f"{tag}-sign-in", found)
        await sign_in(page)
        for path in PAGES:
            await page.goto(ORIGIN + path)
            await expect(page.locator("html")).to_have_attribute("lang", tag)
            name = path.strip("/").replace("/", "-").partition("?")
            await look(page, f"{tag}-{name[0] or 'start'}{name[2][2:]}", found)
        await page.goto(f"{ORIGIN}{TOKEN}/emergency-access")
        await page.locator("[name=count]").fill("51")
        await page.locator("#generate").click()
        await expect(page.locator("#count-problem")).to_be_visible()
        await look(page, f"{tag}-count-refused", found)
        await page.locator("[name=count]").fill("10")
        await page.locator("#generate").click()
        await expect(page.locator("#codes .code")).to_have_count(10)
        await look(page, f"{tag}-generated", found)
        await page.locator("#save").click()
        await expect(page.locator("#saved")).to_be_visible()
        await look(page, f"{tag}-saved", found)
    assert found == {}


async def test_the_sidebar_stays_in_view_while_a_page_is_scrolled(
    browser: Browser,
) -> None:
    async with window(browser, {"width": 1280, "height": 500}) as page:
        await sign_in(page)
        await page.goto(f"{ORIGIN}/policy")
        await page.mouse.wheel(0, 1200)
        await expect(page.get_by_role("heading", level=1)).not_to_be_in_viewport()
        first = page.locator("#navigation a").first
        await expect(first).to_be_in_viewport(ratio=1)
        logo = await page.locator(".brand").bounding_box()
        link = await first.bounding_box()
        assert logo is not None
        assert link is not None
        assert link["y"] >= logo["y"] + logo["height"]


async def test_the_menu_of_a_token_is_whole_on_a_phone(browser: Browser) -> None:
    """Also where its button stands at the end of the page."""
    async with window(browser, PHONE) as page:
        await sign_in(page)
        await page.goto(f"{ORIGIN}/users/alice")
        button = page.locator("button[popovertarget^=menu-]")
        await page.evaluate("scrollTo(0, document.body.scrollHeight)")
        await button.click()
        for link in await page.locator(".menu:popover-open a").all():
            await expect(link).to_be_in_viewport(ratio=1)
        assert await page.locator(".menu:popover-open a").count() > 1


async def test_a_weaker_option_asks_only_when_it_is_chosen(
    desk: Desk, browser: Browser
) -> None:
    await desk.node.issue(recovery=RecoveryPolicy.DENY)
    async with window(browser, DESK) as page:
        await sign_in(page)
        await page.goto(f"{ORIGIN}{TOKEN}/emergency-access")
        await expect(page.locator("#weaken")).to_be_hidden()
        await page.locator("[name=recovery][value=allow_and_disable]").check()
        await expect(page.locator("#weaken")).to_be_visible()


CUT_OFF = """() => {
  const brush = document.createElement("canvas").getContext("2d");
  const width = (field, text) => {
    brush.font = getComputedStyle(field).font;
    return brush.measureText(text).width;
  };
  const room = (field, edge) => {
    const { paddingLeft, paddingRight } = getComputedStyle(field);
    return field.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight) - edge;
  };
  const hints = [...document.querySelectorAll("[placeholder]")]
    .filter((each) => width(each, each.placeholder) > room(each, 0))
    .map((each) => each.placeholder);
  const zones = [...document.querySelectorAll("select[name$=_zone]")].flatMap((field) =>
    [...field.options].map((each) => each.label)
      .filter((label) => width(field, label) > room(field, 24)));
  return [...hints, ...zones];
}"""
"""Hints, and names of time zones, that their fields are too narrow for. 24: the arrow."""


@pytest.mark.parametrize("tag", ["en", "de", "ar"])
async def test_hints_and_time_zones_are_not_cut_off_on_a_phone(
    browser: Browser, tag: str
) -> None:
    async with window(browser, PHONE) as page:
        await page.locator(f".languages button[lang={tag}]").click()
        await expect(page.locator("html")).to_have_attribute("lang", tag)
        await sign_in(page)
        for path in ("/tokens", "/users", f"{TOKEN}/emergency-access"):
            await page.goto(ORIGIN + path)
            assert await page.evaluate(CUT_OFF) == [], path


async def test_a_corrected_field_is_no_longer_called_wrong(browser: Browser) -> None:
    async with window(browser, DESK) as page:
        await sign_in(page)
        await page.goto(f"{ORIGIN}{TOKEN}/emergency-access")
        await page.locator("[name=count]").fill("51")
        await page.locator("#generate").click()
        await expect(page.locator("#count-problem")).to_be_visible()
        await page.locator("[name=count]").fill("50")
        await expect(page.locator("#count-problem")).to_be_hidden()
        await expect(page.locator("[name=count][aria-invalid]")).to_have_count(0)
