# SPDX-License-Identifier: Apache-2.0
"""Protection of browsers: the session, forms, headers, escaping."""

import dataclasses
import logging
import re
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request

from sparecode_node.console.kit.security import (
    DISCARDED_BYTES_MAX,
    SESSION_COOKIE,
    TooLargeError,
    body_of,
    form_token,
)
from sparecode_node.replication.errors import NoQuorumError
from tests.console.desk import Desk, desk
from tests.services.one_node import PASSWORD, ROOT, SERIAL, UNLIMITED

pytestmark = pytest.mark.asyncio

PAGE = f"/tokens/{SERIAL}/emergency-access"


async def test_without_a_session_only_the_sign_in_page_is_shown(desk: Desk) -> None:
    browser = await desk.browser()
    for path in ("/", "/tokens", PAGE):
        page = await browser.open(path)
        assert page.path == "/sign-in"
        assert SERIAL not in page.text
    page = await browser.send("Sign in", administrator=ROOT, password=PASSWORD)
    assert page.path == PAGE


async def test_a_wrong_name_and_a_wrong_password_look_the_same(desk: Desk) -> None:
    """(A6) The message is generic; the page keeps the name but not the password."""
    pages = []
    for name, password in ((ROOT, "wrong"), ("nobody", PASSWORD)):
        browser = await desk.browser()
        page = await browser.sign_in(name, password)
        assert page.status == 409
        assert page.form("/sign-in").value("administrator") == name
        assert page.form("/sign-in").value("password") == ""
        pages.append(page.text)
    assert pages[0] == pages[1]
    assert "name or password is wrong" in pages[0]


async def test_the_cookie_is_for_this_host_and_hidden_from_scripts(desk: Desk) -> None:
    browser = await desk.browser()
    await browser.open("/sign-in")
    form = browser.page.form("/sign-in")
    fields = {**dict(form.fields), "administrator": ROOT, "password": PASSWORD}
    answer = await browser.client.post("/sign-in", data=fields)
    cookies = answer.headers.get_list("set-cookie")
    (session,) = [each for each in cookies if each.startswith(f"{SESSION_COOKIE}=")]
    attributes = {part.strip().lower() for part in session.split(";")[1:]}
    assert attributes == {"httponly", "secure", "samesite=strict", "path=/"}


async def test_a_planted_session_is_not_taken_over(desk: Desk) -> None:
    """Session fixation: sign-in draws a new session that no attacker can know."""
    victim, thief = await desk.browser(), await desk.administrator()
    planted = thief.client.cookies[SESSION_COOKIE]
    victim.client.cookies.set(SESSION_COOKIE, planted, domain="console.test")
    victim.client.cookies.set("__Host-sparecode-visit", "chosen", domain="console.test")
    await victim.sign_in(ROOT, PASSWORD)
    drawn = [c.value for c in victim.client.cookies.jar if c.name == SESSION_COOKIE]
    assert drawn
    assert planted not in drawn[-1:]


async def test_signing_out_ends_the_session_itself(desk: Desk) -> None:
    browser = await desk.administrator()
    kept = browser.client.cookies[SESSION_COOKIE]
    await browser.open("/tokens")
    page = await browser.send("Sign out", action="/account/sign-out")
    assert page.path == "/sign-in"
    browser.client.cookies.set(SESSION_COOKIE, kept, domain="console.test")
    assert (await browser.open("/tokens")).path == "/sign-in"


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({}, ""),
        ({}, "0" * 64),
        ({}, "é" * 8),
        ({}, form_token("another session")),
        ({"sec-fetch-site": "cross-site"}, None),
        ({"sec-fetch-site": "same-site"}, None),
        ({"sec-fetch-site": "none"}, None),
        ({"sec-fetch-site": "", "origin": "https://evil.test"}, None),
        ({"sec-fetch-site": "", "origin": "null"}, None),
    ],
)
async def test_a_form_from_another_site_changes_nothing(
    desk: Desk, headers: dict[str, str], token: str | None
) -> None:
    """CSRF: without the session's own token, or from another origin, it is refused."""
    issued = await desk.node.issue()
    browser = await desk.administrator()
    page = await browser.open(PAGE)
    fields = dict(page.form(PAGE).fields)
    fields.pop("online")
    if token is not None:
        fields["form_token"] = token
    answer = await browser.client.post(
        PAGE, data={**fields, "action": "save"}, headers=headers
    )
    assert answer.status_code == 403
    assert "Nothing was changed" in answer.text
    text = (await browser.open(PAGE)).text
    assert f"{len(issued.codes)} live" in text


