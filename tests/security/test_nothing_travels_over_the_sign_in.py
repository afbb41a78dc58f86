# SPDX-License-Identifier: Apache-2.0
"""
What a link or a form of a stranger can do at the console: nothing.

The cases come from the console's own routes (`VIEWS`) and from the forms that its pages
show, so a new page is attacked without being named here.
"""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
import pytest_asyncio

from sparecode_node.console.app import GET_ONLY, POST_ONLY, VIEWS
from sparecode_node.console.kit.forms import Form, Query
from sparecode_node.console.kit.security import (
    KEPT_COOKIE,
    SESSION_COOKIE,
    form_token,
)
from sparecode_node.console.kit.token_menu import ACTIONS
from sparecode_node.console.kit.visits import SIGN_IN
from sparecode_node.console.pages import passkeys
from sparecode_node.console.pages.kept_forms import LIFETIME_MS
from sparecode_node.console.public import not_me, sealed_codes
from sparecode_node.statemachine.digest import digest
from tests.console.desk import GATE, SIEM, Desk, desk
from tests.console.paper import Page, Paper
from tests.console.test_bulk_issue import second_super
from tests.console.test_pages import FOR_SCRIPTS, FORMS
from tests.services.one_node import PASSWORD, ROOT, SERIAL, VPN

pytestmark = pytest.mark.asyncio

PAGE = f"/tokens/{SERIAL}/emergency-access"
STRANGERS = "planted"
"""A value that no page shows by itself."""
STEERING = ("kept", "next", "action", "form_token", "confirm_password", "boxes")
CROSS_SITE = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
FOREIGN = {
    "another site": CROSS_SITE,
    "another site, by its origin": {"origin": "https://evil.example"},
    "another host of the domain": {"sec-fetch-site": "same-site"},
    "no page": {"sec-fetch-site": "none"},
    "no browser": {},
}


@pytest_asyncio.fixture(name="desk")
async def running_desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path) as running:
        yield running


ARGUMENTS = {
    "{serial}": [SERIAL],
    "{action}": [each.name for each in ACTIONS],
    "{node_id}": ["n3"],
    "{username:path}": ["alice"],
}
NAMES = {
    "/administrators/": ROOT,
    "/agent-keys/": VPN,
    "/agents/": VPN,
    "/channels/": SIEM,
    "/radius-clients/": GATE,
    "/radius-secrets/": GATE,
}
FILES = {"/audit/export", passkeys.OPTIONS, *FOR_SCRIPTS}
"""Answers without a form."""
PUBLIC = {
    SIGN_IN: (),
    passkeys.OPTIONS: (),
    sealed_codes.PAGE: (),
    not_me.PAGE: ("token",),
}
"""Addresses without a session, and what a link of ours may say there."""


def addresses(route: str) -> list[str]:
    """Return addresses of a route, with arguments that exist."""
    found = [route]
    begin = route.partition("{")[0]
    for part, values in {**ARGUMENTS, "{name:path}": [NAMES.get(begin, "")]}.items():
        if part in route:
            found = [each.replace(part, value) for each in found for value in values]
    assert not any("{" in each or each == begin for each in found if begin != route)
    return found


def state(desk: Desk) -> str:
    """Return the digest of everything that is replicated, the audit log included."""
    return digest(desk.node.primary_db)


async def forms_of(browser: Paper) -> dict[str, Page]:
    """Return every page, by its address, as an administrator sees it."""
    return {
        path: await browser.open(path)
        for route in sorted(VIEWS.keys() - POST_ONLY)
        for path in addresses(route)
        if path not in FILES
    }


def names_in(pages: dict[str, Page]) -> set[str]:
    """Return the names of all fields of all forms."""
    return {
        name
        for page in pages.values()
        for form in page.every_form
        for name in (
            *(each for each, _ in form.fields),
            *(each for each, _ in form.choices),
            *(each.name for each in form.buttons if each.name),
        )
    }


Sent = list[tuple[str, list[tuple[str, str]]]]


