# SPDX-License-Identifier: Apache-2.0
"""The procedure in a browser, on three real nodes: any node can serve any step."""

import contextlib
import re
from collections.abc import Iterator

import pytest
from local_cluster.cluster import ADMINISTRATOR, LocalNode
from playwright.sync_api import Browser, Error, Locator, Page, Route, expect

from sparecode_client import Admin, NotSignedIn
from tests.console.balancer import Balancer
from tests.console.estate import PIN, Estate, Holder, new_window, sign_in

MANAGE = "Manage Emergency Access Tokencodes"


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    window = new_window(chromium)
    yield window.new_page()
    window.close()


def open_page_of(page: Page, holder: Holder) -> None:
    """Do steps 1 to 4: from the navigation to the page of the token."""
    page.get_by_role("link", name="SecurID Tokens").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Manage Existing Tokens")
    page.get_by_label("Search").press_sequentially(holder.username)
    # These are the results of the last search: no others will replace them.
    expect(page).to_have_url(re.compile(f"q={holder.username}&"))
    rows = page.locator("#results tbody tr")
    expect(rows).to_have_count(1)  # While the name is typed.
    rows.get_by_role("button", name=f"Actions for token {holder.serial}").click()
    page.get_by_role("link", name="Emergency Access Tokencodes").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(MANAGE)


def generate(page: Page, count: int) -> list[str]:
    """Do steps 5 to 9: choose type and number; return the codes."""
    page.get_by_label("Enable authentication with online emergency").check()
    page.get_by_label("Set of One-Time Tokencodes").check()
    page.get_by_label("Number of tokencodes").fill(str(count))
    page.locator("#generate").click()
    codes = page.locator("#codes .code")
    expect(codes).to_have_count(count)
    return codes.all_text_contents()


def served_by(page: Page) -> str:
    """Return the node that served the page, from its footer."""
    match = re.search(r"Served by (\S+)", page.locator("footer").inner_text())
    assert match
    return match.group(1)


def choose_end(page: Page, date: str = "2030-01-01") -> None:
    """Do step 10: set the expiration."""
    page.get_by_label("Date").fill(date)
    page.get_by_label("Time of day").fill("12:00")


@pytest.mark.long
def test_procedure_behind_one_address_for_all_nodes(estate: Estate, page: Page) -> None:
    """
    Twelve steps: Generate is served by a replica, Save by another node (I3).

    Then an agent's code is accepted at the third node, and afterwards refused at all.
    """
    one, two = estate.replicas()
    three = estate.primary()
    holder = estate.holder()
    with Balancer() as balancer:
        balancer.choose(one)
        sign_in(page, balancer.url, ADMINISTRATOR, estate.cluster.password)
        balancer.choose(two)  # Knows the session as well (P2).
        open_page_of(page, holder)
        balancer.choose(one)
        codes = generate(page, 5)
        assert served_by(page) == one.node_id
        assert len(set(codes)) == 5
        choose_end(page)
        page.get_by_label("Allow authentication with token at any time").check()
        balancer.choose(two)
        page.locator("#save").click()
        expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")
        assert page.locator("#node").inner_text() == two.node_id
        assert int(page.locator("#node").get_attribute("data-index") or "") > 0
        # Noon in Berlin, the browser's time zone; UTC on hover.
        end = page.locator("#saved time[title='2030-01-01 11:00 UTC']")
        expect(end.first).to_have_text("2030-01-01 12:00 CET")
        assert page.locator("#codes .code").all_text_contents() == codes

        assert estate.accepts(three, holder, PIN + codes[0])
        for node in estate.cluster.nodes:
            assert not estate.accepts(node, holder, PIN + codes[0])
        balancer.choose(one)
        page.get_by_role("link", name="Done").press("Enter")
        issued = page.locator(".set").first
        expect(issued).to_contain_text("4 live")
        expect(issued).to_contain_text("1 used")
        assert not any(code in page.content() for code in codes)