async def test_the_input_outlives_the_session(desk: Desk) -> None:
    """The session ends while a form is filled in: the input is kept."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Generate Codes", count="2")
    codes = page.codes
    await desk.node.sessions.logout_everywhere(
        desk.node.admin("SessionService/LogoutEverywhere")
    )
    page = await browser.send("Save", expires_date="2023-12-24")
    assert page.status == 401
    assert "Your session has ended" in page.text
    page = await browser.send(
        "Sign in", action="/sign-in", administrator=ROOT, password="wrong"
    )
    desk.node.clock.pass_s(2)
    page = await browser.send(
        "Sign in", action="/sign-in", administrator=ROOT, password=PASSWORD
    )
    assert f"Issue 2 codes for token {SERIAL}" in page.text
    assert "Expires on 2023-12-24 " in page.text
    assert "If Token Becomes Available Deny authentication with token" in page.text
    assert codes[0] in page.text
    page = await browser.send("Continue", action=PAGE)
    assert page.status == 200, page.text
    assert page.codes == codes
    assert "2023-12-24" in page.text
    assert await desk.node.accepts("4719" + codes[0])


async def test_a_form_carried_to_another_console_changes_nothing_by_itself(
    desk: Desk,
) -> None:
    """The form is shown there and must be sent again; other sites cannot do this."""
    browser = await desk.administrator()
    page = await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    form = dict(browser.page.form(PAGE).fields)
    form |= {"action": "carry", "expires_date": "2023-12-24", "form_token": "of n2"}
    del form["online"]
    headers = {"sec-fetch-site": "cross-site", "origin": "https://n2.test"}
    answer = await browser.client.post(PAGE, data=form, headers=headers)
    assert answer.status_code == 200
    assert form["draft"] in answer.text
    assert "2023-12-24" in answer.text
    page = await browser.open(PAGE)
    assert "No emergency access tokencodes yet" in page.text
    stranger = await desk.browser()
    answer = await stranger.client.post(PAGE, data=form, headers=headers)
    assert answer.status_code == 401
    # That browser has had no session here, so none has ended.
    assert "not signed in at the console of n1. Your input is kept." in answer.text
    assert "has ended" not in answer.text
    for changed in (
        {"headers": {**headers, "origin": "https://evil.test"}},
        {"data": {**form, "action": "save"}},
    ):
        answer = await browser.client.post(
            PAGE, **{"data": form, "headers": headers, **changed}
        )
        assert answer.status_code == 403


async def test_a_form_of_another_site_is_not_kept_over_signing_in(desk: Desk) -> None:
    """Otherwise signing in would send a form that an attacker filled in."""
    browser = await desk.browser()
    for headers in (
        {"sec-fetch-site": "cross-site", "origin": "https://evil.test"},
        {"sec-fetch-site": "none"},
    ):
        answer = await browser.client.post(
            PAGE, data={"action": "save"}, headers=headers
        )
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/sign-in?next={PAGE}"


async def test_sign_in_needs_a_form_of_the_console(desk: Desk) -> None:
    """Otherwise an attacker could sign a victim in under another name unnoticed."""
    browser = await desk.browser()
    answer = await browser.client.post(
        "/sign-in", data={"administrator": ROOT, "password": PASSWORD}
    )
    assert answer.status_code == 403
    assert SESSION_COOKIE not in answer.cookies


async def test_every_answer_carries_the_headers(desk: Desk) -> None:
    browser = await desk.administrator()
    for path in ("/sign-in", "/tokens", PAGE, "/nothing", "/static/console.css"):
        headers = (await browser.client.get(path)).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert "form-action 'self' https://n2.test https://n3.test;" in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        if not path.startswith("/static/"):
            assert headers["cache-control"] == "no-store"


async def test_names_are_escaped(desk: Desk) -> None:
    """Escaping: names are text on every page."""
    evil = '"><script>alert(1)</script>'
    node = desk.node
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username="mallory",
        display_name=evil,
        email='"<b>"@example.com',
    )
    await node.enroll("666")
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial="666", username="mallory"
    )
    browser = await desk.administrator()
    for path in (
        "/tokens",
        "/tokens/666",
        "/tokens/666/emergency-access",
        "/tokens/666/unassign",
        "/users",
        "/users/mallory",
    ):
        page = await browser.open(path)
        assert page.status == 200
        assert evil in page.text
        assert "<script>alert" not in page.response.text
    for path in ("/tokens?q=", "/users?q=", "/audit?actor=", "/audit?start="):
        page = await browser.open(path + "%22%3E%3Cscript%3E")
        assert "<script>" not in page.response.text


async def test_no_code_is_in_a_log_or_an_address(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither logs, addresses nor titles contain a code."""
    caplog.set_level(logging.DEBUG)
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Generate Codes", count="3")
    page = await browser.send("Save")
    assert page.status == 200
    assert page.path == PAGE
    assert not page.response.url.query
    for code in page.codes:
        assert code not in caplog.text
        assert code.replace("-", "") not in caplog.text
        assert code not in re.findall(r"<title>.*</title>", page.response.text)[0]


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("/users/first.last", "/users/first.last"),
        ("/tokens/1234/emergency-access", "/tokens/1234/emergency-access"),
        *(
            (path, "/")
            for path in (
                "//evil.test",
                "https://evil.test",
                "/\\evil.test",
                "/\t/evil.test",
                "javascript:alert(1)",
                "evil",
                "/sign-in",
                "/account/sign-out",
                "/language",
                "/static/console.js",
                "/no-such-page",
                "/users?state=locked",
                "",
            )
        ),
    ],
)
async def test_sign_in_leads_to_a_page_of_the_console_alone(
    desk: Desk, asked: str, shown: str
) -> None:
    """What is no address of a page, as the router reads it, leads to the first page."""
    browser = await desk.browser()
    page = await browser.open(f"/sign-in?{httpx.QueryParams(next=asked)}")
    assert page.form("/sign-in").value("next") == shown
    fields = dict(page.form("/sign-in").fields)
    answer = await browser.client.post(
        "/sign-in",
        data={**fields, "administrator": ROOT, "password": PASSWORD, "next": asked},
    )
    assert answer.headers["location"] == shown