def sent_on(page: Page) -> Sent:
    """Return what the forms of a page would send, without what is drawn for each page."""
    drawn = {"form_token", "request_id", "unlock_id", "confirm_id", "webhook_secret"}
    drawn |= {"enrolled_draft", "enrolled_secret"}
    # The page to show after the sign-in, which test_security.py checks.
    drawn |= {"next"} if page.path == SIGN_IN else set()
    return [
        (form.action, [each for each in form.fields if each[0] not in drawn])
        for form in page.every_form
        if form.method.lower() == "post"
    ]


async def opened(browser: Paper, address: str) -> Sent:
    """Open an address; return what its forms would send."""
    if address.partition("?")[0] in FILES:
        await browser.client.get(address, follow_redirects=True)
        return []
    return sent_on(await browser.open(address))


async def test_a_query_is_no_form() -> None:
    """No name is shared, so a page that takes one for the other fails type checks."""
    shared = {each for each in {*dir(Form)} & {*dir(Query)} if not each.startswith("_")}
    assert shared == set()


@pytest.mark.parametrize("signed_in", [True, False])
async def test_a_link_fills_in_no_form(desk: Desk, signed_in: bool) -> None:
    """With every name of every form in the query, each page sends on what it did before."""
    await second_super(desk)
    await desk.node.enroll("777")
    reader = await desk.administrator()
    names = sorted({*names_in(await forms_of(reader)), *STEERING})
    assert len(names) > 60
    browser = reader if signed_in else await desk.browser()
    value = quote(urlencode({"action": "approve", "approval_id": "1"}))
    before = state(desk)
    for route in sorted({*VIEWS, *PUBLIC} - POST_ONLY):
        said = [each for each in names if each not in PUBLIC.get(route, ())]
        for path in addresses(route):
            plain = await opened(browser, path)
            for query in (
                urlencode(dict.fromkeys(said, STRANGERS)),
                f"kept={value}&next=/approvals&action=approve&approval_id=1",
                f"KEPT={value}&kept%5B%5D={value}&%6bept={value}",
            ):
                planted = await opened(browser, f"{path}?{query}")
                # A filter may find fewer rows, and so show fewer forms.
                assert all(each in plain for each in planted), path
                assert STRANGERS not in str(planted), path
    assert state(desk) == before


async def test_the_query_of_a_form_says_nothing(desk: Desk) -> None:
    """A form that is sent to an address with a query does what it does without it."""
    browser = await desk.administrator()
    names = sorted({*names_in(await forms_of(browser)), *STEERING} - {"form_token"})
    query = urlencode(dict.fromkeys(names, STRANGERS))
    for path, fields in posts():
        token = form_token(browser.client.cookies[SESSION_COOKIE])
        answer = await browser.client.post(
            f"{path}?{query}",
            data={**fields, "form_token": token, "request_id": str(uuid.uuid4())},
        )
        assert STRANGERS not in answer.text, path
        if SESSION_COOKIE not in browser.client.cookies or "sign-in" in str(
            answer.headers.get("location", "")
        ):
            browser = await desk.administrator()
    assert not any(STRANGERS in row for row in desk.node.primary_db.iterdump())


async def test_a_link_to_the_sign_in_page_carries_a_page_and_nothing_else(
    desk: Desk,
) -> None:
    """The link of the review of December 2026: it approved what the stranger wanted."""
    browser = await desk.browser()
    names = sorted({*names_in({"/": await browser.open("/sign-in")}), *STEERING})
    plain = sent_on(await browser.open("/sign-in"))
    fields = urlencode({"action": "approve", "approval_id": "1"})
    for query in (
        {**dict.fromkeys(names, STRANGERS), "next": "/"},
        {"kept": fields, "next": "/"},
        {"kept": quote(fields), "next": "//evil.example/"},
        {"kept": fields.encode().hex(), "next": "https://evil.example/"},
    ):
        planted = await browser.open(f"/sign-in?{urlencode(query)}")
        assert sent_on(planted) == plain
    page = await browser.open(f"/sign-in?{urlencode({'kept': fields})}")
    page = await browser.send("Sign in", administrator=ROOT, password=PASSWORD)
    assert page.path == "/"
    assert "approval_id" not in page.response.text


