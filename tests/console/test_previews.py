# SPDX-License-Identifier: Apache-2.0
"""Previews of notices to people, in Chromium: the mail can do nothing in its frame."""

from pathlib import Path

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from sparecode_node.services.notices import previews
from sparecode_node.services.notices.letters import Letter
from tests.console.desk import desk
from tests.console.https_desk import browser_of
from tests.services.one_node import CONSOLES, PASSWORD, ROOT

pytestmark = pytest.mark.asyncio

HOSTILE = """<!doctype html><html lang="en"><title>x</title><body>
<p id="said">Hello</p>
<script>document.getElementById("said").textContent = "scripted";
parent.document.title = "scripted";</script>
<img src="/static/console.css" onerror="document.title = 'scripted'">
<form action="/account/sign-out" method="post"><button>Sign out</button></form>
</body></html>"""


async def test_a_mail_acts_on_nothing_in_its_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page is accessible in light and dark, and a hostile template is held."""
    async with (
        desk(tmp_path) as running,
        browser_of(running, tmp_path / "certificates", CONSOLES[0]) as browser,
    ):
        window = await browser.new_context(ignore_https_errors=True)
        page = await window.new_page()
        await page.goto(f"{CONSOLES[0]}/sign-in")
        await page.get_by_label("Name").fill(ROOT)
        await page.get_by_label("Password").fill(PASSWORD)
        await page.get_by_role("button", name="Sign in", exact=True).click()
        await expect(page.get_by_role("heading", name="Dashboard")).to_be_visible()
        await page.goto(f"{CONSOLES[0]}/notices?kind=codes_issued&tongue=de")
        frame = page.frame_locator("iframe")
        await expect(frame.get_by_text("Guten Tag Alex Example")).to_be_visible()
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            found = await Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            await page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
        await page.set_viewport_size({"width": 390, "height": 844})
        await page.screenshot(path=tmp_path / "phone.png", full_page=True)
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390
        monkeypatch.setattr(
            previews,
            "write_letter",
            lambda *_args, **_kinds: Letter(
                subject="Hostile", text="Hello", html=HOSTILE, language="en"
            ),
        )
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        await page.goto(f"{CONSOLES[0]}/notices?kind=codes_issued")
        await expect(frame.get_by_text("Hello")).to_be_visible()
        await frame.get_by_role("button", name="Sign out").click()
        await expect(frame.get_by_text("scripted")).to_have_count(0)
        assert "scripted" not in await page.title()
        assert not [each for each in requests if each.endswith("/sign-out")]
        # Opened alone it has no rights either.
        await page.goto(f"{CONSOLES[0]}/notices/letter?kind=codes_issued")
        await expect(page.locator("#said")).to_have_text("Hello")
        await page.get_by_role("button", name="Sign out").click()
        assert not [each for each in requests if each.endswith("/sign-out")]
