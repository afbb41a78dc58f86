# SPDX-License-Identifier: Apache-2.0
"""The life of a session in the browser, and its end."""

import base64
from dataclasses import replace

import pytest

from sparecode_node.console.kit.idle import UPDATE_MS
from sparecode_node.console.kit.security import LAST_USE_COOKIE, SESSION_COOKIE
from sparecode_node.domain.administrators import SECOND_FACTOR
from sparecode_node.domain.ids import Moment
from sparecode_node.domain.policy import HOUR_MS, MINUTE_MS, Policy
from sparecode_node.domain.tokencodes import step_at, tokencode_at
from sparecode_node.replication.errors import NoQuorumError
from sparecode_node.services.context import SessionCaller
from sparecode_node.services.errors import NotSignedInError
from tests.console.desk import Desk
from tests.console.paper import Paper
from tests.services.one_node import PASSWORD, ROOT

pytestmark = pytest.mark.asyncio

IDLE_MS = Policy().privileged_session_idle_ms


def cookie(browser: Paper, name: str) -> str:
    """Return a cookie of the browser."""
    return next(
        each.value or "" for each in browser.client.cookies.jar if each.name == name
    )


async def use(desk: Desk, browser: Paper, path: str) -> str:
    """Open a page, let the cluster record the use, and return the page's path."""
    page = await browser.open(path)
    await desk.node.session_use.flush(desk.node.replicator)
    return page.path


async def test_a_browser_that_is_used_stays_signed_in(desk: Desk) -> None:
    browser = await desk.administrator()
    for _ in range(5):
        desk.node.clock.pass_s((IDLE_MS - UPDATE_MS) / 1000)
        assert await use(desk, browser, "/tokens") == "/tokens"


async def test_an_idle_browser_is_signed_out(desk: Desk) -> None:
    """The session ends on every node; the next request shows the sign-in page."""
    browser = await desk.administrator()
    bearer = cookie(browser, SESSION_COOKIE)
    desk.node.clock.pass_s(IDLE_MS / 1000 + 1)
    assert (await browser.open("/tokens")).path == "/sign-in"
    desk.node.bearer = bearer
    with pytest.raises(NotSignedInError):
        await desk.node.sessions.who_am_i(desk.node.admin("SessionService/WhoAmI"))


async def test_the_sign_in_page_says_why_a_session_has_ended(desk: Desk) -> None:
    """After idleness, after its end on any node; not to one who signs out or comes new."""
    browser = await desk.administrator()
    desk.node.clock.pass_s(IDLE_MS / 1000 + 1)
    page = await browser.open("/tokens")
    assert "session has ended, and was last used 15 minutes ago" in page.text
    browser = await desk.administrator()
    await desk.node.login()
    await desk.node.sessions.logout_everywhere(
        desk.node.admin("SessionService/LogoutEverywhere")
    )
    page = await browser.open("/tokens")
    assert page.path == "/sign-in"
    assert "last used just now. A session ends after a while without" in page.text
    assert "ended" not in (await browser.open("/sign-in")).text
    browser = await desk.administrator()
    page = await browser.send("Sign out", action="/account/sign-out")
    assert "ended" not in page.text
    assert "ended" not in (await (await desk.browser()).open("/tokens")).text


async def test_a_new_sign_in_ends_the_browser_s_earlier_session(desk: Desk) -> None:
    """(P2) A copy of the old cookie opens nothing. A refused sign-in ends nothing."""
    browser = await desk.administrator()
    earlier = cookie(browser, SESSION_COOKIE)
    desk.node.bearer = earlier
    who_am_i = desk.node.sessions.who_am_i
    await browser.sign_in(ROOT, "wrong")
    assert await who_am_i(desk.node.admin("SessionService/WhoAmI"))
    desk.node.clock.pass_s(5)
    assert (await browser.sign_in(ROOT, PASSWORD)).path == "/"
    assert cookie(browser, SESSION_COOKIE) != earlier
    with pytest.raises(NotSignedInError):
        await who_am_i(desk.node.admin("SessionService/WhoAmI"))
    assert (await browser.open("/tokens")).path == "/tokens"


