# SPDX-License-Identifier: Apache-2.0
"""Pages say what stands in a user's way, and why the latest attempts were refused."""

from collections.abc import Awaitable, Callable

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.emergency_access import RecoveryPolicy
from tests.console.desk import Desk
from tests.console.test_emergency_access import without_password
from tests.console.test_pages import with_role
from tests.services.one_node import PIN, SERIAL, VPN

pytestmark = pytest.mark.asyncio

WRONG = PIN + "AAAA-BBBB"
TOKEN = f"/tokens/{SERIAL}"
USER = "/users/alice"
PAGE = f"{TOKEN}/emergency-access"


async def locked(desk: Desk) -> None:
    """Lock Alice's emergency codes by five wrong ones."""
    for _ in range(5):
        desk.node.clock.pass_s(6)
        assert not await desk.node.accepts(WRONG)


@pytest.mark.parametrize("path", [USER, TOKEN])
async def test_the_help_desk_reads_why_a_user_was_refused(
    desk: Desk, path: str
) -> None:
    """(U3, P1) Lock, time, agent, address, verdict and next step, without the audit log."""
    await locked(desk)
    browser = await with_role(desk, Role.HELP_DESK)
    page = await browser.open(path)
    assert "Emergency codes are locked until 2023-11-14 22:2" in page.text
    assert "UTC after 5 wrong passcodes." in page.text
    assert "matched no token and no emergency code" in page.text
    assert f"{VPN} for mail, from 192.0.2.1, through n1" in page.text
    assert (await browser.open("/audit")).status == 403


async def test_a_page_without_obstacles_says_so(desk: Desk) -> None:
    browser = await desk.administrator()
    page = await browser.open(USER)
    assert "Nothing: a right passcode is accepted." in page.text
    assert "No attempt is known." in page.text


async def test_a_remedy_is_offered_to_the_roles_that_may(desk: Desk) -> None:
    """(U3) Others are told whom to ask."""
    node = desk.node
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    browser = await desk.administrator()
    page = await browser.open(USER)
    assert page.links["Set PIN"] == f"{TOKEN}/set-pin"
    browser = await with_role(desk, Role.HELP_DESK)
    page = await browser.open(TOKEN)
    assert "Set PIN" not in page.links
    assert (
        "needs a PIN and has none. Ask a super administrator to set a PIN." in page.text
    )


async def test_the_help_desk_reinstates_a_lost_token_by_the_link(desk: Desk) -> None:
    """(U3) Its form of emergency access may, so nobody else is to be asked."""
    await desk.node.issue(recovery=RecoveryPolicy.DENY)
    browser = await with_role(desk, Role.HELP_DESK)
    assert not await desk.node.accepts(PIN + desk.node.tokencode())
    page = await browser.open(USER)
    assert "Reinstate the token if its user has it." in page.text
    assert "super administrator" not in page.text
    assert page.links["Token is back"] == f"{TOKEN}/reinstate"
    await browser.open(f"{TOKEN}/reinstate")
    page = await browser.send("Token is back")
    assert page.status == 200, page.text
    desk.node.clock.pass_s(60)
    assert await desk.node.accepts(PIN + desk.node.tokencode())


async def test_codes_for_a_locked_user_are_saved_with_a_warning(desk: Desk) -> None:
    """(L5) The form and the result say until when the codes are refused, and why."""
    await locked(desk)
    browser = await with_role(desk, Role.HELP_DESK)
    page = await browser.open(PAGE)
    until = "locked until 2023-11-14 22:2"
    assert until in page.text
    assert "Codes saved now are refused until then." in page.text
    assert "Unlock as well" in page.text
    await browser.send("Generate Codes", count="2")
    page = await browser.send("Save")
    assert page.status == 200, page.text
    assert f"Refused until then. Emergency codes are {until}" in page.text
    assert not await desk.node.accepts(PIN + page.codes[0])


async def test_the_help_desk_unlocks_with_the_codes(desk: Desk) -> None:
    """(L6, Q1) One form does both, and each once if it is sent twice."""
    await locked(desk)
    browser = await with_role(desk, Role.HELP_DESK)
    await browser.open(PAGE)
    form = await browser.send("Generate Codes", count="2")
    page = await browser.send("Save", tick={"unlock": "on"})
    assert "alice is unlocked, too." in page.text
    assert "Refused until then" not in page.text
    browser.page = form
    again = await browser.send("Save", tick={"unlock": "on"})
    assert without_password(again) == without_password(page)
    assert await desk.node.accepts(PIN + page.codes[0])
    unlocked = await browser.open(PAGE)
    assert "Unlock as well" not in unlocked.text


async def test_an_unlocking_stands_though_the_save_is_refused(desk: Desk) -> None:
    """The form says so."""
    await locked(desk)
    browser = await desk.administrator()
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    page = await browser.send("Save", tick={"unlock": "on"}, expires_date="2023-01-01")
    assert page.status == 409
    assert "alice is unlocked, too." in page.text
    assert "Unlock as well" not in page.text


async def test_an_unlocking_that_needs_an_approval_waits(desk: Desk) -> None:
    """(I10) The help desk has live codes of its own: the new ones are saved all the same."""
    browser = await with_role(desk, Role.HELP_DESK)
    for tick in ({}, {"unlock": "on"}):
        if tick:
            await locked(desk)
        await browser.open(PAGE)
        await browser.send("Generate Codes", count="2")
        page = await browser.send("Save", tick=tick)
        assert page.status == 200, page.text
    assert "must approve that alice is unlocked (approval 1)" in page.text
    assert "Refused until then." in page.text


