# SPDX-License-Identifier: Apache-2.0
"""The console in a browser on three real nodes: help desk and operator at work."""

import json
import os
import re
import signal
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyotp
import pytest
from local_cluster.cluster import ADMINISTRATOR
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    ViewportSize,
    expect,
)

from sparecode_node.console.kit import rendering
from sparecode_node.services.files.backup_files import MANIFEST
from tests.console import axe
from tests.console.axe import Colors
from tests.console.balancer import Balancer
from tests.console.estate import (
    PASSWORD,
    PATIENCE,
    Estate,
    Holder,
    Presence,
    new_window,
    sign_in,
)
from tests.console.gallery import (
    HELP_DESK,
    OPERATOR,
    OWN_FACTOR,
    SUPER,
    Exhibition,
    exhibits,
    furnish,
    in_parts,
    refused_sign_in,
    with_second_factor,
)
from tests.long import long

PATIENCE_MS = PATIENCE.total_seconds() * 1000
PARTS = 8
"""Parts of the list of pages, so that no test runs into the timeout."""
DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
ZOOMED: ViewportSize = {"width": 640, "height": 400}
"""A window of 1280 x 800 pixels at 200 %."""


@dataclass(frozen=True)
class Findings:
    """Results of looking at every page, by page name."""

    violations: dict[str, list[str]]
    wide: list[str]
    """What needs more width than the window has, and lines that begin with a comma."""
    faint: dict[str, list[str]]
    """What is not seen with more contrast, or in the colors of a contrast theme."""
    joined: list[str]
    """Sentences without a space between them."""
    elsewhere: list[str]
    """Requests to other hosts."""
    blocked: list[str]
    """Messages of the browser about blocked content."""


@pytest.fixture(scope="module")
def shown(estate: Estate) -> Exhibition:
    """Fill the cluster with data."""
    return furnish(estate)


@pytest.fixture(scope="module")
def page(chromium: Browser, estate: Estate, shown: Exhibition) -> Iterator[Page]:
    """Return a browser with an administrator, signed in at the first node."""
    window = new_window(chromium)
    page = window.new_page()
    page.add_init_script(axe.SCRIPT)
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, url(estate), ADMINISTRATOR, estate.cluster.password)
    yield page
    window.close()


@pytest.fixture
def help_desk(chromium: Browser, estate: Estate, shown: Exhibition) -> Iterator[Page]:
    """Return a browser with the help desk, signed in at the second node."""
    window = new_window(chromium)
    page = window.new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, url(estate, 1), HELP_DESK, PASSWORD)
    yield page
    window.close()


def url(estate: Estate, node: int = 0) -> str:
    """Return the address of a node's console."""
    return estate.cluster.nodes[node].console_url


def open_procedure(page: Page, holder: Holder, base: str) -> None:
    """Open the page of the procedure for a token."""
    page.goto(f"{base}/tokens/{holder.serial}/emergency-access")


def generate(page: Page, count: int) -> list[str]:
    """Generate codes, and return them."""
    page.get_by_label("Number of tokencodes").fill(str(count))
    page.locator("#generate").click()
    codes = page.locator("#codes .code")
    expect(codes).to_have_count(count)
    return codes.all_text_contents()


def save(page: Page) -> None:
    """Save, and wait for the commit."""
    page.locator("#save").click()
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")


def violations(page: Page, *rules: str) -> list[str]:
    """Return axe's findings of any weight on a page, by all rules or by some."""
    found: list[str] = page.evaluate(axe.RUN, axe.arguments(*rules))
    return found


@pytest.fixture(scope="module")
def colors(request: pytest.FixtureRequest) -> Colors:
    """Return the combinations of colors that axe has seen."""
    return Colors(every=request.config.getoption("--every-look"))