async def test_the_idle_timeout_is_policy(desk: Desk) -> None:
    """(P2) It applies to open sessions too; the account page shows it."""
    browser = await desk.administrator()
    await desk.node.policies.update(
        desk.node.admin("PolicyService/UpdatePolicy"),
        version=1,
        values={"session_idle_ms": 5 * MINUTE_MS},
    )
    assert "after 5 minutes without use" in (await browser.open("/account")).text
    desk.node.clock.pass_s(4 * 60)
    assert (await browser.open("/tokens")).path == "/tokens"
    desk.node.clock.pass_s(5 * 60 + 1)
    assert (await browser.open("/tokens")).path == "/sign-in"


async def test_a_page_that_refreshes_itself_does_not_count_as_use(desk: Desk) -> None:
    """Refreshes of the cluster page do not keep a session alive."""
    browser = await desk.administrator()
    for _ in range(4):
        desk.node.clock.pass_s(IDLE_MS / 4000 + 1)
        page = await browser.open("/cluster?watching=1")
    assert page.path == "/sign-in"


@pytest.mark.parametrize("planted", ["", "99999999999999.", "99999999999999.00", "x.y"])
async def test_the_time_of_the_last_use_cannot_be_forged(
    desk: Desk, planted: str
) -> None:
    browser = await desk.administrator()
    browser.client.cookies.delete(LAST_USE_COOKIE)
    if planted:
        browser.client.cookies.set(LAST_USE_COOKIE, planted, domain="console.test")
    assert (await browser.open("/tokens")).path == "/sign-in"


async def test_a_session_in_use_ends_after_its_lifetime(
    desk: Desk,
) -> None:
    """(P2) The lifetime of a super administrator's session is policy: four hours."""
    browser = await desk.administrator()
    step_s = (IDLE_MS - UPDATE_MS) / 1000
    for _ in range(int(4 * HOUR_MS / 1000 / step_s)):
        assert await use(desk, browser, "/account") == "/account"
        desk.node.clock.pass_s(step_s)
    desk.node.clock.pass_s(step_s)
    assert (await browser.open("/account")).path == "/sign-in"


async def test_signing_out_everywhere_ends_every_session(desk: Desk) -> None:
    """(P2) Other browsers are signed out too."""
    here, there = await desk.administrator(), await desk.administrator()
    await here.open("/account")
    page = await here.send("Sign out everywhere", action="/account/sign-out-everywhere")
    assert page.path == "/sign-in"
    assert (await there.open("/tokens")).path == "/sign-in"


async def test_without_a_quorum_sign_out_deletes_the_cookie(desk: Desk) -> None:
    """The browser deletes its cookie; the page says that the session still exists."""
    browser = await desk.administrator()
    await browser.open("/tokens")
    desk.node.replicator.down = NoQuorumError("down")
    page = await browser.send("Sign out", action="/account/sign-out")
    assert page.path == "/sign-in"
    assert "You are signed out in this browser" in page.text
    assert "could not be reached" in page.text
    assert SESSION_COOKIE not in {each.name for each in browser.client.cookies.jar}
    desk.node.replicator.down = None
    assert (await browser.open("/tokens")).path == "/sign-in"


async def test_a_failed_sign_out_everywhere_is_reported(
    desk: Desk,
) -> None:
    """Other browsers are still signed in, so this one stays and can try again."""
    browser = await desk.administrator()
    await browser.open("/account")
    desk.node.replicator.down = NoQuorumError("down")
    page = await browser.send(
        "Sign out everywhere", action="/account/sign-out-everywhere"
    )
    assert page.status == 503
    assert "nothing was changed" in page.text
    desk.node.replicator.down = None
    assert (await browser.open("/tokens")).path == "/tokens"


