# SPDX-License-Identifier: Apache-2.0
"""
A stranger's page in Chromium, in the browser of a signed-in administrator.

It sends forms by itself, by `fetch`, in a frame, and by a link that the administrator
follows. Cookies, `Origin` and `Sec-Fetch-Site` are those of a real browser.
"""

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, expect

from sparecode_node.console.public import sealed_codes
from sparecode_node.services.errors import ApprovalNeededError
from sparecode_node.statemachine.digest import digest
from tests.console.desk import ORIGIN, Desk, desk
from tests.console.https_desk import browser_of
from tests.console.test_bulk_issue import second_super
from tests.console.test_pages import OWN
from tests.security.test_a_program_signs_in_as_its_approver_alone import Program
from tests.services.one_node import PASSWORD, ROOT

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]

EVIL = "https://evil.example"
NEIGHBOR = "https://evil.console.test"
"""Of the console's domain: its browser sends the session's cookie with its forms."""
PATIENCE_MS = 20_000
TARGETS = ("sign-in", "approvals", "sign-in of a program", "sealed codes")

FORM = """<form method="post" action="{action}">{fields}</form>
<script>document.forms[0].submit()</script>"""
FETCH = """<script>
fetch({address}, {{method: "POST", mode: "no-cors", credentials: "include",
  headers: {{"content-type": "application/x-www-form-urlencoded"}}, body: {body}}})
  .finally(() => {{ document.title = "sent"; }});
</script>"""
FRAME = """<iframe src="{address}"></iframe>"""


@pytest_asyncio.fixture(name="desk")
async def running_desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path) as running:
        yield running


@pytest_asyncio.fixture
async def browser(desk: Desk, tmp_path: Path) -> AsyncIterator[Browser]:
    async with browser_of(desk, tmp_path / "certificates", ORIGIN) as running:
        yield running


async def page_of(browser: Browser, *, signed_in: bool) -> Page:
    """Return a page of a browser, perhaps with a signed-in super administrator."""
    context = await browser.new_context(ignore_https_errors=True)
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    if signed_in:
        await page.goto(f"{ORIGIN}/sign-in")
        await sign_in(page)
    return page


async def sign_in(page: Page) -> None:
    await page.locator("#administrator").fill(ROOT)
    await page.locator("#password").fill(PASSWORD)
    await page.locator("#password").press("Enter")
    await page.wait_for_url(lambda address: not address.endswith("/sign-in"))
    await page.wait_for_load_state()


async def waiting(desk: Desk) -> dict[str, tuple[str, dict[str, str]]]:
    """Let an approval and a program wait; return what a stranger would send."""
    await second_super(desk)
    node = desk.node
    await node.login(name="dora", password=OWN)
    with pytest.raises(ApprovalNeededError) as asked:
        await node.administrators.remove(
            node.admin("AdministratorService/RemoveAdministrator"), name=ROOT
        )
    login = await Program(desk).start()
    approval = {"action": "approve", "approval_id": str(asked.value.approval_id)}
    program = {"action": "approve", "user_code": login.user_code}
    guess = {"opener": "A" * 43, "page": "B" * 22}
    return {
        "sign-in": ("/sign-in", {"administrator": "dora", "password": OWN}),
        "approvals": ("/approvals", approval),
        "sign-in of a program": ("/account/command-line", program),
        "sealed codes": (sealed_codes.OPEN, {"a": json.dumps(guess)}),
    }


async def served(page: Page, origin: str, html: str) -> None:
    """Open a page of another origin; return when the browser has done what it says."""

    async def answer(route: Route) -> None:
        await route.fulfill(content_type="text/html", body=html)

    await page.route(f"{origin}/**", answer)
    await page.goto(f"{origin}/")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("origin", [EVIL, NEIGHBOR])
