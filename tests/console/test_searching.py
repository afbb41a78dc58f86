# SPDX-License-Identifier: Apache-2.0
"""Searches find things by the words that the pages show."""

from urllib.parse import urlencode

import pytest

from sparecode_node.console.kit.rendering import action_words, actor_words, number
from sparecode_node.console.pages.audit import OUTCOMES
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.services.emergency.emergency_access import Lifetime
from sparecode_node.services.emergency.issuing import SetTerms
from tests.console.desk import Desk
from tests.console.test_pages import with_role
from tests.services.one_node import PIN, ROOT, SERIAL

pytestmark = pytest.mark.asyncio


async def asa(desk: Desk) -> None:
    """Add a user with a token and a name with non-English letters."""
    node = desk.node
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username="aaslund",
        display_name="Åsa ÖSTLUND",
        email="Åsa@corp.example",
    )
    await node.enroll("222333444")
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial="222333444", username="aaslund"
    )


@pytest.mark.parametrize(
    "typed", ["AASL", "Åsa", "åsa", "ÅSA ö", "östlund", "åsa@CORP", "A\u030asa"]
)
async def test_people_and_their_tokens_are_found_in_any_alphabet(
    desk: Desk, typed: str
) -> None:
    """By user name, name or e-mail; Å matches å, also as two code points."""
    await asa(desk)
    browser = await desk.administrator()
    assert "222333444" in (await browser.open(f"/tokens?q={typed}")).links
    assert SERIAL not in browser.page.links
    assert "aaslund" in (await browser.open(f"/users?q={typed}")).links
    assert "alice" not in browser.page.links


async def test_people_are_found_from_every_page(desk: Desk) -> None:
    """One match leads to the user's page, also by the serial of their token."""
    await asa(desk)
    browser = await desk.administrator()
    for typed in ("ostlund", "OESTLUND aasa", "222333444", "asa@corp"):
        await browser.open("/policy")
        page = await browser.send("Find", action="/find", q=typed)
        assert page.path == "/users/aaslund", typed
    await desk.node.users.create(
        desk.node.admin("UserService/CreateUser"),
        username="aoest",
        display_name="Adam Östlund",
        email="",
    )
    page = await browser.send("Find", action="/find", q="ostlund")
    assert page.path == "/find"
    assert {"Åsa ÖSTLUND", "Adam Östlund", "222333444"} <= set(page.links)
    assert "2 people" in page.text
    page = await browser.send("Find", action="/find", q="adam nobody")
    assert "No user and no token" in page.text
    await desk.node.enroll("555666")
    assert (
        await browser.send("Find", action="/find", q="5566")
    ).path == "/tokens/555666"


async def test_a_name_heard_on_the_phone_shows_those_that_sound_alike(
    desk: Desk,
) -> None:
    """The person at the desk chooses: Meier on the phone may be Mayer."""
    for username, name in (
        ("hmeier", "Hans Meier"),
        ("amayer", "Anna Mayer"),
        ("ksmith", "Katherine Smith"),
    ):
        await desk.node.users.create(
            desk.node.admin("UserService/CreateUser"),
            username=username,
            display_name=name,
            email=f"{username}@accounting.example",
        )
    browser = await desk.administrator()
    page = await browser.open("/find?q=meier")
    assert page.path == "/find"
    assert "1 person Hans Meier" in page.text
    assert "Names that sound alike Anna Mayer" in page.text
    assert page.links["Anna Mayer"] == "/users/amayer"
    page = await browser.open("/find?q=catherine+smyth")
    assert "No one is named so. Did you mean: Katherine Smith" in page.text
    page = await browser.open("/find?q=meier+acc")
    assert "Names that sound alike Anna Mayer" in page.text
    for exact in ("hans meier", "hmeier", "HMEIER@accounting.example", "anna"):
        assert (await browser.open(f"/find?q={exact}")).path.startswith("/users/")


async def test_only_roles_that_list_users_find_people(desk: Desk) -> None:
    """(P1) An operator has no user data."""
    browser = await with_role(desk, Role.OPERATOR)
    page = await browser.open("/")
    assert "/find" not in page.forms
    assert (await browser.open("/find?q=alice")).status == 403
    browser = await with_role(desk, Role.AUDITOR)
    assert (await browser.open("/find?q=alice")).path == "/users/alice"


async def test_a_token_is_found_by_any_part_of_its_serial(desk: Desk) -> None:
    await asa(desk)
    browser = await desk.administrator()
    for typed in ("222", "333", "444"):
        page = await browser.open(f"/tokens?q={typed}")
        assert "222333444" in page.links
        assert SERIAL not in page.links


