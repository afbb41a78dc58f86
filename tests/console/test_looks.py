# SPDX-License-Identifier: Apache-2.0
"""
The console in Chromium in German and in Arabic, on a desk and on a phone.

One node in this process serves it, so the tests need no cluster. `make looks` leaves
pictures of pages in `var/looks`, for people: no test compares them. English is in
`test_at_the_desk.py`.
"""

import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, Route, ViewportSize, expect

from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.policy import Policy
from tests.console import axe
from tests.console.axe import Colors
from tests.console.desk import ORIGIN, Desk
from tests.console.https_desk import browser_of
from tests.console.test_pages import PAGES as EVERY_PAGE
from tests.services.one_node import PASSWORD, ROOT, SERIAL

pytestmark = pytest.mark.asyncio

PICTURES = Path(__file__).resolve().parents[2] / "var" / "looks"
DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
ZOOMED: ViewportSize = {"width": 640, "height": 400}
"""A window of 1280 x 800 pixels at 200 %."""
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
PARTS = 2
"""Parts of the list of pages, so that no test runs into the timeout."""
TOO_WIDE = """() => {
  const outside = [...document.querySelectorAll("button, .button, .banner")]
    .filter((each) => each.checkVisibility() && !each.closest(".table, [popover]"))
    .filter((each) => {
      const { left, right } = each.getBoundingClientRect();
      const around = each.parentElement.getBoundingClientRect();
      return left < around.left - 1 || right > around.right + 1;
    })
    .map((each) => each.outerHTML);
  const scrolled = [document.documentElement, ...document.querySelectorAll(".table")]
    .filter((each) => each.checkVisibility() && each.scrollWidth > each.clientWidth)
    .map((each) => each.tagName);
  return [...scrolled, ...outside];
}"""
"""What sticks out of its card or of the page, and tables that are scrolled sideways."""


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
    await page.context.add_init_script(axe.SCRIPT)
    await page.goto(f"{ORIGIN}/sign-in")
    yield page
    await context.close()


