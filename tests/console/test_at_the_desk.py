# SPDX-License-Identifier: Apache-2.0
"""What befalls a help desk: in a browser, on three real nodes."""

import re
import time
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from local_cluster.cluster import ADMINISTRATOR
from playwright.sync_api import Browser, Page, expect

from tests.console.estate import (
    PASSWORD,
    PATIENCE,
    Estate,
    Holder,
    new_window,
    sign_in,
)
from tests.console.gallery import HELP_DESK, Exhibition, door, exhibits, furnish

PATIENCE_MS = PATIENCE.total_seconds() * 1000
WITHOUT_OPTIONS = {"exclude": ["option"]}
"""Hundreds of time zones, which are the browser's own to show."""
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def shown(estate: Estate) -> Exhibition:
    """Furnish the cluster."""
    return furnish(estate)


@pytest.fixture(scope="module")
def page(chromium: Browser, estate: Estate, shown: Exhibition) -> Iterator[Page]:
    """Return the browser of an administrator who has signed in at the first node."""
    window = new_window(chromium)
    page = window.new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, url(estate), ADMINISTRATOR, estate.cluster.password)
    yield page
    window.close()


@pytest.fixture
def help_desk(chromium: Browser, estate: Estate, shown: Exhibition) -> Iterator[Page]:
    """Return the browser of the help desk, at the second node."""
    window = new_window(chromium)
    page = window.new_page()
    page.on("dialog", lambda dialog: dialog.accept())
    sign_in(page, url(estate, 1), HELP_DESK, PASSWORD)
    yield page
    window.close()


def url(estate: Estate, node: int = 0) -> str:
    """Return where the console of a node is."""
    return estate.cluster.nodes[node].console_url


def open_procedure(page: Page, holder: Holder, base: str) -> None:
    """Open the page of the procedure for a token."""
    page.goto(f"{base}/tokens/{holder.serial}/emergency-access")


def generate(page: Page, count: int) -> list[str]:
    """Generate codes, and write them down."""
    page.get_by_label("Number of tokencodes").fill(str(count))
    page.locator("#generate").click()
    codes = page.locator("#codes .code")
    expect(codes).to_have_count(count)
    return codes.all_text_contents()


def save(page: Page) -> None:
    """Save, and see that it is."""
    page.locator("#save").click()
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")


def violations(page: Page, *rules: str) -> list[str]:
    """Return what axe finds serious on a page, by all rules or by some."""
    options: dict[str, object] = {"resultTypes": ["violations"]}
    if rules:
        options["runOnly"] = list(rules)
    return [
        f"{each['id']}: {each['nodes'][0]['html']}"
        for each in Axe()
        .run(page, context=WITHOUT_OPTIONS, options=options)
        .response["violations"]
        if each["impact"] in SERIOUS
    ]


@pytest.mark.parametrize("part", range(3))
def test_axe_finds_nothing_serious_on_any_page(
    chromium: Browser, estate: Estate, shown: Exhibition, page: Page, part: int
) -> None:
    """Labels, names, structure; and contrast in the dark palette too."""
    found = {}
    for exhibit in list(exhibits(shown))[part::3]:
        page.goto(url(estate) + exhibit.path)
        if exhibit.prepare:
            exhibit.prepare(page)
        found[exhibit.name] = violations(page)
        page.emulate_media(color_scheme="dark")
        found[f"{exhibit.name}, dark"] = violations(page, "color-contrast")
        page.emulate_media(color_scheme="light")
    window = new_window(chromium)
    outside = window.new_page()
    door(outside, url(estate))
    found["sign-in"] = violations(outside)
    window.close()
    assert {name: each for name, each in found.items() if each} == {}


def test_no_page_is_wider_than_a_phone(
    estate: Estate, shown: Exhibition, page: Page
) -> None:
    """At 390 px nothing but a table scrolls sideways."""
    page.set_viewport_size({"width": 390, "height": 844})
    wide = []
    for exhibit in exhibits(shown):
        page.goto(url(estate) + exhibit.path)
        if page.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(exhibit.name)
    page.set_viewport_size({"width": 1280, "height": 800})
    assert wide == []


def test_reissue_voids_what_was_issued_before(estate: Estate, page: Page) -> None:
    """(I8) And the page says how many; kept codes go on working."""
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
    page.get_by_role("link", name="Done").click()
    expect(page.locator(".set").last).to_contain_text("3 void")
    page.get_by_label("Keep the 1 unused code").check()
    third = generate(page, 1)
    save(page)
    assert estate.accepts(three, holder, second[1])
    assert estate.accepts(one, holder, third[0])


def test_a_role_that_may_not(
    estate: Estate, shown: Exhibition, help_desk: Page
) -> None:
    """(P1) The help desk issues, and is not offered what it may not; nor may it."""
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


def test_a_wrong_date_is_said_beside_the_field(estate: Estate, page: Page) -> None:
    """Nothing typed is lost: the codes that were written down are saved after all."""
    holder = estate.holder(pin=False)
    open_procedure(page, holder, url(estate))
    codes = generate(page, 2)
    page.get_by_label("Date").fill("2020-02-29")
    page.get_by_label("Time of day").fill("12:00")
    page.locator("#save").click()
    expect(page.locator("#expires-problem")).to_have_text(
        "This time has passed already. Choose one in the future."
    )
    assert page.get_by_label("Date").get_attribute("aria-describedby") == (
        "expires-problem"
    )
    assert page.get_by_label("Time zone").input_value() == "Europe/Berlin"
    page.get_by_label("Date").fill("2030-02-28")
    save(page)
    assert page.locator("#codes .code").all_text_contents() == codes
    assert estate.accepts(estate.cluster.nodes[2], holder, codes[0])


def test_two_administrators_at_once(
    estate: Estate, page: Page, help_desk: Page
) -> None:
    """(I3) At two nodes, for one token: one set comes of it, and the other is told."""
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
    """From the search to saved codes without a pointer."""
    holder = estate.holder(pin=False)
    page.goto(url(estate) + "/tokens")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type(holder.username)
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


def _tab_to(page: Page, wanted: object) -> None:
    for _ in range(40):
        if wanted.evaluate("each => each === document.activeElement"):  # type: ignore[attr-defined]
            return
        page.keyboard.press("Tab")
    raise AssertionError("the Tab key does not lead there")


def test_quorum_lost_and_back(estate: Estate, page: Page) -> None:
    """(P2, A7) A banner, stale reads, refused writes; then all is as before."""
    here, two, three = estate.cluster.nodes
    holder = estate.holder(pin=False)
    open_procedure(page, holder, url(estate))
    codes = generate(page, 2)
    other = page.context.new_page()
    for node in (two, three):
        node.kill()
    address = url(estate) + f"/tokens/{holder.serial}"
    _open_until(other, address, "it may miss what was changed")
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
        assert time.monotonic() < deadline, f"no page has said: {words}"


def test_a_node_that_is_gone_says_where_the_others_are(
    estate: Estate, page: Page
) -> None:
    """The page that is open still knows the consoles of the other nodes."""
    here, two, _ = estate.cluster.nodes
    page.goto(url(estate) + "/tokens")
    here.kill()
    page.get_by_label("Search").press_sequentially("a")
    banner = page.locator("#unreachable")
    expect(banner).to_contain_text("This node does not answer")
    expect(banner.get_by_role("link", name=two.node_id)).to_have_attribute(
        "href", f"{two.console_url}/tokens"
    )
