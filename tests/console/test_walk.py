# SPDX-License-Identifier: Apache-2.0
"""
What goes wrong at a desk, in Chromium, at both sizes: the page says what to do next.

One node in this process serves the console, so its clock can be moved. Nodes that go
down, and the browser without a script, are in `test_at_the_desk` and `test_procedure`.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Dialog, Page, ViewportSize, expect

from sparecode_node.domain.policy import MINUTE_MS
from tests.console import axe
from tests.console.desk import ORIGIN, Desk
from tests.console.https_desk import browser_of
from tests.console.test_looks import (
    DESK,
    PATIENCE_MS,
    PHONE,
    sign_in,
    window,
)
from tests.long import long
from tests.services.one_node import PASSWORD, PIN, ROOT, SERIAL

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.parametrize("size", [DESK, *long([PHONE])], ids=["desk", "phone"]),
]

FORM = f"{ORIGIN}/tokens/{SERIAL}/emergency-access"


@pytest_asyncio.fixture
async def browser(desk: Desk, tmp_path: Path) -> AsyncIterator[Browser]:
    """Return a browser that finds the console of the desk."""
    async with browser_of(desk, tmp_path / "certificates", ORIGIN) as running:
        yield running


async def accessible(page: Page) -> None:
    """Check that axe finds nothing at all."""
    await page.wait_for_load_state()
    assert await page.evaluate(axe.RUN, axe.arguments()) == []


async def generate(page: Page, count: int) -> list[str]:
    """Generate codes, and return them."""
    await page.get_by_label("Number of tokencodes").fill(str(count))
    await page.locator("#generate").click()
    codes = page.locator("#codes .code")
    await expect(codes).to_have_count(count, timeout=PATIENCE_MS)
    return await codes.all_text_contents()


async def save(page: Page) -> None:
    """Save, and wait for the commit."""
    await page.locator("#save").click()
    await expect(page.get_by_role("status")).to_contain_text(
        "Committed by a quorum", timeout=PATIENCE_MS
    )


@pytest.mark.parametrize("count", ["0", "51"])
async def test_a_number_that_no_set_has(
    browser: Browser, size: ViewportSize, count: str
) -> None:
    async with window(browser, size) as page:
        await sign_in(page)
        await page.goto(FORM)
        await page.get_by_label("Number of tokencodes").fill(count)
        await page.locator("#generate").click()
        problem = page.locator("#count-problem")
        await expect(problem).to_have_text("Enter a number from 1 to 50.")
        await expect(page.locator("#problem")).to_be_focused()
        await expect(page.locator("#codes")).to_have_count(0)
        await expect(page.get_by_label("Number of tokencodes")).to_have_value(count)
        await accessible(page)
        await generate(page, 50)
        await save(page)


async def test_a_date_that_is_past(browser: Browser, size: ViewportSize) -> None:
    """It is refused before codes are read out in vain."""
    async with window(browser, size) as page:
        await sign_in(page)
        await page.goto(FORM)
        await page.get_by_label("Date").fill("2020-02-29")
        await page.locator("#generate").click()
        await expect(page.locator("#expires-problem")).to_have_text(
            "This time is in the past. Choose a later one."
        )
        await expect(page.locator("#codes")).to_have_count(0)
        await accessible(page)


async def test_two_tabs_save_one_set(
    desk: Desk, browser: Browser, size: ViewportSize
) -> None:
    async with window(browser, size) as page:
        await sign_in(page)
        other = await page.context.new_page()
        for tab in (page, other):
            await tab.goto(FORM)
            await generate(tab, 2)
        await save(page)
        await other.locator("#save").click()
        await expect(other.locator("#problem")).to_contain_text(
            "you have saved codes for this token already, just now, perhaps in another "
            "tab. Generate codes again to replace those."
        )
        await accessible(other)
        codes = await generate(other, 2)
        await save(other)
        assert await desk.node.accepts(PIN + codes[0])


async def test_a_reload_after_generate(browser: Browser, size: ViewportSize) -> None:
    """The browser asks first; then the form is empty, and nothing was saved."""
    asked: list[str] = []

    async def accept(dialog: Dialog) -> None:
        asked.append(dialog.type)
        await dialog.accept()

    async with window(browser, size) as page:
        page.on("dialog", accept)
        await sign_in(page)
        await page.goto(FORM)
        await generate(page, 2)
        await page.reload()
        await expect(page.locator("#codes")).to_have_count(0)
        await expect(page.locator(".set")).to_have_count(0)
        assert asked == ["beforeunload"]
        await generate(page, 2)
        await save(page)


async def test_an_idle_end_before_save(
    desk: Desk, browser: Browser, size: ViewportSize
) -> None:
    """The sign-in page says why, and the codes on the page are saved afterwards."""
    await desk.node.policies.update(
        desk.node.admin("PolicyService/UpdatePolicy"),
        version=1,
        values={"privileged_session_idle_ms": 5 * MINUTE_MS},
    )
    async with window(browser, size) as page:
        await sign_in(page)
        await page.goto(FORM)
        codes = await generate(page, 2)
        desk.node.clock.pass_s(6 * 60)
        await page.locator("#save").click()
        alert = page.get_by_role("alert")
        await expect(alert).to_contain_text("Your session has ended, and was last used")
        await expect(alert).to_contain_text("6 minutes ago")
        await accessible(page)
        await page.locator("#administrator").fill(ROOT)
        await page.locator("#password").fill(PASSWORD)
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Continue", exact=True).click()
        await expect(page.get_by_role("status")).to_contain_text(
            "Committed by a quorum"
        )
        assert await page.locator("#codes .code").all_text_contents() == codes
        assert await desk.node.accepts(PIN + codes[0])
