# SPDX-License-Identifier: Apache-2.0
"""What befalls a help desk, and an operator: in a browser, on three real nodes."""

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
from axe_playwright_python.sync_playwright import Axe
from local_cluster.cluster import ADMINISTRATOR
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    ViewportSize,
    expect,
)

from tests.console.balancer import Balancer
from tests.console.estate import (
    PASSWORD,
    PATIENCE,
    Estate,
    Holder,
    new_window,
    sign_in,
)
from tests.console.gallery import (
    HELP_DESK,
    OPERATOR,
    OWN_FACTOR,
    Exhibition,
    door,
    exhibits,
    furnish,
    with_second_factor,
)

PATIENCE_MS = PATIENCE.total_seconds() * 1000
WITHOUT_OPTIONS = {"exclude": ["option"]}
"""Hundreds of time zones, which are the browser's own to show."""
SERIOUS = {"serious", "critical"}
PARTS = 4
"""Of the pages: so that no test takes long enough to be taken for one that hangs."""
DESK: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}


@dataclass(frozen=True)
class Findings:
    """What was seen on the pages, by their names."""

    violations: dict[str, list[str]]
    widths: dict[str, int]
    elsewhere: list[str]
    """What was asked of anybody but the console."""
    blocked: list[str]
    """What the browser has not done since the page's own policy forbids it."""


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
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(Axe().axe_script)  # Half a megabyte: once for each page.
    found = page.evaluate(
        "([context, options]) => axe.run(context, options)", [WITHOUT_OPTIONS, options]
    )
    return [
        f"{each['id']}: {each['nodes'][0]['html']}"
        for each in found["violations"]
        if each["impact"] in SERIOUS
    ]


@pytest.fixture(scope="module", params=range(PARTS))
def looked_at(
    request: pytest.FixtureRequest,
    chromium: Browser,
    estate: Estate,
    shown: Exhibition,
    page: Page,
) -> Findings:
    """Look at every page once: with axe in light and dark, and at its width on a phone."""
    found: dict[str, list[str]] = {}
    widths: dict[str, int] = {}
    elsewhere: list[str] = []
    blocked: list[str] = []

    def ask(asked: Request) -> None:
        if not asked.url.startswith(url(estate)):
            elsewhere.append(asked.url)

    def say(said: ConsoleMessage) -> None:
        if "Content Security Policy" in said.text:
            blocked.append(said.text)

    page.on("request", ask)
    page.on("console", say)
    if request.param == 0:
        window = new_window(chromium)
        outside = window.new_page()
        door(outside, url(estate))
        _look(outside, "sign-in", found, widths)
        window.close()
    for exhibit in list(exhibits(shown))[request.param :: PARTS]:
        page.goto(url(estate) + exhibit.path)
        if exhibit.prepare:
            exhibit.prepare(page)
        _look(page, exhibit.name, found, widths)
    if request.param == PARTS - 1:
        own = with_second_factor(chromium, estate)
        for name, path in OWN_FACTOR.items():
            own.goto(url(estate) + path)
            _look(own, name, found, widths)
        own.context.close()
    page.remove_listener("request", ask)
    page.remove_listener("console", say)
    return Findings(found, widths, elsewhere, blocked)


def _look(
    page: Page, name: str, found: dict[str, list[str]], widths: dict[str, int]
) -> None:
    found[name] = violations(page)
    page.emulate_media(color_scheme="dark")
    found[f"{name}, dark"] = violations(page, "color-contrast")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(PHONE)
    widths[name] = page.evaluate("document.documentElement.scrollWidth")
    page.set_viewport_size(DESK)


def test_axe_finds_nothing_serious_on_any_page(looked_at: Findings) -> None:
    """Labels, names, structure; and contrast in the dark palette too."""
    assert {name: each for name, each in looked_at.violations.items() if each} == {}