@pytest.fixture(scope="module", params=[0, *long(range(1, PARTS))])
def findings(
    request: pytest.FixtureRequest,
    chromium: Browser,
    estate: Estate,
    shown: Exhibition,
    page: Page,
    colors: Colors,
) -> Findings:
    """Check every page once: axe, contrast, and the width on a phone and when zoomed."""
    found = Findings({}, [], {}, [], [], [])

    def record_request(sent: Request) -> None:
        if not sent.url.startswith(url(estate)):
            found.elsewhere.append(sent.url)

    def record_message(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            found.blocked.append(message.text)

    page.on("request", record_request)
    page.on("console", record_message)
    if request.param == 0:
        window = new_window(chromium)
        outside = window.new_page()
        outside.add_init_script(axe.SCRIPT)
        refused_sign_in(outside, url(estate))
        _look(outside, "sign-in", found, colors)
        window.close()
    root = Presence(page, url(estate), ADMINISTRATOR, estate.cluster.password)
    for exhibit in in_parts(list(exhibits(shown)), PARTS)[request.param]:
        root.show()
        page.goto(url(estate) + exhibit.path)
        if exhibit.prepare:
            exhibit.prepare(page)
        _look(page, exhibit.name, found, colors)
    if request.param == PARTS - 1:
        own = with_second_factor(chromium, estate)
        own.add_init_script(axe.SCRIPT)
        for name, path in OWN_FACTOR.items():
            own.goto(url(estate) + path)
            _look(own, name, found, colors)
        own.context.close()
    page.remove_listener("request", record_request)
    page.remove_listener("console", record_message)
    return found


def _look(page: Page, name: str, found: Findings, colors: Colors) -> None:
    # A click returns before the stylesheet of the next page is there.
    page.wait_for_load_state()
    found.violations[name] = violations(page)
    text = page.locator("body").inner_text()
    found.joined.extend(f"{name}: {each}" for each in JOINED.findall(text))
    page.emulate_media(color_scheme="dark")
    found.violations[f"{name}, dark"] = _contrast(page, "dark", colors)
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme, contrast="more")
        look = f"{scheme}, more contrast"
        found.faint[f"{name}, {look}"] = _contrast(page, look, colors, "-enhanced")
    page.emulate_media(color_scheme="dark", contrast="more", forced_colors="active")
    found.faint[f"{name}, forced colors"] = page.evaluate(FAINT)
    page.emulate_media(
        color_scheme="light", contrast="no-preference", forced_colors="none"
    )
    for size in (PHONE, ZOOMED, DESK):
        page.set_viewport_size(size)
        wrong = [*page.evaluate(WIDE), *page.evaluate(LOOSE)]
        found.wide.extend(f"{name} at {size['width']} pixels: {each}" for each in wrong)


def _contrast(page: Page, look: str, colors: Colors, level: str = "") -> list[str]:
    """Return texts without enough contrast, if the page has new colors."""
    if not colors.are_new(look, page.evaluate(axe.COLORS)):
        return []
    return violations(page, axe.CONTRAST + level)


WIDE = """() => [document.documentElement, ...document.querySelectorAll(".table")]
  .filter((each) => each.checkVisibility() && each.scrollWidth > each.clientWidth)
  .map((each) => each.tagName + [...each.querySelectorAll("caption")]
    .map((caption) => " " + caption.textContent))"""
"""The page or its tables, if they have to be scrolled sideways."""

LOOSE = """() => {
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const loose = [];
  while (texts.nextNode()) {
    const { data, previousSibling } = texts.currentNode;
    if (!/^\\s*[,.;:]/.test(data) || !previousSibling?.getClientRects) continue;
    const mark = document.createRange();
    mark.setStart(texts.currentNode, data.search(/\\S/));
    mark.setEnd(texts.currentNode, data.search(/\\S/) + 1);
    const { top, height } = mark.getBoundingClientRect();
    const before = [...previousSibling.getClientRects()].pop();
    if (height && before && top >= before.bottom) {
      loose.push(texts.currentNode.parentElement.outerHTML.slice(0, 120));
    }
  }
  return loose;
}"""
"""Where a line begins with a comma or a point."""