def test_procedure_at_two_addresses(estate: Estate, page: Page) -> None:
    """
    Generate at one node's address, continue and save at another's, signed in at both.

    The form travels along: codes, choices, and the sealed draft that any node can open.
    """
    one, two = estate.replicas()
    holder = estate.holder()
    sign_in(page, one.console_url, ADMINISTRATOR, estate.cluster.password)
    open_page_of(page, holder)
    codes = generate(page, 3)
    choose_end(page)
    with page.context.expect_page() as opened:
        page.get_by_role("button", name=two.node_id, exact=True).click()
    other = opened.value
    other.get_by_label("Name").fill(ADMINISTRATOR)
    other.get_by_label("Password").fill(estate.cluster.password)
    other.get_by_role("button", name="Sign in").click()
    other.get_by_role("button", name="Continue").click()
    expect(other.get_by_role("heading", level=1)).to_have_text(MANAGE)
    assert other.url.startswith(two.console_url)
    assert served_by(other) == two.node_id
    assert other.locator("#codes .code").all_text_contents() == codes
    assert other.get_by_label("Date").input_value() == "2030-01-01"
    other.locator("#save").click()
    expect(other.get_by_role("status")).to_contain_text("Committed by a quorum")
    assert other.locator("#node").inner_text() == two.node_id
    assert estate.accepts(estate.primary(), holder, PIN + codes[1])


KEYS_AT_MOST = 40
"""From the dashboard to saved codes; a person presses three a second."""


def test_a_name_heard_on_the_phone_becomes_codes_by_few_keys(
    estate: Estate, page: Page
) -> None:
    """Meier in accounting is Eva Meyer: found by sound and group, without a mouse."""
    holder = estate.holder("eva.meyer")
    estate.holder("hans.mayer")
    estate.admin.update_user("eva.meyer", join_groups=["accounting"])
    estate.admin.update_user("hans.mayer", join_groups=["sales"])
    url = estate.cluster.nodes[0].console_url
    sign_in(page, url, ADMINISTRATOR, estate.cluster.password)
    pressed = 0

    def press(*keys: str) -> None:
        nonlocal pressed
        pressed += len(keys)
        for key in keys:
            page.keyboard.press(key)

    def tab_to(wanted: Locator) -> None:
        wanted.wait_for()
        while not wanted.evaluate("each => each === document.activeElement"):
            press("Tab")
            assert pressed <= KEYS_AT_MOST
            if page.locator(".skip:focus").count():
                press("Enter")
        press("Enter")

    press("/", *"meier accounting", "Enter")
    tab_to(page.get_by_role("link", name="Eva Meyer"))
    tab_to(page.get_by_role("link", name="Emergency Access Tokencodes"))
    tab_to(page.locator("#generate"))
    expect(page.locator("#codes .code")).to_have_count(10)
    tab_to(page.locator(".shortcut"))
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")
    code = page.locator("#codes .code").first.inner_text()
    assert estate.accepts(estate.primary(), holder, PIN + code)


def test_leaving_with_unsaved_codes_warns(estate: Estate, page: Page) -> None:
    holder = estate.holder()
    url = estate.cluster.nodes[0].console_url
    sign_in(page, url, ADMINISTRATOR, estate.cluster.password)
    open_page_of(page, holder)
    codes = generate(page, 2)
    dialogs = []
    page.once("dialog", lambda dialog: (dialogs.append(dialog.type), dialog.dismiss()))
    page.get_by_role("button", name="Sign out").click()
    assert dialogs == ["beforeunload"]
    assert page.locator("#codes .code").all_text_contents() == codes
    dialogs.clear()
    page.on("dialog", lambda dialog: (dialogs.append(dialog.type), dialog.accept()))
    page.get_by_role("link", name="SecurID Tokens").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Manage Existing Tokens")
    assert dialogs == ["beforeunload"]
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text(MANAGE)
    assert page.locator("#codes").count() == 0


def test_codes_are_copied_and_downloaded_and_then_gone_from_the_browser(
    estate: Estate, page: Page
) -> None:
    """Nothing remains in the browser: no page on the way back, and no storage."""
    holder = estate.holder()
    url = estate.cluster.nodes[0].console_url
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    sign_in(page, url, ADMINISTRATOR, estate.cluster.password)
    open_page_of(page, holder)
    codes = generate(page, 3)
    page.locator("#save").click()
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "\n".join(codes)
    with page.expect_download() as begun:
        page.get_by_role("button", name="Download", exact=True).click()
    sheet = begun.value.path().read_text()
    assert all(f"[ ] {n:>3}  {code}" in sheet for n, code in enumerate(codes, start=1))
    page.get_by_role("link", name="Done").press("Enter")
    expect(page.locator(".set").first).to_contain_text("3 live")
    page.go_back()
    page.wait_for_load_state()
    left = page.content() + page.url + page.title()
    left += page.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, history.state])"
    )
    left += str(page.context.cookies())
    assert not any(code in left or code.replace("-", "") in left for code in codes)