async def test_a_form_of_a_strangers_page_is_refused(
    desk: Desk, browser: Browser, origin: str, target: str
) -> None:
    path, fields = (await waiting(desk))[target]
    page = await page_of(browser, signed_in=True)
    cookies = await page.context.cookies(ORIGIN)
    before = digest(desk.node.primary_db)
    inputs = "".join(
        f"<input name='{name}' value='{value}'>"
        for name, value in {**fields, "request_id": str(uuid.uuid4())}.items()
    )
    async with page.expect_response(lambda got: got.request.method == "POST") as got:
        await served(page, origin, FORM.format(action=f"{ORIGIN}{path}", fields=inputs))
    answer = await got.value
    assert answer.status in (303, 400, 403), answer.status
    await page.wait_for_load_state()
    assert await page.get_by_text("Your input is kept").count() == 0
    assert digest(desk.node.primary_db) == before
    now = {each["name"]: each["value"] for each in await page.context.cookies(ORIGIN)}
    was = {each["name"]: each["value"] for each in cookies}
    assert was.items() <= now.items(), "the session is the same"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("origin", [EVIL, NEIGHBOR])
async def test_a_script_of_a_strangers_page_is_refused(
    desk: Desk, browser: Browser, origin: str, target: str
) -> None:
    path, fields = (await waiting(desk))[target]
    page = await page_of(browser, signed_in=True)
    before = digest(desk.node.primary_db)
    script = FETCH.format(
        address=json.dumps(f"{ORIGIN}{path}"), body=json.dumps(urlencode(fields))
    )
    await served(page, origin, script)
    await expect(page).to_have_title("sent")
    assert digest(desk.node.primary_db) == before


@pytest.mark.parametrize("target", TARGETS)
async def test_a_link_of_a_strangers_page_carries_nothing_over_the_sign_in(
    desk: Desk, browser: Browser, target: str
) -> None:
    """The attack of December 2026: the administrator signs in and presses Continue."""
    path, fields = (await waiting(desk))[target]
    page = await page_of(browser, signed_in=False)
    for query in (
        {"kept": urlencode(fields), "next": path, **fields},
        {"kept": urlencode(fields), "next": path, "action": "carry"},
    ):
        await page.goto(f"{ORIGIN}/sign-in?{urlencode(query)}")
        await sign_in(page)
        shown = await page.content()
        assert await page.get_by_role("button", name="Continue").count() == (
            path == "/account/command-line"
        ), "the page that asks for a program's code has such a button"
        assert fields.get("user_code", "no code") not in shown
        assert await page.locator("[name=kept]").count() == 0
        await page.context.clear_cookies()
    assert await Program(desk).start() is not None
    approvals = desk.node.primary_db.execute("SELECT count(*) FROM approvals")
    assert approvals.fetchone() == (1,), "it still waits"


@pytest.mark.parametrize("target", TARGETS)
async def test_a_link_fills_in_nothing_that_a_press_sends(
    desk: Desk, browser: Browser, target: str
) -> None:
    """The administrator is signed in, and presses Enter on the page that the link opens."""
    path, fields = (await waiting(desk))[target]
    page = await page_of(browser, signed_in=True)
    shown = path if target != "sealed codes" else sealed_codes.PAGE
    before = digest(desk.node.primary_db)
    await page.goto(f"{ORIGIN}{shown}?{urlencode(fields)}")
    values = await page.evaluate(
        "() => [...document.querySelectorAll('form[method=post] [name]')]"
        ".map((each) => each.value)"
    )
    planted = {each for name, each in fields.items() if name != "approval_id"}
    assert not {*values} & (planted - {"approve"})
    await page.keyboard.press("Enter")
    await page.wait_for_load_state()
    assert digest(desk.node.primary_db) == before


async def test_no_page_of_the_console_stands_in_a_strangers_frame(
    desk: Desk, browser: Browser
) -> None:
    targets = await waiting(desk)
    page = await page_of(browser, signed_in=True)
    for path in ("/sign-in", "/approvals", "/account/command-line", sealed_codes.PAGE):
        await served(page, NEIGHBOR, FRAME.format(address=f"{ORIGIN}{path}"))
        (frame,) = page.main_frame.child_frames
        assert "Sparecode" not in await frame.content()
        await page.unroute_all()
    assert targets