JOINED = re.compile(r"[a-z]{2,}[.:][A-Z][a-z]+")

FAINT = """() => {
  const seen = [...document.querySelectorAll("body *")].filter((each) =>
    each.checkVisibility({visibilityProperty: true, opacityProperty: true}));
  const ground = getComputedStyle(document.body).backgroundColor;
  const color = (each, property) => getComputedStyle(each)[property];
  const none = (value) => value === "none" || value === "rgba(0, 0, 0, 0)";
  const bars = seen.filter((each) => each.matches(".bars rect"))
    .filter((each) => [ground, "none"].includes(color(each, "fill")));
  const lines = seen.filter((each) => each.matches(".bars line, .lucide"))
    .filter((each) => none(color(each, "stroke")) || color(each, "stroke") === ground);
  const both = new Set(seen.filter((each) => each.matches(".bars rect"))
    .map((each) => `${each.getAttribute("class")} ${color(each, "fill")}`));
  const alike = both.size > new Set([...both].map((each) => each.split(" ").slice(1)
    .join(" "))).size ? ["bars up and down look alike"] : [];
  const edges = seen
    .filter((each) => each.matches("button:not(.link), .button, input, select, textarea, "
      + ".card, .banner, .note, .tag, .menu, .table"))
    .filter((each) => !each.closest(".unseen, .shortcut") && each.type !== "hidden")
    .filter((each) => !["checkbox", "radio"].includes(each.type))
    .filter((each) => color(each, "borderTopStyle") === "none"
      || parseFloat(color(each, "borderTopWidth")) < 1
      || color(each, "borderTopColor") === ground);
  const here = seen.filter((each) => each.matches("nav [aria-current]"))
    .filter((each) => parseFloat(color(each, "borderInlineStartWidth")) < 2);
  return [...alike, ...[...bars, ...lines, ...edges, ...here]
    .map((each) => each.outerHTML.slice(0, 120))];
}"""
"""Bars, lines, icons, edges and the current link, if a theme has hidden them."""


def test_axe_finds_nothing_on_any_page(findings: Findings) -> None:
    """Labels, names, structure, and contrast in both palettes; findings of any weight."""
    assert {name: each for name, each in findings.violations.items() if each} == {}


def test_no_page_or_table_is_wider_than_its_window(findings: Findings) -> None:
    """
    At 390 px, at 1280 px, and there at 200 %, nothing is scrolled sideways.

    No line begins with a comma, either.
    """
    assert findings.wide == []


def test_contrast_settings_hide_nothing_on_any_page(findings: Findings) -> None:
    """
    With more contrast, text has 7:1 (WCAG, AAA) in both palettes.

    In forced colors, what is told by a color has an edge, a line or a color of the theme.
    """
    assert {name: each for name, each in findings.faint.items() if each} == {}


def test_sentences_are_apart_on_every_page(findings: Findings) -> None:
    """Templates drop the space at the end of a line, where a sentence may end."""
    assert findings.joined == []


def test_no_page_calls_other_hosts(findings: Findings) -> None:
    """All requests go to the console, and no page needs content that its policy forbids."""
    assert findings.elsewhere == []
    assert findings.blocked == []


def test_reissue_voids_earlier_codes(estate: Estate, page: Page) -> None:
    """(I8) The page says how many; codes that are kept still work."""
    holder = estate.holder(pin=False)
    open_procedure(page, holder, url(estate))
    first = generate(page, 3)
    save(page)
    open_procedure(page, holder, url(estate, 0))
    second = generate(page, 2)
    save(page)
    expect(page.locator("#saved")).to_contain_text("3 earlier codes are void now")
    one, two, three = estate.cluster.nodes
    assert not estate.accepts(one, holder, first[0])
    assert estate.accepts(two, holder, second[0])
    page.get_by_role("link", name="Done").press("Enter")
    expect(page.locator(".set").last).to_contain_text("3 void")
    page.get_by_label("Keep the 1 unused code").check()
    third = generate(page, 1)
    save(page)
    assert estate.accepts(three, holder, second[1])
    assert estate.accepts(one, holder, third[0])


