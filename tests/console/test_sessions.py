# SPDX-License-Identifier: Apache-2.0
"""How long one stays signed in, and how that ends."""

import base64

import pytest

from sparecode_node.console.kit.idle import UPDATE_MS
from sparecode_node.console.kit.security import LAST_USE_COOKIE, SESSION_COOKIE
from sparecode_node.domain.administrators import SECOND_FACTOR
from sparecode_node.domain.ids import Moment
from sparecode_node.domain.policy import HOUR_MS, MINUTE_MS, Policy
from sparecode_node.domain.tokencodes import step_at, tokencode_at
from sparecode_node.replication.errors import NoQuorumError
from tests.console.desk import Desk
from tests.console.paper import Paper
from tests.services.one_node import PASSWORD, ROOT

pytestmark = pytest.mark.asyncio

IDLE_MS = Policy().session_idle_ms


def cookie(browser: Paper, name: str) -> str:
    """Return a cookie of the browser."""
    return next(
        each.value or "" for each in browser.client.cookies.jar if each.name == name
    )


async def test_a_browser_that_is_used_stays_signed_in(desk: Desk) -> None:
    browser = await desk.administrator()
    for _ in range(5):
        desk.node.clock.pass_s((IDLE_MS - UPDATE_MS) / 1000)
        assert (await browser.open("/tokens")).path == "/tokens"


async def test_a_browser_that_was_left_alone_is_signed_out(desk: Desk) -> None:
    """The session itself ends, on every node; what comes next asks to sign in."""
    browser = await desk.administrator()
    bearer = cookie(browser, SESSION_COOKIE)
    desk.node.clock.pass_s(IDLE_MS / 1000 + 1)
    assert (await browser.open("/tokens")).path == "/sign-in"
    rows = desk.node.primary_db.execute(
        "SELECT action FROM audit_events ORDER BY sequence DESC LIMIT 1"
    ).fetchone()
    assert rows == ("CloseSession",)
    assert bearer


async def test_how_long_without_use_is_policy(desk: Desk) -> None:
    """(P2) For sessions that are open already, too; the account page says so."""
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


async def test_a_page_that_watches_is_nobody_using_it(desk: Desk) -> None:
    """What the cluster page loads by itself keeps nobody signed in."""
    browser = await desk.administrator()
    for _ in range(4):
        desk.node.clock.pass_s(IDLE_MS / 4000 + 1)
        page = await browser.open("/cluster?watching=1")
    assert page.path == "/sign-in"


@pytest.mark.parametrize("planted", ["", "99999999999999.", "99999999999999.00", "x.y"])
async def test_the_time_of_the_last_use_cannot_be_made_up(
    desk: Desk, planted: str
) -> None:
    browser = await desk.administrator()
    browser.client.cookies.delete(LAST_USE_COOKIE)
    if planted:
        browser.client.cookies.set(LAST_USE_COOKIE, planted, domain="console.test")
    assert (await browser.open("/tokens")).path == "/sign-in"


async def test_a_session_ends_after_its_time_however_much_it_is_used(
    desk: Desk,
) -> None:
    """The absolute time-out is that of the policy: twelve hours."""
    browser = await desk.administrator()
    step_s = (IDLE_MS - UPDATE_MS) / 1000
    for _ in range(int(12 * HOUR_MS / 1000 / step_s)):
        assert (await browser.open("/account")).path == "/account"
        desk.node.clock.pass_s(step_s)
    desk.node.clock.pass_s(step_s)
    assert (await browser.open("/account")).path == "/sign-in"


async def test_signing_out_everywhere_ends_every_session(desk: Desk) -> None:
    """(P2) In other browsers too."""
    here, there = await desk.administrator(), await desk.administrator()
    await here.open("/account")
    page = await here.send("Sign out everywhere", action="/account/sign-out-everywhere")
    assert page.path == "/sign-in"
    assert (await there.open("/tokens")).path == "/sign-in"


async def test_without_a_quorum_one_leaves_the_browser_at_least(desk: Desk) -> None:
    """It forgets the session, and says that the cluster has not; nobody else has it."""
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


async def test_signing_out_everywhere_is_not_said_when_it_is_not_done(
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


async def test_a_piece_of_a_page_never_is_the_door(desk: Desk) -> None:
    """Signed out meanwhile: the browser goes to the door as a whole."""
    browser = await desk.administrator()
    await desk.node.sessions.logout_everywhere(
        desk.node.admin("SessionService/LogoutEverywhere")
    )
    answer = await browser.client.get("/tokens", headers={"hx-request": "true"})
    assert answer.status_code == 204
    assert answer.headers["hx-redirect"] == "/sign-in?next=/tokens"


async def test_wrong_passwords_have_waits_and_no_lock(desk: Desk) -> None:
    """(L7) Generic words, the right password too early is refused alike; later it is not."""
    browser = await desk.browser()
    wrong = await browser.sign_in(ROOT, "wrong")
    early = await browser.sign_in(ROOT, PASSWORD)
    assert early.text == wrong.text
    desk.node.clock.pass_s(2)
    assert (await browser.sign_in(ROOT, PASSWORD)).path == "/"


async def test_a_password_is_changed_and_the_old_one_is_of_no_use(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open("/account/password")
    typed = {"new_password": "short", "new_password_again": "short"}
    page = await browser.send("Change password", old_password=PASSWORD, **typed)
    assert page.status == 422
    assert "12 to 1024 characters" in page.text
    new = "quite another password"
    typed = {"new_password": new, "new_password_again": new}
    page = await browser.send("Change password", old_password="wrong one", **typed)
    assert "The old password is wrong" in page.text
    assert new not in page.response.text
    desk.node.clock.pass_s(5)
    page = await browser.send("Change password", old_password=PASSWORD, **typed)
    assert page.path == "/sign-in"
    assert "Your password is changed" in page.text
    page = await browser.sign_in(ROOT, new)
    assert page.path == "/"


async def test_a_second_factor_is_asked_for_where_there_is_one(desk: Desk) -> None:
    """(P1) The password alone, and a code that was used before, are told beside the field."""
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