@pytest.mark.parametrize("who", FOREIGN)
async def test_a_form_from_elsewhere_changes_nothing(desk: Desk, who: str) -> None:
    """With the right token, too: what the browser states of the form decides."""
    browser = await desk.administrator()
    token = (await browser.open("/account")).form("/account/sign-out")
    del browser.client.headers["sec-fetch-site"]
    before = state(desk)
    sent = 0
    for path, fields in posts():
        answer = await browser.client.post(
            path,
            data={
                **fields,
                "form_token": token.value("form_token"),
                "request_id": str(uuid.uuid4()),
            },
            headers=FOREIGN[who],
        )
        assert answer.status_code == 403, path
        assert "Nothing was changed" in answer.text, path
        sent += 1
    assert sent > len(VIEWS) - len(GET_ONLY)
    assert state(desk) == before
    assert (await browser.open("/account")).path == "/account", "still signed in"


@pytest.mark.parametrize("token", ["none", "another session", "after sign-out"])
async def test_a_form_without_the_sessions_own_token_changes_nothing(
    desk: Desk, token: str
) -> None:
    browser, other = await desk.administrator(), await desk.administrator()
    own = (await browser.open("/account")).form("/account/sign-out").value("form_token")
    theirs = (await other.open("/account")).form("/account/sign-out")
    if token == "after sign-out":
        cookies = dict(browser.client.cookies)
        await browser.send("Sign out", action="/account/sign-out")
        for name, value in cookies.items():
            browser.client.cookies.set(name, value, domain="console.test")
    before = state(desk)
    for path, fields in posts():
        answer = await browser.client.post(
            path,
            data={
                **fields,
                "form_token": {
                    "none": "",
                    "another session": theirs.value("form_token"),
                    "after sign-out": own,
                }[token],
                "request_id": str(uuid.uuid4()),
            },
        )
        if token == "after sign-out":
            where = answer.headers.get("location", "/sign-in")
            assert where.startswith("/sign-in") or answer.status_code == 401, path
            if name := KEPT_COOKIE * (KEPT_COOKIE in browser.client.cookies):
                browser.client.cookies.delete(name, domain="console.test")
            continue
        assert answer.status_code == 403, path
    assert state(desk) == before


def posts() -> list[tuple[str, dict[str, str]]]:
    """Return every form of the page tests, and an empty one for each other route."""
    known: list[tuple[str, dict[str, str]]] = [
        (path, dict(fields)) for path, fields, _ in FORMS
    ]
    for route in VIEWS.keys() - GET_ONLY:
        known += [(path, {}) for path in addresses(route)]
    return known


# --- What is kept over the sign-in -------------------------------------------------


async def ended(desk: Desk, path: str, fields: dict[str, str]) -> tuple[Paper, Page]:
    """Send a form after its session has ended; return the browser and the answer."""
    browser = await desk.administrator()
    token = (await browser.open("/account")).form("/account/sign-out")
    await desk.node.login()
    await desk.node.sessions.logout_everywhere(
        desk.node.admin("SessionService/LogoutEverywhere")
    )
    answer = await browser.client.post(
        path,
        data={**fields, "form_token": token.value("form_token")},
        follow_redirects=True,
    )
    browser.page = Page(answer)
    return browser, browser.page


SAVE = {
    "action": "save",
    "online": "on",
    "kind": "fixed",
    "lifetime": "until",
    "expires_date": "2023-12-24",
    "expires_time": "17:00",
    "recovery": "deny",
}


async def signed_in(browser: Paper) -> Page:
    return await browser.send(
        "Sign in", action="/sign-in", administrator=ROOT, password=PASSWORD
    )