def test_the_help_desk_is_limited_to_its_role(
    estate: Estate, shown: Exhibition, help_desk: Page
) -> None:
    """(P1) The help desk issues codes; other pages are not offered, and refused."""
    base = url(estate, 1)
    help_desk.get_by_role("link", name="SecurID Tokens").click()
    navigation = help_desk.get_by_role("navigation", name="Security Console")
    expect(navigation.get_by_role("link", name="Audit log")).to_have_count(0)
    help_desk.get_by_label("Search").fill(shown.bela.serial)
    help_desk.get_by_role(
        "button", name=f"Actions for token {shown.bela.serial}"
    ).click()
    menu = help_desk.locator(".menu:popover-open")
    expect(menu.get_by_role("link", name="Clear PIN")).to_be_visible()
    expect(menu.get_by_role("link", name="Disable")).to_have_count(0)
    menu.get_by_role("link", name="Emergency Access Tokencodes").click()
    generate(help_desk, 2)
    save(help_desk)
    for path in (
        "/audit",
        "/cluster",
        "/new/user",
        f"/tokens/{shown.bela.serial}/delete",
    ):
        answer = help_desk.goto(base + path)
        assert answer is not None
        assert answer.status == 403
        expect(help_desk.get_by_role("heading", level=1)).to_have_text("Not permitted")


def test_on_a_phone_user_and_save_stay_in_reach(estate: Estate, page: Page) -> None:
    """The form begins with whom it is for, and Generate asks before it replaces codes."""
    holder = estate.holder(pin=False)
    page.set_viewport_size(PHONE)
    try:
        open_procedure(page, holder, url(estate))
        person = page.locator(".for-whom")
        expect(person).to_contain_text(holder.serial)
        codes = generate(page, 20)
        expect(person).to_be_in_viewport()
        expect(page.locator("#save")).to_be_in_viewport()
        page.locator("#generate").click()
        expect(page.locator("#replacing")).to_be_focused()
        assert page.locator("#codes .code").all_text_contents() == codes
        page.get_by_role("button", name="Replace the codes").click()
        expect(page.locator("#codes .code").first).not_to_have_text(codes[0])
        save(page)
    finally:
        page.set_viewport_size(DESK)


def test_an_obstacle_is_on_the_form_and_the_page_of_the_user(
    estate: Estate, help_desk: Page
) -> None:
    """(U3) The help desk reads why the user was refused, and whom to ask."""
    holder = estate.holder(pin=False)
    estate.admin.update_user(holder.username, enabled=False)
    assert not estate.accepts(estate.cluster.nodes[0], holder, holder.tokencode())
    open_procedure(help_desk, holder, url(estate, 1))
    expect(help_desk.locator(".obstacle").first).to_contain_text(
        "The user is disabled: every passcode is refused. Ask a super administrator"
    )
    help_desk.goto(f"{url(estate, 1)}/users/{holder.username}")
    expect(help_desk.locator("#attempts li").first).to_contain_text("Refused")


def test_a_wrong_date_is_reported_beside_the_field(estate: Estate, page: Page) -> None:
    """The input is kept: the same codes are saved with the corrected date."""
    holder = estate.holder(pin=False)
    open_procedure(page, holder, url(estate))
    codes = generate(page, 2)
    page.get_by_label("Date").fill("2020-02-29")
    page.get_by_label("Time of day").fill("12:00")
    page.locator("#save").click()
    expect(page.locator("#expires-problem")).to_have_text(
        "This time is in the past. Choose a later one."
    )
    assert page.get_by_label("Date").get_attribute("aria-describedby") == (
        "expires-problem"
    )
    expect(page.locator("#problem")).to_be_focused()
    assert page.get_by_label("Time zone").input_value() == "Europe/Berlin"
    page.get_by_label("Date").fill("2030-02-28")
    save(page)
    assert page.locator("#codes .code").all_text_contents() == codes
    assert estate.accepts(estate.cluster.nodes[2], holder, codes[0])