@pytest.mark.parametrize(
    "role", [Role.SUPER_ADMIN, Role.HELP_DESK], ids=["root", "help-desk"]
)
async def test_every_obstacle_to_codes_is_on_the_form(desk: Desk, role: Role) -> None:
    """(I1, A4) A disabled user, and an agent whose list excludes the user."""
    node = desk.node
    await node.agents.update(
        node.admin("AgentService/UpdateAgent"), name=VPN, restricted=True
    )
    await node.users.update(
        node.admin("UserService/UpdateUser"), username="alice", enabled=False
    )
    browser = await with_role(desk, role)
    page = await browser.open(PAGE)
    assert "The user is disabled: every passcode is refused." in page.text
    assert f"allow lists of these agents exclude the user: {VPN}." in page.text
    if role is Role.SUPER_ADMIN:
        assert page.links["Enable the user"] == USER
        assert page.links["Agents"] == "/agents"
    else:
        assert "Ask a super administrator to enable the user." in page.text


async def test_the_result_names_the_agents_that_exclude_the_user(desk: Desk) -> None:
    """(A4) The codes are saved, since other agents may admit the user."""
    node = desk.node
    await node.agents.update(
        node.admin("AgentService/UpdateAgent"), name=VPN, restricted=True
    )
    browser = await with_role(desk, Role.HELP_DESK)
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    page = await browser.send("Save")
    assert page.status == 200, page.text
    assert (
        "Not everywhere, or not yet. The allow lists of these agents exclude the user: "
        f"{VPN}. Ask a super administrator to add the user" in page.text
    )
    assert not await node.accepts(PIN + page.codes[0])


async def disable_user(desk: Desk) -> str:
    """Disable Alice, and return the obstacle."""
    await desk.node.users.update(
        desk.node.admin("UserService/UpdateUser"), username="alice", enabled=False
    )
    return "The user is disabled: every passcode is refused."


async def clear_pin(desk: Desk) -> str:
    """Clear the PIN of Alice's token, and return the obstacle."""
    await desk.node.tokens.clear_pin(
        desk.node.admin("TokenService/ClearPin"), serial=SERIAL
    )
    return f"Token {SERIAL} needs a PIN and has none."


@pytest.mark.parametrize(
    ("obstruct", "generated", "problem"),
    [
        (disable_user, False, "The user is disabled. Enable the user first: your role"),
        (disable_user, True, "The user is disabled. Enable the user first: your role"),
        (clear_pin, False, "needs a PIN and has none. Set a PIN first: your role may"),
        (clear_pin, True, "has changed since the codes were generated"),
    ],
)
async def test_a_refusal_of_codes_says_what_stands_in_their_way(
    desk: Desk,
    obstruct: Callable[[Desk], Awaitable[str]],
    problem: str,
    *,
    generated: bool,
) -> None:
    """(I1) Before codes are generated, and before they are saved."""
    browser = await with_role(desk, Role.HELP_DESK)
    await browser.open(PAGE)
    if generated:
        await browser.send("Generate Codes", count="2")
    obstacle = await obstruct(desk)
    page = await browser.send("Save" if generated else "Generate Codes", count="2")
    assert page.status == 409
    assert problem in page.text
    assert f"{obstacle} Ask a super administrator to" in page.text
    assert generated or not page.codes


async def test_a_role_that_may_not_assign_tokens_is_told_whom_to_ask(
    desk: Desk,
) -> None:
    await desk.node.users.create(
        desk.node.admin("UserService/CreateUser"),
        username="bob",
        display_name="",
        email="",
    )
    desk_page = await (await with_role(desk, Role.HELP_DESK)).open("/users/bob")
    assert "No token. Ask a super administrator to assign one." in desk_page.text
    root_page = await (await desk.administrator()).open("/users/bob")
    assert "Find an unassigned one under SecurID Tokens" in root_page.text


async def test_a_node_that_fetches_older_events_says_so(desk: Desk) -> None:
    """(U1, U3) What stands in the way is complete, and the page opens."""
    await locked(desk)
    db = desk.node.local_db
    db.execute(
        "INSERT INTO audit_segments (number, first_sequence, last_sequence, "
        "first_at_ms, last_at_ms, hash_before, hash_after) "
        "VALUES (1, 1, 2, 1, 1, zeroblob(32), zeroblob(32))"
    )
    browser = await desk.administrator()
    for gone, words in ((0, False), (2, True)):
        db.execute("DELETE FROM audit_events WHERE sequence <= ?", (gone,))
        db.commit()
        for path in (USER, TOKEN, PAGE):
            page = await browser.open(path)
            assert page.status == 200
            if path != PAGE:
                assert ("Older attempts are not on this node yet" in page.text) == words
                assert "Emergency codes are locked" in page.text
    bob = "/users/bob"
    await browser.open("/new/user")
    await browser.send("Create user", username="bob")
    page = await browser.open(bob)
    assert "Older attempts are not on this node yet" in page.text
    assert "No attempt is known" not in page.text
    browser.client.headers["accept-language"] = "de"
    page = await browser.open(bob)
    assert "Ältere Versuche sind noch nicht auf diesem Knoten" in page.text