def test_no_page_is_wider_than_a_phone(looked_at: Findings) -> None:
    """At 390 px nothing but a table scrolls sideways."""
    wide = [name for name, px in looked_at.widths.items() if px > PHONE["width"]]
    assert wide == []


def test_no_page_asks_anybody_else(looked_at: Findings) -> None:
    """No request leaves the console, and nothing of a page needs what its policy forbids."""
    assert looked_at.elsewhere == []
    assert looked_at.blocked == []


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
    expect(page.get_by_role("status")).to_be_focused()  # And so it is read out.


def _tab_to(page: Page, wanted: object) -> None:
    for _ in range(40):
        if wanted.evaluate("each => each === document.activeElement"):  # type: ignore[attr-defined]
            return
        page.keyboard.press("Tab")
    raise AssertionError("the Tab key does not lead there")


@pytest.fixture
def operator(
    chromium: Browser, estate: Estate, shown: Exhibition
) -> Iterator[tuple[Page, Balancer]]:
    """Return the operator's browser, behind one name over all nodes."""
    window = new_window(chromium)
    page = window.new_page()
    with Balancer() as balancer:
        balancer.choose(estate.cluster.nodes[0])
        sign_in(page, balancer.url, OPERATOR, PASSWORD)
        yield page, balancer
        window.close()


def test_an_operator_replaces_the_key_and_takes_a_backup(
    estate: Estate, shown: Exhibition, operator: tuple[Page, Balancer], tmp_path: Path
) -> None:
    """(T3, P5) The page follows by itself, at another node too; everybody signs in on."""
    page, balancer = operator
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
    assert estate.accepts(three, estate.holder(pin=False), estate.tokencode())
    page.get_by_role("link", name="Backups").click()
    with page.expect_download() as begun:
        page.get_by_role("button", name="Take and download").click()
    kept = tmp_path / begun.value.suggested_filename
    begun.value.save_as(kept)
    assert kept.suffix == ".backup"
    with tarfile.open(kept) as archive:
        assert len(archive.getnames()) > 1
    expect(page.locator("#last")).to_contain_text("just now", timeout=PATIENCE_MS)
    expect(page.locator("footer")).to_contain_text(two.node_id)


def test_an_operator_makes_a_ticket_and_hands_the_primary_over(
    estate: Estate, operator: tuple[Page, Balancer]
) -> None:
    """(P5) What is shown once is gone when one comes back; the members' table says who leads."""
    page, _ = operator
    page.get_by_role("link", name="Cluster", exact=True).click()
    page.get_by_role("link", name="Add a node").click()
    page.get_by_label("The new node’s id").fill("n4")
    page.get_by_role("button", name="Make a ticket").click()
    ticket = page.locator("#ticket").inner_text()
    assert ticket.startswith("sparecode-join-1:")
    with page.expect_download() as begun:
        page.get_by_role("button", name="Download n4.ticket").click()
    assert begun.value.path().read_text().strip() == ticket
    page.get_by_role("link", name="Done").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Cluster")
    assert ticket not in page.content()
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
    """(I3, P1) Drawn at one node, confirmed at another, asked for at the third."""
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
    """(P2, A7) A banner, stale reads, refused writes; then all is as before."""
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
        assert time.monotonic() < deadline, f"no page has said: {words}"


def test_a_node_that_hangs_says_where_the_others_are(
    estate: Estate, page: Page
) -> None:
    """It takes connections and answers nothing: a search is not waited for without end."""
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


def test_a_lost_node_is_removed_at_another_console(
    chromium: Browser, estate: Estate
) -> None:
    """(P5) It says first what the quorum is without it; then two members go on."""
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
    page.get_by_role("button", name=f"Remove {here.node_id} permanently").click()
    expect(page.get_by_role("status")).to_contain_text(
        f"{here.node_id} is no longer a member", timeout=PATIENCE_MS
    )
    expect(page.locator("#members tbody tr")).to_have_count(2)
    window.close()
    assert estate.accepts(three, holder, estate.tokencode())