def test_two_administrators_at_once(
    estate: Estate, page: Page, help_desk: Page
) -> None:
    """(I3) At two nodes, for one token: one set is committed, the other refused."""
    holder = estate.holder(pin=False)
    open_procedure(page, holder, url(estate))
    open_procedure(help_desk, holder, url(estate, 1))
    mine, theirs = generate(page, 2), generate(help_desk, 2)
    save(help_desk)
    page.locator("#save").click()
    expect(page.locator("#codes-problem")).to_contain_text("Generate codes again")
    again = generate(page, 3)
    save(page)
    node = estate.cluster.nodes[2]
    assert estate.accepts(node, holder, again[0])
    assert not estate.accepts(node, holder, theirs[0])
    assert not estate.accepts(node, holder, mine[0])


def test_the_procedure_by_keyboard_alone(estate: Estate, page: Page) -> None:
    """From the search to saved codes, without a mouse."""
    holder = estate.holder(pin=False)
    page.goto(url(estate) + "/tokens")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type(holder.username)
    expect(page).to_have_url(re.compile(f"q={holder.username}&"))
    expect(page.locator("#results tbody tr")).to_have_count(1)
    actions = page.get_by_role("button", name=f"Actions for token {holder.serial}")
    _tab_to(page, actions)
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator(".menu a").first).to_be_focused()
    page.keyboard.press("Enter")
    _tab_to(page, page.locator("#generate"))
    page.keyboard.press("Enter")
    expect(page.locator("#codes .code")).to_have_count(10)
    assert re.fullmatch(
        r"Code 1: (\w ){3}\w, (\w ){3}\w",
        page.locator("#codes li .unseen").first.inner_text(),
    )
    _tab_to(page, page.locator("#save"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")
    expect(
        page.get_by_role("status")
    ).to_be_focused()  # A screen reader therefore reads it.


def test_a_person_is_found_by_keyboard_from_any_page(
    estate: Estate, help_desk: Page
) -> None:
    """The slash leads to the search, except while a text is typed."""
    holder = estate.holder(f"zoltan.{os.getpid()}")
    for width in (DESK, PHONE):
        help_desk.set_viewport_size(width)
        open_procedure(help_desk, holder, url(estate, 1))
        help_desk.get_by_label("Number of tokencodes").press("/")
        expect(help_desk.get_by_label("Number of tokencodes")).to_be_focused()
        help_desk.locator("#main").focus()
        help_desk.keyboard.press("/")
        expect(help_desk.locator("#find")).to_be_focused()
        help_desk.keyboard.type(f"ZOLTÁN {os.getpid()}")
        help_desk.keyboard.press("Enter")
        expect(help_desk).to_have_url(f"{url(estate, 1)}/users/{holder.username}")
        assert holder.serial in help_desk.locator("main").inner_text()


def _tab_to(page: Page, wanted: object) -> None:
    for _ in range(40):
        if wanted.evaluate("each => each === document.activeElement"):  # type: ignore[attr-defined]
            return
        page.keyboard.press("Tab")
    raise AssertionError("the Tab key does not reach the element")


@pytest.fixture
def operator(
    chromium: Browser, estate: Estate, shown: Exhibition
) -> Iterator[tuple[Page, Balancer]]:
    """Return the operator's browser, behind one address for all nodes."""
    window = new_window(chromium)
    page = window.new_page()
    with Balancer() as balancer:
        balancer.choose(estate.cluster.nodes[0])
        sign_in(page, balancer.url, OPERATOR, PASSWORD)
        yield page, balancer
        window.close()


@pytest.fixture
def super_administrator(
    chromium: Browser, estate: Estate, shown: Exhibition
) -> Iterator[tuple[Page, Balancer]]:
    """Return a super administrator's browser, behind one address for all nodes."""
    window = new_window(chromium)
    page = window.new_page()
    with Balancer() as balancer:
        balancer.choose(estate.cluster.nodes[0])
        sign_in(page, balancer.url, SUPER, PASSWORD)
        yield page, balancer
        window.close()


def test_a_super_administrator_replaces_the_key_and_takes_a_backup(
    estate: Estate,
    shown: Exhibition,
    super_administrator: tuple[Page, Balancer],
    tmp_path: Path,
) -> None:
    """(T3, P5) The page refreshes itself, on another node too; sign-in works throughout."""
    page, balancer = super_administrator
    page.get_by_role("link", name="Key ring").click()
    key_id = int(page.locator("#progress b").inner_text().removeprefix("Key ")) + 1
    balancer.choose(estate.cluster.nodes[1])
    page.get_by_role("button", name="Replace the key").click()
    expect(page.get_by_role("status")).to_contain_text(
        f"Key {key_id} is active on all nodes"
    )
    expect(page.locator("#progress")).to_contain_text(
        f"Everything is sealed with key {key_id}", timeout=PATIENCE_MS
    )
    expect(page.get_by_role("button", name="Replace the key")).to_be_visible()
    two, three = estate.cluster.nodes[1:]
    other = estate.holder(pin=False)
    assert estate.accepts(three, other, other.tokencode())
    page.get_by_role("link", name="Backups").click()
    with page.expect_download() as begun:
        page.get_by_role("button", name="Take and download").click()
    kept = tmp_path / begun.value.suggested_filename
    begun.value.save_as(kept)
    assert kept.suffix == ".backup"
    with tarfile.open(kept) as archive:
        assert len(archive.getnames()) > 1
        content = archive.extractfile(MANIFEST)
        assert content is not None
        index = json.load(content)["manifest"]["index"]
    estate.until_backed_up(index)
    # The page asks by itself.
    answer = page.wait_for_event(
        "response", lambda each: "watching=1" in each.url, timeout=PATIENCE_MS
    )
    assert answer.ok
    expect(page.locator("#last")).to_contain_text(
        f"Up to log index {rendering.number(index)}",
        timeout=PATIENCE_MS,
        use_inner_text=True,
    )
    expect(page.locator("footer")).to_contain_text(two.node_id)


def test_a_ticket_is_made_once_another_super_administrator_has_approved(
    estate: Estate, super_administrator: tuple[Page, Balancer]
) -> None:
    """(P3, P5) The ticket is shown once, after the approval of exactly this one."""
    page, _ = super_administrator
    page.get_by_role("link", name="Cluster", exact=True).click()
    page.get_by_role("link", name="Add a node").click()
    page.get_by_label("The new node’s id").fill("n4")
    page.get_by_label("Address").fill("n4.example.com:7301")
    page.get_by_role("button", name="Make a ticket").click()
    problem = page.locator("#problem")
    expect(problem).to_contain_text("Make the same ticket again after the approval")
    number = problem.inner_text().partition("(approval ")[2].partition(")")[0]
    estate.admin.approve(int(number))
    page.get_by_role("button", name="Make a ticket").click()
    ticket = page.locator("#ticket").inner_text()
    assert ticket.startswith("sparecode-join-1:")
    with page.expect_download() as begun:
        page.get_by_role("button", name="Download n4.ticket").click()
    assert begun.value.path().read_text().strip() == ticket
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cluster")
    assert ticket not in page.content()


def test_an_operator_transfers_the_primary_role(
    estate: Estate, operator: tuple[Page, Balancer]
) -> None:
    """The table of members shows the new primary."""
    page, _ = operator
    page.get_by_role("link", name="Cluster", exact=True).click()
    next_one = estate.replicas()[0]
    page.get_by_role("link", name=f"Make {next_one.node_id} the primary").click()
    page.get_by_role("button", name="Transfer").click()
    expect(page.get_by_role("status")).to_contain_text(
        f"{next_one.node_id} is the primary now"
    )
    assert estate.primary() is next_one


def test_a_second_factor_is_set_up_over_two_nodes(
    estate: Estate, operator: tuple[Page, Balancer]
) -> None:
    """(I3, P1) The secret is drawn on one node, confirmed on another, used on the third."""
    page, balancer = operator
    _, two, three = estate.cluster.nodes
    page.get_by_role("link", name=OPERATOR).click()
    page.get_by_role("link", name="Set up a second factor").click()
    page.get_by_role("button", name="Set up").click()
    expect(page.get_by_role("img", name="QR code of the secret")).to_be_visible()
    app = pyotp.TOTP(page.locator("#secret").inner_text().replace(" ", ""))
    balancer.choose(two)
    page.get_by_label("Code that the app shows").fill(app.now())
    page.get_by_role("button", name="Confirm").click()
    expect(page.get_by_role("status")).to_contain_text("Your second factor is set")
    balancer.choose(three)
    page.get_by_role("button", name="Sign out", exact=True).click()
    page.get_by_label("Name").fill(OPERATOR)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("Second-factor code, if you have one").fill(
        app.at(time.time(), counter_offset=1)
    )
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Dashboard")


def test_quorum_lost_and_back(estate: Estate, page: Page) -> None:
    """(P2, A7) A banner, stale pages, refused changes; afterwards everything works."""
    here, two, three = estate.cluster.nodes
    holder = estate.holder(pin=False)
    open_procedure(page, holder, url(estate))
    codes = generate(page, 2)
    other = page.context.new_page()
    for node in (two, three):
        node.kill()
    address = url(estate) + f"/tokens/{holder.serial}"
    _open_until(other, address, "later changes may be missing")
    banner = other.get_by_role("alert").first
    expect(banner).to_contain_text("No quorum")
    expect(banner.get_by_role("link", name=two.node_id)).to_have_attribute(
        "href", f"{two.console_url}/tokens/{holder.serial}"
    )
    page.locator("#save").click()
    expect(page.locator("#problem")).to_contain_text(
        "nothing was changed", timeout=PATIENCE_MS
    )
    for node in (two, three):
        node.start()
    estate.cluster.wait_ready(here, two, three)
    page.locator("#save").click()
    expect(page.get_by_role("status")).to_contain_text(
        "Committed by a quorum", timeout=PATIENCE_MS
    )
    assert estate.accepts(two, holder, codes[0])
    other.reload()
    expect(other.get_by_role("alert")).to_have_count(0)
    other.close()


def _open_until(page: Page, address: str, words: str) -> None:
    deadline = time.monotonic() + PATIENCE.total_seconds()
    while words not in (page.goto(address) and page.content()):
        assert time.monotonic() < deadline, f"no page showed: {words}"


def test_a_page_of_a_hanging_node_links_to_the_others(
    estate: Estate, page: Page
) -> None:
    """The node accepts connections but never answers, so the search times out."""
    here, two, three = estate.cluster.nodes
    page.goto(url(estate) + "/tokens")
    assert here.pid is not None
    os.kill(here.pid, signal.SIGSTOP)
    try:
        page.get_by_label("Search").press_sequentially("a")
        banner = page.locator("#unreachable")
        expect(banner).to_contain_text("This node does not answer", timeout=PATIENCE_MS)
        expect(banner.get_by_role("link", name=three.node_id)).to_be_visible()
    finally:
        os.kill(here.pid, signal.SIGCONT)
    estate.cluster.wait_ready(here, two, three)


def test_a_page_of_a_killed_node_links_to_the_others(
    estate: Estate, page: Page
) -> None:
    """The open page knows the addresses of the other nodes' consoles."""
    here, two, _ = estate.cluster.nodes
    page.goto(url(estate) + "/tokens")
    here.kill()
    page.get_by_label("Search").press_sequentially("a")
    banner = page.locator("#unreachable")
    expect(banner).to_contain_text("This node does not answer")
    expect(banner.get_by_role("link", name=two.node_id)).to_have_attribute(
        "href", f"{two.console_url}/tokens"
    )


def test_a_draft_outlives_the_node_that_made_it(
    chromium: Browser, estate: Estate
) -> None:
    """
    (I3) Save on a dead node: the notice is at the button, and takes the draft along.

    The links of the banner and of the foot of the page do, too.
    """
    here, two, three = estate.cluster.nodes
    here.start()
    estate.cluster.wait_ready(here, two, three)
    holder = estate.holder(pin=False)
    window = new_window(chromium, viewport=PHONE)
    page = window.new_page()
    sign_in(page, url(estate), ADMINISTRATOR, estate.cluster.password)
    open_procedure(page, holder, url(estate))
    codes = generate(page, 2)
    here.kill()
    page.evaluate("window.scrollTo(0, 0)")
    page.locator("#save").click()
    notice = page.locator("#gone")
    expect(notice).to_contain_text("does not answer")
    expect(notice).to_have_attribute("role", "alert")
    expect(notice).to_be_focused()
    expect(notice).to_be_in_viewport()
    assert page.locator("#codes .code").all_text_contents() == codes
    with window.expect_page() as opened:
        notice.get_by_role("button", name=f"Continue on {two.node_id}").click()
    other = opened.value
    _sign_in_again(other, estate)
    assert other.locator("#codes .code").all_text_contents() == codes
    # A part of the page that is not the form asked the dead node, too.
    page.evaluate(
        "document.dispatchEvent(new CustomEvent('htmx:sendError', {detail: {}}))"
    )
    with window.expect_page() as opened:
        page.locator("#unreachable").get_by_role("link", name=two.node_id).click()
    again = opened.value
    _sign_in_again(again, estate)
    assert again.locator("#codes .code").all_text_contents() == codes
    with window.expect_page() as opened:
        page.locator("footer").get_by_role("link", name=three.node_id).click()
    third = opened.value
    _sign_in_again(third, estate)
    assert third.locator("#codes .code").all_text_contents() == codes
    save(third)
    assert estate.accepts(two, holder, codes[0])
    window.close()


def _sign_in_again(page: Page, estate: Estate) -> None:
    """Sign in at another console, whose page then shows the form that came along."""
    page.get_by_label("Name").fill(ADMINISTRATOR)
    page.get_by_label("Password").fill(estate.cluster.password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Continue", exact=True).click()
    expect(page.locator("#codes")).to_be_visible()


def test_a_lost_node_is_removed_at_another_console(
    chromium: Browser, estate: Estate
) -> None:
    """(P5) The page shows the later quorum first; then two members continue."""
    here, _, three = estate.cluster.nodes
    here.kill()
    holder = estate.holder(pin=False)
    window = new_window(chromium)
    page = window.new_page()
    sign_in(page, url(estate, 1), ADMINISTRATOR, estate.cluster.password)
    page.get_by_role("link", name="Cluster", exact=True).click()
    expect(page.locator("#members")).to_contain_text("1 of 3 nodes down")
    page.get_by_role("link", name=f"Remove {here.node_id}").click()
    expect(page.locator("main")).to_contain_text("Afterwards 2 nodes vote")
    page.get_by_label(f"Type {here.node_id} to confirm").fill(here.node_id)
    page.get_by_role("button", name=f"Remove {here.node_id} permanently").click()
    expect(page.locator("#notice")).to_contain_text(
        f"{here.node_id} is no longer a member", timeout=PATIENCE_MS
    )
    expect(page.locator("#members tbody tr")).to_have_count(2)
    window.close()
    assert estate.accepts(three, holder, holder.tokencode())