async def test_sign_in_is_limited_by_rate(tmp_path: Path) -> None:
    """(L7) The refusal comes before any hashing; a later sign-in succeeds."""
    limits = dataclasses.replace(UNLIMITED, sign_in=1)
    async with desk(tmp_path, limits) as slow:
        browser = await slow.browser()
        pages = [await browser.sign_in(ROOT, "wrong") for _ in range(12)]
        assert pages[0].status == 409
        assert pages[-1].status == 429
        assert "Too many requests. Wait 1 s" in pages[-1].text
        slow.node.clock.pass_s(60)
        assert (await browser.sign_in(ROOT, PASSWORD)).path == "/"


async def test_a_body_longer_than_any_form_is_not_read(desk: Desk) -> None:
    browser = await desk.administrator()
    for body in (b"a=" + b"x" * 100_000, b"&".join([b"a=1"] * 1000), b"a=%ff", b"\xff"):
        answer = await browser.client.post(PAGE, content=body)
        assert answer.status_code in (400, 403)


async def test_reading_an_endless_body_stops() -> None:
    """A caller needs no session and need not state the length of the body."""
    part, parts = b"x" * 1024, 0

    async def receive() -> dict[str, object]:
        nonlocal parts
        parts += 1
        return {"type": "http.request", "body": part, "more_body": parts < 10_000}

    with pytest.raises(TooLargeError):
        await body_of(Request({"type": "http", "method": "POST"}, receive))
    assert parts == DISCARDED_BYTES_MAX // len(part) + 1


async def test_an_unknown_token_is_not_found(desk: Desk) -> None:
    browser = await desk.administrator()
    for path in ("/tokens/404", "/tokens/404/emergency-access"):
        page = await browser.open(path)
        assert page.status == 404
        assert "There is no token 404" in page.text
    assert (await browser.open("/tokens/no%20serial")).status == 422


async def test_a_node_that_cannot_check_a_session_keeps_its_cookie(desk: Desk) -> None:
    """
    A node cut off before it learned of the session says so and keeps the cookie (P2).

    Behind one address the next request may reach a node that knows the session. Codes
    on the page are kept until then.
    """
    browser = await desk.administrator()
    await browser.open(PAGE)
    codes = (await browser.send("Generate Codes", count="2")).codes
    node, form = desk.node, browser.page
    node.local_db.execute("UPDATE sessions SET session_id = 'not ' || session_id")
    node.local_db.commit()
    node.replicator.down = NoQuorumError("down")
    kept = browser.client.cookies[SESSION_COOKIE]
    page = await browser.open("/tokens")
    assert page.status == 503
    assert "You are still signed in" in page.text
    assert {"n2", "n3"} <= page.links.keys()
    piece = await browser.client.get("/tokens", headers={"hx-request": "true"})
    assert piece.headers["hx-refresh"] == "true"
    browser.page = form
    page = await browser.send("Save")
    assert page.status == 503
    assert "kept" in dict(page.form("/sign-in").fields)
    assert browser.client.cookies[SESSION_COOKIE] == kept
    node.local_db.execute("UPDATE sessions SET session_id = substr(session_id, 5)")
    node.local_db.commit()
    node.replicator.down = None
    browser.page = form
    assert (await browser.send("Save")).codes == codes