def test_reload_and_history_save_nothing_twice(estate: Estate, page: Page) -> None:
    """(Q1) Reload, back and forward: one set, and its codes are not shown again."""
    holder = estate.holder()
    url = estate.cluster.nodes[2].console_url
    sign_in(page, url, ADMINISTRATOR, estate.cluster.password)
    open_page_of(page, holder)
    codes = generate(page, 3)
    page.locator("#save").click()
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")
    for step in (page.reload, page.go_back, page.go_forward):
        step()
        if step == page.go_back:
            expect(page.get_by_role("heading", level=1)).to_have_text(
                "Manage Existing Tokens"
            )
            continue
        expect(page.get_by_role("heading", level=1)).to_have_text(MANAGE)
        expect(page.locator(".set")).to_have_count(1)
        expect(page.locator(".set")).to_contain_text("3 live")
        assert not any(code in page.content() for code in codes)
    assert estate.accepts(estate.primary(), holder, PIN + codes[2])


def test_procedure_without_javascript(chromium: Browser, estate: Estate) -> None:
    """The same steps with forms and links only; no code remains on the way back."""
    holder = estate.holder()
    window = new_window(chromium, java_script_enabled=False)
    page = window.new_page()
    one, two, _ = estate.cluster.nodes
    sign_in(page, one.console_url, ADMINISTRATOR, estate.cluster.password)
    page.get_by_role("link", name="SecurID Tokens").click()
    page.get_by_label("Search").fill(holder.username)
    page.get_by_role("button", name="Search").click()
    row = page.locator("#results tbody tr")
    expect(row).to_have_count(1)
    row.get_by_role("button", name=f"Actions for token {holder.serial}").click()
    page.get_by_role("link", name="Emergency Access Tokencodes").click()
    codes = generate(page, 3)
    choose_end(page)
    page.locator("#save").click()
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")
    index = page.locator("#node").get_attribute("data-index") or ""
    page.reload()  # The browser sends the same form again (Q1).
    expect(page.locator("#node")).to_have_attribute("data-index", index)
    assert page.locator("#codes .code").all_text_contents() == codes
    assert estate.accepts(two, holder, PIN + codes[0])
    page.get_by_role("link", name="Done").press("Enter")
    expect(page.locator(".set")).to_have_count(1)
    expect(page.locator(".set").first).to_contain_text("2 live")
    with contextlib.suppress(Error):
        page.go_back()  # The browser asks before it would send the form again.
    expect(page.get_by_role("link", name="Done")).to_have_count(0)
    expect(page.locator(".code")).to_have_count(0)
    window.close()


def test_late_results_leave_an_open_menu_alone(estate: Estate, page: Page) -> None:
    """A menu opened before late results arrive stays open; closing it searches again."""
    holder = estate.holder()
    url = estate.cluster.nodes[0].console_url
    sign_in(page, url, ADMINISTRATOR, estate.cluster.password)
    page.goto(f"{url}/tokens?q={holder.username}")
    held: list[Route] = []
    # A function of its own, because Playwright sets attributes on it.
    page.route(re.compile("/tokens[?]q="), lambda route: held.append(route))  # noqa: PLW0108
    with page.expect_request(re.compile("/tokens[?]q=")):
        page.get_by_label("Search").press("End")
        page.get_by_label("Search").press("Backspace")
    page.get_by_role("button", name=f"Actions for token {holder.serial}").click()
    page.evaluate(
        """() => {
            window.came = new Promise((come) =>
                document.addEventListener("htmx:afterRequest", come, {once: true}));
        }"""
    )
    held.pop().continue_()
    page.evaluate("window.came.then(() => true)")
    expect(page.locator(".menu:popover-open")).to_be_visible()
    page.unroute_all()
    page.keyboard.press("Escape")
    expect(page).to_have_url(re.compile(f"q={holder.username[:-1]}&"))
    expect(page.locator("#results tbody tr")).to_have_count(1)