async def test_a_kept_form_is_read_before_it_is_sent(desk: Desk) -> None:
    browser, page = await ended(desk, PAGE, {**SAVE, "pin": "4711", "evil": "1"})
    assert "Your input is kept" in page.text
    assert "4711" not in page.response.text
    before = state(desk)
    page = await signed_in(browser)
    assert f"Issue a fixed tokencode for token {SERIAL}" in page.text
    assert "Expires on 2023-12-24 17:00 UTC" in page.text
    form = page.form(PAGE)
    assert {name for name, _ in form.fields} == {*SAVE, "form_token"}
    assert before != state(desk), "the sign-in itself is an event"
    before = state(desk)
    await browser.open("/")
    assert state(desk) == before, "nothing is sent but by Continue"


@pytest.mark.parametrize("case", ["another browser", "late", "twice", "made up"])
async def test_a_kept_form_serves_its_browser_once(desk: Desk, case: str) -> None:
    """Else it is dropped with a sentence, and the administrator begins at the first page."""
    browser, page = await ended(desk, PAGE, SAVE)
    form = dict(page.form("/sign-in").fields)
    reader = browser
    if case == "another browser":
        reader = await desk.browser()
        other, _ = await ended(desk, PAGE, SAVE)
        secret = other.client.cookies[KEPT_COOKIE]
        reader.client.cookies.set(KEPT_COOKIE, secret, domain="console.test")
    elif case == "late":
        desk.node.clock.pass_s(LIFETIME_MS // 1000)
    elif case == "twice":
        assert "tokencode for token" in (await signed_in(browser)).text
    kept = form["kept"] if case != "made up" else urlencode(SAVE)
    fields = dict((await reader.open("/sign-in")).form("/sign-in").fields)
    answer = await reader.client.post(
        "/sign-in",
        data={**fields, "administrator": ROOT, "password": PASSWORD, "kept": kept},
        follow_redirects=True,
    )
    page = Page(answer)
    assert page.path == "/"
    assert "not filled in in this browser within the last ten minutes" in page.text
    assert f"tokencode for token {SERIAL}" not in page.text


async def test_only_the_form_of_emergency_access_is_kept(desk: Desk) -> None:
    """Approvals, programs' sign-ins, passwords, keys, tickets, exports: none of them."""
    for path, fields in posts():
        browser, page = await ended(desk, path, {**fields, "secret": STRANGERS})
        is_kept = "kept" in dict(page.form("/sign-in").fields)
        assert is_kept == (path == PAGE), path
        assert is_kept == (KEPT_COOKIE in browser.client.cookies), path
        assert STRANGERS not in page.response.text
        if not is_kept:
            assert "The form was not sent: fill it in again" in page.text, path


@pytest.mark.parametrize("kind", ["message", "manager"])
async def test_codes_by_message_are_not_kept(desk: Desk, kind: str) -> None:
    """They may need an approval, and go to another person at once."""
    _, page = await ended(desk, PAGE, {**SAVE, "kind": kind})
    assert "fill it in again" in page.text


async def test_a_form_of_another_console_is_shown_on_one_page_alone(desk: Desk) -> None:
    """`carry` shows codes again on the page of emergency access; elsewhere it is refused."""
    browser = await desk.administrator()
    before = state(desk)
    headers = {"sec-fetch-site": "cross-site", "origin": "https://n2.test"}
    for path, fields in posts():
        if path == PAGE:
            continue
        answer = await browser.client.post(
            path, data={**fields, "action": "carry"}, headers=headers
        )
        assert answer.status_code == 403, path
    assert state(desk) == before


async def test_a_link_from_elsewhere_signs_nobody_out(desk: Desk) -> None:
    """The browser sends no cookie with it, so the answer must not delete one."""
    stranger = await desk.browser()
    for route in sorted(VIEWS.keys() - POST_ONLY):
        for path in addresses(route):
            answer = await stranger.client.get(path)
            assert "set-cookie" not in answer.headers, path
    assert form_token("a") != form_token("b")