async def test_a_part_of_a_page_is_never_the_sign_in_page(desk: Desk) -> None:
    """After the session ended, the browser loads the whole sign-in page."""
    browser = await desk.administrator()
    await desk.node.sessions.logout_everywhere(
        desk.node.admin("SessionService/LogoutEverywhere")
    )
    answer = await browser.client.get("/tokens", headers={"hx-request": "true"})
    assert answer.status_code == 204
    assert answer.headers["hx-redirect"] == "/sign-in?next=/tokens"


async def test_wrong_passwords_cause_waits_but_no_lock(desk: Desk) -> None:
    """(L7) The right password is refused alike during the wait, and accepted after it."""
    browser = await desk.browser()
    wrong = await browser.sign_in(ROOT, "wrong")
    early = await browser.sign_in(ROOT, PASSWORD)
    assert early.text == wrong.text
    desk.node.clock.pass_s(2)
    assert (await browser.sign_in(ROOT, PASSWORD)).path == "/"


async def test_a_changed_password_replaces_the_old_one(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open("/account/password")
    typed = {"new_password": "short", "new_password_again": "short"}
    page = await browser.send("Change password", old_password=PASSWORD, **typed)
    assert page.status == 422
    assert "15 to 1024 characters" in page.text
    new = "quite another password"
    typed = {"new_password": new, "new_password_again": new}
    page = await browser.send("Change password", old_password="wrong one", **typed)
    assert "The old password is wrong" in page.text
    assert new not in page.response.text
    desk.node.clock.pass_s(5)
    page = await browser.send("Change password", old_password=PASSWORD, **typed)
    assert page.path == "/"
    assert "Your password is changed. You are signed in" in page.text
    assert (await browser.open("/users")).path == "/users"
    assert (await browser.sign_in(ROOT, PASSWORD)).path == "/sign-in"
    desk.node.clock.pass_s(5)
    assert (await browser.sign_in(ROOT, new)).path == "/"


async def test_sign_in_asks_for_a_second_factor(desk: Desk) -> None:
    """(P1) A missing or already used code is refused beside the field."""
    node = desk.node
    enrolled = await node.second_factors.enroll(
        node.admin("AdministratorService/EnrollSecondFactor")
    )
    seed = base64.b32decode(enrolled.secret)

    def code() -> str:
        step = step_at(node.clock.now, SECOND_FACTOR)
        return tokencode_at(seed, SECOND_FACTOR, Moment(step))

    await node.second_factors.confirm(
        node.admin("AdministratorService/EnrollSecondFactor"),
        draft=enrolled.draft,
        code=code(),
    )
    node.clock.pass_s(SECOND_FACTOR.period_s)
    browser = await desk.browser()
    page = await browser.sign_in(ROOT, PASSWORD)
    assert "Enter the code that your app shows now" in page.text
    typed = {"administrator": ROOT, "password": PASSWORD}
    page = await browser.send("Sign in", **typed, second_factor=code())
    assert page.path == "/"
    another = await desk.browser()
    await another.open("/sign-in")
    page = await another.send("Sign in", **typed, second_factor=code())
    assert "was already used" in page.text


async def test_open_sessions_are_listed_and_ended(desk: Desk) -> None:
    """(P2) The other browser is signed out; this one goes on."""
    here, there = await desk.administrator(), await desk.administrator()
    page = await here.open("/sessions")
    assert page.text.count("This session") == 1
    assert page.text.count("Console on n1") >= 2
    other = next(
        each.public_id
        for each in (
            await desk.node.open_sessions.list(
                replace(
                    desk.node.admin("SessionService/ListSessions"),
                    caller=SessionCaller(bearer=cookie(here, SESSION_COOKIE)),
                ),
                all_administrators=True,
            )
        ).value.items
        if not each.calling and each.door == "console"
    )
    page = await here.send("End", action="/sessions", session_id=other)
    assert "The session has ended, on every node" in page.text
    assert (await there.open("/tokens")).path == "/sign-in"
    assert (await here.open("/tokens")).path == "/tokens"