def test_text_typed_before_the_script_loaded_is_searched_for(
    estate: Estate, page: Page
) -> None:
    """The field has the focus before the script has loaded."""
    holder = estate.holder()
    url = estate.cluster.nodes[0].console_url
    sign_in(page, url, ADMINISTRATOR, estate.cluster.password)
    held: list[Route] = []
    page.route("**/htmx.min.js", lambda route: held.append(route))  # noqa: PLW0108
    page.goto(f"{url}/tokens", wait_until="commit")
    page.get_by_label("Search").press_sequentially(holder.username)
    held.pop().continue_()
    expect(page).to_have_url(re.compile(f"q={holder.username}&"))
    expect(page.locator("#results tbody tr")).to_have_count(1)


def test_enter_in_a_field_never_draws_other_codes(estate: Estate, page: Page) -> None:
    """With codes on the page, Enter presses Save, so the codes on paper become live."""
    holder = estate.holder()
    url = estate.cluster.nodes[1].console_url
    sign_in(page, url, ADMINISTRATOR, estate.cluster.password)
    open_page_of(page, holder)
    codes = generate(page, 2)
    page.get_by_label("Number of tokencodes").press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")
    assert page.locator("#codes .code").all_text_contents() == codes


@pytest.mark.parametrize(
    ("choice", "token_works", "codes_work_after"),
    [
        ("Deny authentication with token", False, True),
        ("Allow authentication with token at any time", True, False),
        ("Allow authentication with token only after", False, True),
    ],
)
def test_each_recovery_option(
    estate: Estate,
    page: Page,
    choice: str,
    token_works: bool,
    codes_work_after: bool,
) -> None:
    """(R) The token is recovered: the chosen option takes effect."""
    holder = estate.holder()
    one, two, three = estate.cluster.nodes
    sign_in(page, one.console_url, ADMINISTRATOR, estate.cluster.password)
    open_page_of(page, holder)
    codes = generate(page, 2)
    choose_end(page)
    page.get_by_role("radio", name=choice).first.check()
    page.locator("#save").click()
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")
    assert estate.accepts(two, holder, PIN + codes[0])
    assert estate.accepts(three, holder, PIN + holder.tokencode()) is token_works
    assert estate.accepts(two, holder, PIN + codes[1]) is codes_work_after


def test_the_sheet_prints_on_one_page(estate: Estate, page: Page) -> None:
    """The PDF has the sheet and no other part of the page."""
    holder = estate.holder()
    url = estate.cluster.nodes[0].console_url
    sign_in(page, url, ADMINISTRATOR, estate.cluster.password)
    open_page_of(page, holder)
    codes = generate(page, 50)
    page.locator("#save").click()
    expect(page.get_by_role("status")).to_contain_text("Committed by a quorum")
    page.emulate_media(media="print")
    sheet = page.locator(".sheet")
    expect(sheet).to_be_visible()
    expect(page.get_by_role("navigation").first).to_be_hidden()
    expect(page.locator("#saved")).to_be_hidden()
    printed = sheet.inner_text()
    assert all(code in printed for code in codes)
    assert holder.username in printed
    assert holder.serial in printed
    for form in ("A4", "Letter"):
        pdf = page.pdf(format=form)
        assert pdf.startswith(b"%PDF")
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1


def test_a_command_line_is_approved_at_another_node(estate: Estate, page: Page) -> None:
    """(P9) Asked for at one node, approved at the next, and collected at the third."""
    one, two, three = estate.cluster.nodes

    def visitor(node: LocalNode) -> Admin:
        return Admin([node.admin_address], ca=estate.cluster.members_ca)

    with visitor(one) as asking, visitor(three) as collecting:
        login = asking.start_browser_login(ADMINISTRATOR, client_name="laptop")
        assert login.page == f"{one.console_url}/account/command-line"
        sign_in(page, two.console_url, ADMINISTRATOR, estate.cluster.password)
        page.goto(login.page.replace(one.console_url, two.console_url))
        page.get_by_label("Code").fill(login.user_code)
        page.get_by_role("button", name="Continue").click()
        expect(page.get_by_text("Approve only what you have started")).to_be_visible()
        page.get_by_role("button", name="Approve").click()
        expect(page.get_by_role("status")).to_contain_text("Approved")
        while (session := collecting.collect_browser_login(login)) is None:
            page.wait_for_timeout(100)  # The third node may lag for a moment.
        assert session.role == "super_admin"
        assert collecting.who_am_i().administrator == ADMINISTRATOR
        listed = estate.admin.list_sessions().items
        (own,) = (each for each in listed if each.door == "browser")
        assert own.node_id == three.node_id
        with pytest.raises(NotSignedIn, match="already collected"):
            asking.collect_browser_login(login)
