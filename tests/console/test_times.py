# SPDX-License-Identifier: Apache-2.0
"""
Times in Chromium: in the administrator's time zone, with UTC on hover and in exports.

The clock of the node stands just before a change of clocks in Berlin.
"""

import datetime as dt
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from sparecode_node.domain.policy import DAY_MS
from tests.console.desk import ORIGIN, Desk
from tests.console.https_desk import browser_of
from tests.console.test_explanations import locked
from tests.console.test_looks import DESK, PATIENCE_MS, sign_in, window
from tests.services.one_node import SERIAL, OneNode

pytestmark = pytest.mark.asyncio

PAGE = f"{ORIGIN}/tokens/{SERIAL}/emergency-access"
SPRING = dt.datetime(2024, 3, 28, 12, tzinfo=dt.UTC)
"""13:00 in Berlin, three days before clocks are put forward."""
AUTUMN = dt.datetime(2024, 10, 24, 12, tzinfo=dt.UTC)
"""14:00 in Berlin, three days before clocks are put back."""


@pytest_asyncio.fixture
async def browser(desk: Desk, tmp_path: Path) -> AsyncIterator[Browser]:
    """Return a browser that finds the console of the desk."""
    async with browser_of(desk, tmp_path / "certificates", ORIGIN) as running:
        yield running


async def move_to(node: OneNode, at: dt.datetime) -> None:
    """Set the clock of the node, and sign in again: the session has ended."""
    node.clock.pass_s(at.timestamp() - node.clock.now_ms() / 1000)
    await node.login()


async def suggested(page: Page) -> tuple[str, str, str]:
    """Return date, time of day and time zone of the form."""
    return (
        await page.get_by_label("Date").input_value(),
        await page.get_by_label("Time of day").input_value(),
        await page.get_by_label("Time zone").input_value(),
    )


@pytest.mark.parametrize(
    ("now", "end", "shown", "utc"),
    [
        (
            SPRING,
            ("2024-04-04", "13:00"),
            "2024-04-04 13:00 CEST",
            "2024-04-04 11:00 UTC",
        ),
        (
            AUTUMN,
            ("2024-10-31", "14:00"),
            "2024-10-31 14:00 CET",
            "2024-10-31 13:00 UTC",
        ),
    ],
    ids=["spring", "autumn"],
)
async def test_in_seven_days_is_this_time_of_day_where_the_administrator_is(
    desk: Desk,
    browser: Browser,
    now: dt.datetime,
    end: tuple[str, str],
    shown: str,
    utc: str,
) -> None:
    """A week with a change of clocks has an hour less or more. UTC is on hover."""
    await move_to(desk.node, now)
    async with window(browser, DESK) as page:
        await sign_in(page)
        await page.goto(PAGE)
        assert await suggested(page) == (*end, "Europe/Berlin")
        await page.locator("#generate").click()
        await expect(page.locator("#codes .code")).to_have_count(10)
        await page.locator("#save").click()
        saved = page.locator("#saved time").first
        await expect(saved).to_have_text(shown, timeout=PATIENCE_MS)
        await expect(saved).to_have_attribute("title", utc)
        await expect(page.locator("#saved dd").nth(2)).to_contain_text("in 7 days")


async def test_a_suggested_end_is_one_that_the_policy_allows(
    desk: Desk, browser: Browser
) -> None:
    """Seven days at most: this week has an hour more."""
    await move_to(desk.node, AUTUMN)
    await desk.node.policies.update(
        desk.node.admin("PolicyService/UpdatePolicy"),
        version=1,
        values={"lifetime_ms_max": 7 * DAY_MS},
    )
    async with window(browser, DESK) as page:
        await sign_in(page)
        await page.goto(PAGE)
        assert await suggested(page) == ("2024-10-31", "13:00", "Europe/Berlin")
        await page.locator("#generate").click()
        await expect(page.locator("#codes .code")).to_have_count(10)
        await page.locator("#save").click()
        await expect(page.locator("#saved")).to_be_visible(timeout=PATIENCE_MS)


async def test_bulk_issue_suggests_the_same_end(desk: Desk, browser: Browser) -> None:
    await move_to(desk.node, SPRING)
    async with window(browser, DESK) as page:
        await sign_in(page)
        await page.goto(f"{ORIGIN}/users")
        await page.get_by_label("Choose alice").check()
        await page.get_by_role("button", name="Issue codes").click()
        await expect(page.get_by_label("Time of day")).to_have_value("13:00")
        await expect(page.get_by_label("Date")).to_have_value("2024-04-04")


async def test_the_end_of_a_lock_is_a_time_of_the_administrator(
    desk: Desk, browser: Browser
) -> None:
    """Also in the sentence that says why codes are refused now."""
    await move_to(desk.node, SPRING)
    await locked(desk)
    async with window(browser, DESK) as page:
        await sign_in(page)
        await page.goto(PAGE)
        sentence = page.locator(".obstacle p").first
        await expect(sentence).to_contain_text("are locked until 2024-03-28 13:15")
        title = await sentence.locator("time").get_attribute("title")
        assert title is not None
        assert title.startswith("2024-03-28 12:15")
        assert title.endswith(" UTC")


async def test_exports_have_times_in_utc(desk: Desk) -> None:
    """Whatever the time zone of the browser: files of two administrators can be compared."""
    await move_to(desk.node, SPRING)
    browser = await desk.administrator()
    for form in ("csv", "json_lines"):
        file = await browser.open(f"/audit/export?format={form}&start=2024-03-28")
        noon = str(round(SPRING.timestamp() * 1000))
        assert (
            "2024-03-28T12:00:00.000Z" if form == "csv" else noon
        ) in file.response.text