async def test_the_audit_log_is_filtered_by_the_words_on_the_page(
    desk: Desk,
) -> None:
    """Every event is found by actor, action, outcome and reason as shown."""
    node = desk.node
    await node.issue(count=2)
    assert not await node.accepts("4712ABCD-EFGH")
    node.clock.pass_s(60)
    issued = await node.issue(count=2)
    assert await node.accepts(PIN + issued.codes[0].code)
    browser = await desk.administrator()
    await browser.open("/new/user")
    await browser.send("Create user", username="eve")
    rows = node.primary_db.execute(
        "SELECT sequence, actor, action, outcome, reason FROM audit_events"
    ).fetchall()
    assert {"CreateUser", "SET_LOW", "CODES_VOIDED"} <= {row[2] for row in rows}
    assert any(row[4] for row in rows)
    for sequence, actor, action, outcome, reason in rows:
        assert outcome in OUTCOMES
        shown = {
            "actor": actor_words(actor),
            "action": action_words(action),
            "outcome": outcome,
            "reason": action_words(reason),
        }
        page = await browser.open(f"/audit?{urlencode(shown)}")
        assert f"#{number(sequence)}" in page.text.split(), shown
        assert action_words(action) in page.text
    page = await browser.open(f"/audit?actor={ROOT}&action=create+user&target=eve")
    assert page.text.count("through n1") == 1


async def test_the_audit_log_is_in_words(desk: Desk) -> None:
    """No address of a certificate, no id of a set, no name of a program's values."""
    await desk.node.issue(count=2, recovery=RecoveryPolicy.ALLOW_AND_DISABLE)
    assert not await desk.node.accepts("4712ABCD-EFGH")
    browser = await with_role(desk, Role.AUDITOR)
    page = await browser.open("/audit")
    assert "2 codes, allow and disable" in page.text
    assert "agent vpn" in page.text
    for internal in ("agent:", "allow_and_disable", "set 0", "node:n1", "help_desk"):
        assert internal not in page.text
    page = await browser.open("/audit?actor=agent+vpn")
    assert "Authenticate" in page.text
    assert "Save emergency access" not in page.text.partition("Details")[2]


async def test_a_decision_is_found_by_the_id_that_the_agent_got(desk: Desk) -> None:
    """(U1) With its consequences; each event links to the others of its decision."""
    node = desk.node
    issued = await node.issue(count=2)
    await node.authenticate("4444" + node.tokencode())
    node.clock.pass_s(60)
    answer = await node.authenticate(PIN + issued.codes[0].code)
    browser = await desk.administrator()
    link = f"/audit?authentication_id={answer.authentication_id}"
    page = await browser.open(
        f"/audit?authentication_id=+{answer.authentication_id.upper()}+"
    )
    assert page.text.count("through n1") == 2
    assert "Set low" in page.text
    assert link in page.links.values()
    page = await browser.open("/audit?authentication_id=none")
    assert "No events match" in page.text


async def test_every_set_that_is_low_is_listed(desk: Desk) -> None:
    """No other page lists them, so the dashboard must list all eight."""
    node = desk.node
    serials = [f"90{number}" for number in range(8)]
    for serial in serials:
        await node.add_user(f"user-{serial}", serial=serial)
        await node.issue(serial, count=2)
    browser = await desk.administrator()
    page = await browser.open("/")
    low = page.text.partition("Low or expiring")[2].partition("Lockouts")[0]
    assert set(serials) <= set(low.split())


async def test_a_fixed_tokencode_does_not_count_as_a_low_set(desk: Desk) -> None:
    """It is one code that use does not spend; it is listed when it ends soon."""
    node = desk.node
    await node.add_user("bob", serial="222")
    await node.emergency.issue_fixed(
        node.admin("EmergencyAccessService/IssueFixedTokencode"),
        serial="222",
        terms=SetTerms(
            lifetime=Lifetime(duration_ms=5 * DAY_MS), recovery=RecoveryPolicy.DENY
        ),
    )
    browser = await desk.administrator()
    page = await browser.open("/")
    assert "In emergency access 1" in page.text
    assert "fixed code" in page.text
    assert "Sets low or expiring 0" in page.text
    node.clock.pass_s(4 * DAY_MS / 1000)
    again = await desk.administrator()
    assert "Sets low or expiring 1" in (await again.open("/")).text
