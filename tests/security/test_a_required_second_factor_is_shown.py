# SPDX-License-Identifier: Apache-2.0
"""
A second factor that the policy requires is shown before anything else (P8).

The attacks: a thief of a password, or an administrator who has set up no second factor,
reads and changes what the role may, by console and by API; an administrator with a
passkey signs in with a code nevertheless, or a thief of that code registers another
passkey; a policy locks every administrator out.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode_node.console.kit.security import SESSION_COOKIE
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.errors import Refused
from sparecode_node.services.people.administrators import Link
from tests.console.desk import Desk, desk
from tests.console.paper import Paper
from tests.console.test_pages import OWN, with_role
from tests.console.test_second_factor import code_of, enrolled
from tests.services.authenticator import Authenticator
from tests.services.one_node import CONSOLES, PASSWORD

pytestmark = pytest.mark.asyncio

PAGE = "/account/passkeys"


@pytest_asyncio.fixture(name="desk")
async def _desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with desk(tmp_path) as running:
        yield running


async def set_policy(browser: Paper, **values: str) -> str:
    """Change the policy on its page; return what the next page says."""
    await browser.open("/policy")
    return (await browser.send("Save", **values)).text


async def register(browser: Paper, key: Authenticator | None = None) -> str:
    """Register a passkey; return what the next page says."""
    asked = await browser.client.get(f"{PAGE}/options")
    await browser.open(PAGE)
    answer = (key or Authenticator(CONSOLES[0])).made(asked.text)
    return (await browser.send("Add passkey", label="Key", passkey=answer)).text


async def protected(desk: Desk, rule: str) -> Paper:
    """Require a second factor, as an administrator who has shown a passkey."""
    browser = await desk.administrator()
    assert "The policy is changed" in await set_policy(
        browser, passkey_domain="sparecode.test"
    )
    assert "is registered" in await register(browser)
    assert "The policy is changed" in await set_policy(
        browser, administrators_second_factor=rule
    )
    return browser


async def refused_reason(desk: Desk, bearer: str) -> Reason:
    """Return why a read by API is refused."""
    desk.node.bearer = bearer
    with pytest.raises(Refused) as raised:
        await desk.node.users.list(
            desk.node.admin("UserService/ListUsers"), page_size=10, page_token=""
        )
    return raised.value.rejected.reason


@pytest.mark.parametrize("rule", ["any", "passkey"])
async def test_a_password_alone_opens_only_the_page_that_sets_one_up(
    desk: Desk, rule: str
) -> None:
    heidi = await with_role(desk, Role.HELP_DESK)
    await protected(desk, rule)
    # A session that was opened before counts as well.
    for path in ("/", "/users", "/tokens", "/policy", "/approvals"):
        assert (await heidi.open(path)).path == PAGE, path
    bearer = heidi.client.cookies[SESSION_COOKIE]
    assert await refused_reason(desk, bearer) is Reason.SECOND_FACTOR_REQUIRED
    token = heidi.page.form("/account/sign-out").value("form_token")
    forged = {"action": "disable", "form_token": token}
    answer = await heidi.client.post("/users/alice", data=forged)
    assert (answer.status_code, answer.headers["location"]) == (303, PAGE)
    if rule == "any":
        await enrolled(desk, heidi)
    else:
        assert "is registered" in await register(heidi)
    assert (await heidi.open("/users")).path == "/users"


async def test_a_new_administrator_first_changes_the_password(desk: Desk) -> None:
    """Then they set up the passkey; the temporary password does neither reads nor that."""
    browser = await protected(desk, "passkey")
    node = desk.node
    node.bearer = browser.client.cookies[SESSION_COOKIE]
    await node.administrators.create(
        node.admin("AdministratorService/CreateAdministrator"),
        name="nora",
        role=Role.HELP_DESK,
        link=Link(""),
        password=PASSWORD,
    )
    nora = await desk.browser()
    assert (await nora.sign_in("nora", PASSWORD)).path == "/account/password"
    for path in ("/users", PAGE):
        assert (await nora.open(path)).path == "/account/password", path
    await nora.send(
        "Change password",
        old_password=PASSWORD,
        new_password=OWN,
        new_password_again=OWN,
    )
    assert (await nora.sign_in("nora", OWN)).path == PAGE
    assert "is registered" in await register(nora)
    assert (await nora.open("/users")).path == "/users"


async def test_a_password_alone_sets_no_other_password(desk: Desk) -> None:
    """
    (P4) Setting one's own password needs no factor, but that of another gives power.

    The thief knows the password of a super administrator who has set up no factor yet.
    """
    heidi, second = (
        await with_role(desk, Role.HELP_DESK),
        await with_role(desk, Role.AUDITOR),
    )
    root = await protected(desk, "any")
    await root.open("/administrators/auditor")
    await root.send("Change role", role="super_admin")
    assert (await second.sign_in("auditor", OWN)).path == PAGE
    node = desk.node
    node.bearer = second.client.cookies[SESSION_COOKIE]
    with pytest.raises(Refused) as raised:
        await node.administrators.change_password(
            node.admin("AdministratorService/ChangePassword"),
            name="help_desk",
            old_password="",
            new_password="chosen by a thief of a password",
        )
    assert raised.value.rejected.reason is Reason.SECOND_FACTOR_REQUIRED
    assert (await heidi.sign_in("help_desk", OWN)).path == PAGE


async def test_a_code_does_not_replace_a_required_passkey(desk: Desk) -> None:
    heidi = await with_role(desk, Role.HELP_DESK)
    await enrolled(desk, heidi)
    await protected(desk, "passkey")
    assert (await heidi.open("/users")).path == PAGE
    assert "is registered" in await register(heidi)
    assert (await heidi.open("/users")).path == "/users"
    other = await desk.browser()
    await other.open("/sign-in")
    page = await other.send(
        "Sign in", administrator="help_desk", password=OWN, second_factor="123456"
    )
    assert "Your account has a passkey" in page.text


async def test_a_thief_of_a_code_registers_no_passkey(desk: Desk) -> None:
    """The thief signed in while a code was enough, minutes before the policy changed."""
    heidi = await with_role(desk, Role.HELP_DESK)
    await heidi.open("/account/second-factor")
    secret = await heidi.send("Set up")
    await heidi.send("Confirm", second_factor=code_of(desk, secret))
    root = await protected(desk, "any")
    assert "is registered" in await register(heidi)
    desk.node.clock.pass_s(60)
    thief = await desk.browser()
    await thief.open("/sign-in")
    page = await thief.send(
        "Sign in",
        administrator="help_desk",
        password=OWN,
        second_factor=code_of(desk, secret),
    )
    assert page.path == "/", page.text
    asked = await thief.client.get(f"{PAGE}/options")
    await thief.open(PAGE)
    changed = await set_policy(root, administrators_second_factor="passkey")
    assert "The policy is changed" in changed
    answer = Authenticator(CONSOLES[0]).made(asked.text)
    page = await thief.send("Add passkey", label="Mine", passkey=answer)
    assert "You have one, but this session has not shown it" in page.text
    assert "Add passkey" not in page.buttons
    rows = desk.node.primary_db.execute(
        "SELECT count(*) FROM passkeys WHERE administrator = 'help_desk'"
    )
    assert rows.fetchone() == (1,)


async def test_a_policy_locks_no_administrator_out(desk: Desk) -> None:
    """Only an administrator who has shown the factor requires it; its domain stays."""
    browser = await desk.administrator()
    assert "sign in with one first" in (
        await set_policy(browser, administrators_second_factor="any")
    )
    assert "must be set if administrators need a passkey" in (
        await set_policy(browser, administrators_second_factor="passkey")
    )
    browser = await protected(desk, "passkey")
    assert "would stop working" in (
        await set_policy(browser, passkey_domain="elsewhere.test")
    )


async def test_a_lost_passkey_is_removed_by_two_others(desk: Desk) -> None:
    """(P3) Then the password opens the page that sets one up, and nothing else."""
    heidi = await with_role(desk, Role.HELP_DESK)
    second, key = await with_role(desk, Role.AUDITOR), Authenticator(CONSOLES[0])
    root = await protected(desk, "any")
    assert "is registered" in await register(heidi)
    await heidi.open(PAGE)
    page = await heidi.send("Remove")
    assert "You cannot do this for yourself" in page.text
    assert "is registered" in await register(second, key)
    await root.open("/administrators/auditor")
    await root.send("Change role", role="super_admin")
    await root.open("/administrators/help_desk")
    page = await root.send("Remove second factor")
    assert "Not done yet: another super administrator must approve" in page.text
    # An approval of what was asked before another passkey was registered is void (P3).
    assert "is registered" in await register(heidi)
    assert (await heidi.open("/users")).path == "/users"
    await second.open("/sign-in")
    asked = await second.client.get("/sign-in/passkey")
    page = await second.send(
        "Sign in", administrator="auditor", password=OWN, passkey=key.used(asked.text)
    )
    assert page.path == "/", page.text
    await second.open("/approvals")
    assert "has changed" in (await second.send("Approve")).text
    await second.send("Reject")
    await root.open("/administrators/help_desk")
    await root.send("Remove second factor")
    await second.open("/approvals")
    assert "Approved" in (await second.send("Approve")).text
    # The session that the lost device has opened has ended, too.
    assert (await heidi.open("/users")).path == "/sign-in"
    assert (await heidi.sign_in("help_desk", OWN)).path == PAGE
    assert (await heidi.open("/users")).path == PAGE