async def sign_in(page: Page) -> None:
    """Sign in, in any language."""
    await page.locator("#administrator").fill(ROOT)
    await page.locator("#password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.locator("#navigation").wait_for(state="attached")


@dataclass
class Visit:
    """A page in a browser, and what was found on the pages that it has shown."""

    page: Page
    every_look: bool
    found: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.colors = Colors(every=self.every_look)

    async def look(self, name: str) -> None:
        """Check the page; take a picture of it for `make looks`."""
        await self.check(name)
        if self.every_look:
            PICTURES.mkdir(parents=True, exist_ok=True)
            await self.page.set_viewport_size(PHONE)
            await self.page.screenshot(path=PICTURES / f"{name}.png", full_page=True)
            await self.page.set_viewport_size(DESK)

    async def check(self, name: str) -> None:
        """Record what axe finds on a phone, and what is too wide for one or for a desk."""
        await self.page.wait_for_load_state()
        for size in (DESK, PHONE):
            await self.page.set_viewport_size(size)
            for each in await self.page.evaluate(TOO_WIDE):
                self.found[f"{name}-{size['width']}: too wide"] = each
        new = self.colors.are_new("light", await self.page.evaluate(axe.COLORS))
        for each in await self.page.evaluate(axe.RUN, axe.arguments(contrast=new)):
            self.found[f"{name}: {each}"] = each
        await self.page.set_viewport_size(DESK)


@pytest.fixture
def every_look(request: pytest.FixtureRequest) -> bool:
    """Return whether axe has to check the contrast of every page, as in `make looks`."""
    every: bool = request.config.getoption("--every-look")
    return every


@pytest.mark.long
@pytest.mark.parametrize("tag", ["de", "ar"])
async def test_pages_are_accessible_and_fit(
    desk: Desk, browser: Browser, tag: str, *, every_look: bool
) -> None:
    """German words are long, and Arabic pages are written from right to left."""
    await desk.node.users.update(
        desk.node.admin("UserService/UpdateUser"),
        username="alice",
        display_name="Alice Ash",
        email="alice@example.com",
        language=tag,
    )
    async with window(browser, DESK) as page:
        visit = Visit(page, every_look)
        page.on("dialog", lambda dialog: dialog.accept())
        await page.locator(f".languages button[lang={tag}]").click()
        await expect(page.locator("html")).to_have_attribute("lang", tag)
        await visit.look(f"{tag}-sign-in")
        await sign_in(page)
        for path in PAGES:
            await page.goto(ORIGIN + path)
            await expect(page.locator("html")).to_have_attribute("lang", tag)
            name = path.strip("/").replace("/", "-").partition("?")
            await visit.look(f"{tag}-{name[0] or 'start'}{name[2][2:]}")
        await page.goto(f"{ORIGIN}{TOKEN}/emergency-access")
        await page.locator("[name=count]").fill("51")
        await page.locator("#generate").click()
        await expect(page.locator("#count-problem")).to_be_visible()
        await visit.look(f"{tag}-count-refused")
        await page.locator("[name=count]").fill("10")
        await page.locator("#generate").click()
        await expect(page.locator("#codes .code")).to_have_count(10)
        await visit.look(f"{tag}-generated")
        await page.locator("#save").click()
        await expect(page.locator("#saved")).to_be_visible()
        await visit.look(f"{tag}-saved")
    assert visit.found == {}


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("tag", ["de", "ar"])
async def test_axe_finds_nothing_on_any_page_in_other_languages(
    browser: Browser, tag: str, part: int, *, every_look: bool
) -> None:
    """Every page that a super administrator opens; English is in `test_at_the_desk`."""
    paths = [path for path in EVERY_PAGE if not path.startswith("/audit/export")]
    async with window(browser, DESK) as page:
        visit = Visit(page, every_look)
        await page.locator(f".languages button[lang={tag}]").click()
        await expect(page.locator("html")).to_have_attribute("lang", tag)
        await sign_in(page)
        for path in paths[part::PARTS]:
            await page.goto(ORIGIN + path)
            await expect(page.locator("html")).to_have_attribute("lang", tag)
            await visit.check(path)
    assert visit.found == {}


async def test_new_colors_are_checked(browser: Browser) -> None:
    """A text that has become faint is found on a page whose colors were seen before."""
    async with window(browser, DESK) as page:
        visit = Visit(page, every_look=False)
        await sign_in(page)
        await page.goto(f"{ORIGIN}/account")
        await visit.check("before")
        assert visit.found == {}
        await page.locator("h1").evaluate("each => { each.style.color = '#bbbbbb'; }")
        await visit.check("after")
        assert [each.partition(": <")[0] for each in visit.found] == [
            "after: color-contrast"
        ]


LETTERS = "iW-0O1Il8B5S2Z"
GLYPHS = """([chosen, letters]) => [...letters].map((letter) => {
  const text = document.querySelector(chosen).cloneNode();
  text.textContent = letter.repeat(20);
  document.querySelector("main").append(text);
  const { width } = text.getBoundingClientRect();
  text.remove();
  return width;
})"""
"""The width of each letter, twenty times, in the face of an element."""


async def test_every_letter_of_a_code_has_the_same_width(browser: Browser) -> None:
    """Codes stand below each other, letter by letter, without letters that look alike."""
    assert not set("0O1IL") & set(Policy().code_alphabet)
    async with window(browser, DESK) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        await sign_in(page)
        await page.goto(f"{ORIGIN}{TOKEN}/emergency-access")
        await page.locator("#generate").click()
        code = page.locator("#codes .code").first
        await expect(code).to_be_visible()
        family = await code.evaluate("each => getComputedStyle(each).fontFamily")
        assert family.endswith(", monospace")
        widths = await page.evaluate(GLYPHS, ["#codes .code", LETTERS])
        assert len({round(width, 3) for width in widths}) == 1
        spans = page.locator("#codes .code")
        boxes = [await each.bounding_box() for each in await spans.all()]
        assert len({round(box["width"], 1) for box in boxes if box}) == 1


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


@pytest.mark.parametrize("width", [390, 1280])
async def test_what_a_caller_says_of_the_token_is_chosen_beside_save(
    desk: Desk, browser: Browser, width: int
) -> None:
    """With a caller on the phone, no one must look for the choice below the codes."""
    await desk.node.issue(recovery=RecoveryPolicy.ALLOW_AND_DISABLE)
    async with window(browser, {"width": width, "height": 800}) as page:
        await sign_in(page)
        await page.goto(f"{ORIGIN}{TOKEN}/emergency-access")
        await page.locator("[name=recovery][value=deny]").check()
        await page.locator("#generate").click()
        await expect(page.locator("#codes .code")).to_have_count(10)
        for words in ("left at home", "keep the 3 unused codes"):
            case = page.locator(".case", has_text=words)
            await expect(case).to_be_in_viewport(ratio=1)
            await case.click()
        await expect(page.locator("#save")).to_be_in_viewport(ratio=1)
        await expect(page.locator("[value=allow_and_disable]")).to_be_checked()
        await expect(page.locator("[name=keep]")).to_be_checked()
        await page.locator("#save").click()
        await expect(page.locator("#saved")).to_contain_text("at any time")
        await expect(page.locator("#saved")).to_contain_text("13")


async def test_a_second_press_of_save_does_not_leave_the_codes(
    browser: Browser,
) -> None:
    """The codes are shown once, and *Done* comes near the place of *Save*."""
    async with window(browser, DESK) as page:
        await page.clock.install()
        await sign_in(page)
        await page.goto(f"{ORIGIN}{TOKEN}/emergency-access")
        await page.locator("#generate").click()
        await expect(page.locator("#codes .code")).to_have_count(10)
        await page.locator("#save").click()
        done = page.get_by_role("link", name="Done")
        await done.click()
        await expect(page.locator("#saved .code")).to_have_count(10)
        await page.clock.run_for(2000)
        await done.click()
        await expect(page.locator("#procedure")).to_be_visible()
        await expect(page.locator("#saved")).to_have_count(0)


async def test_a_row_of_the_audit_log_takes_two_lines(
    desk: Desk, browser: Browser
) -> None:
    await desk.node.issue()
    async with window(browser, DESK) as page:
        await sign_in(page)
        await page.goto(f"{ORIGIN}/audit?target={SERIAL}")
        row = page.locator("tbody tr", has_text="codes").first
        await row.locator(".details").evaluate(
            "each => each.append(' long'.repeat(99))"
        )
        for words in (row.locator(".event b"), row.locator(".actor")):
            heights = await words.evaluate(
                "each => { const all = document.createRange(); all.selectNodeContents(each);"
                " return [all.getBoundingClientRect().height,"
                " parseFloat(getComputedStyle(each).lineHeight)]; }"
            )
            assert heights[0] < 1.5 * heights[1]


@pytest.mark.parametrize("width", [390, 900, 1280])
async def test_the_user_s_name_is_in_sight_at_save(
    browser: Browser, width: int
) -> None:
    """Codes for the wrong Müller are saved by who no longer sees the name."""
    async with window(browser, {"width": width, "height": 700}) as page:
        await sign_in(page)
        await page.goto(f"{ORIGIN}/tokens/{SERIAL}/emergency-access")
        name = (
            page.locator(".for-whom b, .about h2")
            .get_by_text("Alice")
            .locator("visible=true")
        )
        await page.locator("#generate").click()
        await expect(page.locator("#codes .code")).to_have_count(10)
        await page.locator("#save").scroll_into_view_if_needed()
        await expect(page.locator("#save")).to_be_in_viewport(ratio=1)
        await expect(name.first).to_be_in_viewport(ratio=1)


@pytest.mark.parametrize("earlier", [False, True], ids=["first", "again"])
async def test_one_tab_leads_from_new_codes_to_save(
    desk: Desk, browser: Browser, *, earlier: bool
) -> None:
    """Links beside the codes come later, also if there are codes issued earlier."""
    if earlier:
        await desk.node.issue()
    async with window(browser, DESK) as page:
        await sign_in(page)
        await page.goto(f"{ORIGIN}{TOKEN}/emergency-access")
        await page.locator("#generate").click()
        await expect(page.locator(".slip")).to_be_focused()
        await page.keyboard.press("Tab")
        await expect(page.locator(".shortcut")).to_be_focused()
        await expect(page.locator(".shortcut")).to_be_in_viewport(ratio=1)


async def test_a_slow_answer_is_announced(browser: Browser) -> None:
    """While the node works, the page says so; after a failure it does not."""
    async with window(browser, DESK) as page:
        await sign_in(page)
        await page.goto(f"{ORIGIN}/tokens/{SERIAL}/emergency-access")
        held: list[Route] = []
        # A function of its own, because Playwright sets attributes on it.
        await page.route("**/emergency-access", lambda route: held.append(route))  # noqa: PLW0108
        await page.locator("#generate").click()
        words = page.get_by_role("status").get_by_text("Waiting for the node")
        await expect(words).to_be_visible()
        await expect(page.locator(".working").first).to_be_visible()
        # An answer would bring a page of its own, on which nothing waits.
        await held.pop().abort()
        await expect(page.locator("#gone")).to_be_visible()
        await expect(page.locator(".working")).to_have_count(2)
        await expect(page.locator(".working").locator("visible=true")).to_have_count(0)


async def test_a_fast_answer_is_not_announced_later(browser: Browser) -> None:
    async with window(browser, DESK) as page:
        await sign_in(page)
        await page.clock.install()
        await page.goto(f"{ORIGIN}/tokens/{SERIAL}/emergency-access")
        await page.locator("#generate").click()
        await expect(page.locator("#codes .code")).to_have_count(10)
        await page.clock.run_for(1_000)
        await expect(page.locator(".working")).to_have_count(2)
        await expect(page.locator(".working").locator("visible=true")).to_have_count(0)


async def test_the_sheet_is_black_on_white_whatever_the_theme(browser: Browser) -> None:
    async with window(browser, DESK) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        await sign_in(page)
        await page.goto(f"{ORIGIN}{TOKEN}/emergency-access")
        await page.locator("#generate").click()
        await expect(page.locator("#codes .code")).to_have_count(10)
        await page.locator("#save").click()
        await expect(page.locator("#saved")).to_be_visible()
        await page.emulate_media(
            media="print", color_scheme="dark", contrast="more", forced_colors="active"
        )
        await expect(page.locator(".sheet")).to_be_visible()
        for part in (".sheet", ".sheet-codes .code >> nth=0"):
            await expect(page.locator(part)).to_have_css("color", "rgb(0, 0, 0)")
        await expect(page.locator("body")).to_have_css(
            "background-color", "rgb(255, 255, 255)"
        )


@pytest.mark.parametrize("size", [PHONE, ZOOMED], ids=["phone", "zoomed"])
async def test_the_menu_of_a_token_is_whole_in_a_small_window(
    browser: Browser, size: ViewportSize
) -> None:
    """Also where its button stands at the end of the page; a low window scrolls it."""
    async with window(browser, size) as page:
        await sign_in(page)
        await page.goto(f"{ORIGIN}/users/alice")
        button = page.locator("button[popovertarget^=menu-]")
        await page.evaluate("scrollTo(0, document.body.scrollHeight)")
        await button.click()
        await expect(page.locator(".menu:popover-open")).to_be_in_viewport(ratio=1)
        for link in await page.locator(".menu:popover-open a").all():
            await link.scroll_into_view_if_needed()
            # Not 1: scrolling rounds to pixels.
            await expect(link).to_be_in_viewport(ratio=0.99)
        assert await page.locator(".menu:popover-open a").count() > 1


@pytest.mark.parametrize("path", ["/users/alice", TOKEN])
async def test_destructive_actions_stand_apart_in_the_menu_of_a_token(
    browser: Browser, path: str
) -> None:
    """*Delete* comes last, below a line that keeps it from harmless actions."""
    async with window(browser, DESK) as page:
        await sign_in(page)
        await page.goto(ORIGIN + path)
        await page.locator("button[popovertarget^=menu]:not(.menu-button)").click()
        menu = page.locator(".menu:popover-open")
        names = [words.strip() for words in await menu.locator("li").all_inner_texts()]
        apart = names.index("Disable")
        assert names[apart:] == [
            "Disable",
            "Replace With Another Token",
            "Unassign From User",
            "Clear PIN",
            "Delete",
        ]
        boxes = [await each.bounding_box() for each in await menu.locator("a").all()]
        gaps = [
            round(lower["y"] - upper["y"] - upper["height"])
            for upper, lower in itertools.pairwise(boxes)
            if upper and lower
        ]
        assert len(gaps) == len(names) - 1
        assert gaps.pop(apart - 1) >= 10
        assert max(gaps) <= 1


async def test_a_long_reason_leaves_room_for_the_name_on_a_phone(
    browser: Browser,
) -> None:
    async with window(browser, PHONE) as page:
        await sign_in(page)
        await page.goto(f"{ORIGIN}/import/users")
        await page.get_by_label("Rows").fill("username,email\nomar,not-an-address\n")
        await page.get_by_role("button", name="Show the rows").click()
        row = page.locator(".table tbody tr")
        name = await row.locator("th").bounding_box()
        reason = await row.locator(".tag").bounding_box()
        assert name is not None
        assert reason is not None
        assert name["width"] >= 80
        assert name["x"] + name["width"] <= reason["x"]


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
  const room = (field) => {
    const { paddingLeft, paddingRight } = getComputedStyle(field);
    return field.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
  };
  const hints = [...document.querySelectorAll("[placeholder]")]
    .filter((each) => width(each, each.placeholder) > room(each))
    .map((each) => each.placeholder);
  const choices = [...document.querySelectorAll("select")].filter((field) => {
    const given = field.offsetWidth;
    field.style.width = field.style.maxWidth = "max-content";
    const needed = field.offsetWidth;
    field.style.width = field.style.maxWidth = "";
    return given + 1 < needed;
  }).map((each) => each.name);
  return [...hints, ...choices];
}"""
"""Hints that their fields are too narrow for, and lists that are narrower than a choice."""


@pytest.mark.parametrize("tag", ["en", "de", "ar"])
async def test_hints_and_choices_are_not_cut_off(browser: Browser, tag: str) -> None:
    async with window(browser, PHONE) as page:
        await page.locator(f".languages button[lang={tag}]").click()
        await expect(page.locator("html")).to_have_attribute("lang", tag)
        await sign_in(page)
        for path in ("/tokens", "/users", f"{TOKEN}/emergency-access"):
            await page.goto(ORIGIN + path)
            assert await page.evaluate(CUT_OFF) == [], path
        await page.set_viewport_size(DESK)
        await page.goto(f"{ORIGIN}/notices")
        assert await page.evaluate(CUT_OFF) == []


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


FAR = """() => [...document.querySelectorAll(".field + .hint, .field > .hint")]
  .filter((each) => {
    const { top, bottom } = each.getBoundingClientRect();
    const above = each.previousElementSibling.getBoundingClientRect();
    const field = each.closest(".field");
    const next = field?.nextElementSibling?.getBoundingClientRect();
    return !field || next?.top - bottom < 2 * (top - above.bottom);
  })
  .map((each) => each.textContent)"""
"""Hints that stand as near to the next field as to their own."""

INDENTED = """() => {
  const lines = new Map();
  for (const each of document.querySelectorAll(".crumbs li")) {
    const words = document.createRange();
    words.selectNodeContents(each);
    const { left, top } = words.getBoundingClientRect();
    lines.set(top, Math.min(left, lines.get(top) ?? left));
  }
  const { left } = document.querySelector(".crumbs ol").getBoundingClientRect();
  return [...lines.values()].map((each) => Math.round(each - left));
}"""
"""How far each line of the path to a page is indented."""


async def test_what_belongs_together_stands_together(browser: Browser) -> None:
    async with window(browser, DESK) as page:
        await sign_in(page)
        await page.goto(f"{ORIGIN}/")
        numbers = [
            await each.bounding_box() for each in await page.locator(".big").all()
        ]
        assert len({round(box["y"]) for box in numbers if box}) == 1
        await page.set_viewport_size(ZOOMED)
        cards = await page.locator(".charts").bounding_box()
        last = await page.locator(".charts > .card").last.bounding_box()
        assert cards is not None
        assert last is not None
        assert last["x"] + last["width"] == pytest.approx(cards["x"] + cards["width"])
        await page.set_viewport_size(DESK)
        await page.goto(f"{ORIGIN}/new/radius-client")
        assert await page.evaluate(FAR) == []
        await page.goto(f"{ORIGIN}/policy")
        groups = await page.locator(".knobs > fieldset").all()
        upper, lower = [await each.bounding_box() for each in groups]
        summary = await groups[0].locator("summary").bounding_box()
        assert upper is not None
        assert lower is not None
        assert summary is not None
        assert lower["y"] - summary["y"] - summary["height"] >= 8
        await page.set_viewport_size(PHONE)
        await page.goto(f"{ORIGIN}{TOKEN}/emergency-access")
        assert await page.evaluate(INDENTED) == [0, 0]
        await page.goto(f"{ORIGIN}/new/channel")
        await page.get_by_role("button", name="Continue").click()
        choices = page.locator("#classes .choice")
        boxes = [await each.bounding_box() for each in await choices.all()]
        gaps = {
            round(lower["y"] - upper["y"] - upper["height"])
            for upper, lower in itertools.pairwise(boxes)
            if upper and lower
        }
        assert gaps == {0}
