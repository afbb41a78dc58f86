# SPDX-License-Identifier: Apache-2.0
"""Changes made on pages: users, agents, administrators, approvals, policy."""

import dataclasses
from pathlib import Path
from urllib.parse import quote, urlencode

import pyrage
import pytest

from sparecode_node.console.pages.policy_fields import GROUPS
from sparecode_node.console.pages.snippets import CURL, SNIPPETS
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.agents import Protects
from sparecode_node.domain.pins import PinRule
from sparecode_node.domain.policy import DAY_MS, UNAMBIGUOUS, Policy
from sparecode_node.domain.radius import RadiusSettings
from sparecode_node.queries.views import UserView
from sparecode_node.replication import levels
from sparecode_node.replication.errors import NoQuorumError, OutcomeUnknownError
from sparecode_node.replication.replicator import Proposal
from sparecode_node.services.emergency.emergency_access import Lifetime
from sparecode_node.statemachine.commands.agents import UpdateAgent
from sparecode_node.statemachine.commands.epochs import BeginEpoch
from sparecode_node.statemachine.results import Result
from tests.console.desk import GATE, Desk
from tests.console.paper import Page, Paper
from tests.console.test_pages import OWN, PAGES, with_role
from tests.services.one_node import PASSWORD, PIN, ROOT, SERIAL, VPN
from tests.services.test_epoch_review import beginning

pytestmark = pytest.mark.asyncio

TOKEN = f"/tokens/{SERIAL}"


async def user_of(desk: Desk, username: str = "alice") -> UserView:
    """Return a user's present state."""
    return (
        await desk.node.users.get(desk.node.admin("UserService/GetUser"), username)
    ).value


async def test_a_form_sent_twice_is_applied_once(desk: Desk) -> None:
    """(Q1) The form sent again gets the same answer and no second commit."""
    browser = await desk.administrator()
    form = await browser.open("/new/user")
    first = await browser.send("Create user", username="eve")
    browser.page = form
    second = await browser.send("Create user", username="eve")
    assert second.status == 200
    assert second.text == first.text
    browser.page = form
    page = await browser.send("Create user", username="mallory")
    assert "was sent before with other values" in page.text
    assert (await browser.send("Create user")).path == "/users/mallory"


async def test_a_change_of_unknown_outcome_keeps_its_id(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(A7, Q1) Sent again as the page asks, the form returns the first outcome."""
    browser = await desk.administrator()
    await browser.open("/new/user")
    replicator, propose = desk.node.replicator, desk.node.replicator.propose

    async def lose_the_answer(proposal: object, *, timeout_s: float) -> object:
        monkeypatch.setattr(replicator, "propose", propose)
        await propose(proposal, timeout_s=timeout_s)  # type: ignore[arg-type]
        raise OutcomeUnknownError("lost")

    monkeypatch.setattr(replicator, "propose", lose_the_answer)
    page = await browser.send("Create user", username="eve")
    assert page.status == 503
    assert "it is never applied twice" in page.text
    page = await browser.send("Create user")
    assert page.path == "/users/eve"


async def test_without_a_quorum_the_input_is_kept(desk: Desk) -> None:
    """(A7) The change is refused with an explanation; sent again later, it succeeds."""
    browser = await desk.administrator()
    await browser.open("/users/alice")
    desk.node.replicator.down = NoQuorumError("down")
    page = await browser.send("Save", display_name="Alice Ash", email="a@example.com")
    assert page.status == 503
    assert "nothing was changed" in page.text
    assert "No quorum" in page.text
    assert page.form("/users/alice", "Save").value("display_name") == "Alice Ash"
    desk.node.replicator.down = None
    await browser.send("Save")
    assert (await user_of(desk)).display_name == "Alice Ash"


async def test_users_are_found_by_name_and_mail(desk: Desk) -> None:
    node = desk.node
    for name, shown, mail in (("bob", "Robert", "x@corp.example"), ("eve", "Eve", "")):
        await node.users.create(
            node.admin("UserService/CreateUser"),
            username=name,
            display_name=shown,
            email=mail,
        )
    browser = await desk.administrator()
    for search in ("bob", "OBER", "x@corp"):
        page = await browser.open(f"/users?q={search}")
        assert "bob" in page.links
        assert not {"alice", "eve"} & page.links.keys()
    page = await browser.open("/tokens?q=alice")
    assert SERIAL in page.links
    assert "No user" in (await browser.open("/users?q=zoe")).text


async def test_tokens_are_filtered_by_state_and_kind(desk: Desk) -> None:
    node = desk.node
    await node.add_user("bob", serial="222")
    await node.add_user("eve", serial="333")
    await node.issue("222")
    await node.tokens.disable(node.admin("TokenService/DisableToken"), serial="333")
    browser = await desk.administrator()
    everything = {SERIAL, "222", "333"}
    for query, wanted in (
        ("", everything),
        ("state=emergency", {"222"}),
        ("state=normal", {SERIAL, "333"}),
        ("state=disabled", {"333"}),
        ("state=enabled", {SERIAL, "222"}),
        ("kind=totp&state=enabled&q=bob", {"222"}),
        ("kind=hotp", set()),
        ("kind=nonsense&state=nonsense", everything),
    ):
        page = await browser.open(f"/tokens?{query}")
        assert everything & page.links.keys() == wanted, query


async def test_the_dashboard_counts_what_needs_attention(desk: Desk) -> None:
    """Lost tokens, sets that are low or end soon, locked users, recent events."""
    node = desk.node
    await node.add_user("bob", serial="222")
    await node.add_user("eve", serial="333")
    days = {SERIAL: (10, 30), "222": (2, 30), "333": (10, 1)}
    for serial, (count, span) in days.items():
        lifetime = Lifetime(duration_ms=span * DAY_MS)
        await node.issue(serial, count=count, lifetime=lifetime)
    assert not await node.accepts(PIN + "000000")
    browser = await desk.administrator()
    page = await browser.open("/")
    assert "In emergency access 3 tokens that count as lost" in page.text
    assert "Sets low or expiring 2 few codes" in page.text
    low = page.text.partition("Low or expiring")[2].partition("Lockouts")[0]
    assert {"222", "333"} <= set(low.split())
    assert SERIAL not in low
    assert "Users locked or waiting 1" in page.text
    assert "1 wrong token passcode" in page.text
    events = page.text.partition("Recent events")[2]
    assert "Authenticate alice" in events


async def test_long_lists_have_pages(desk: Desk) -> None:
    node = desk.node
    for number in range(30):
        await node.enroll(f"9{number:03}")
    browser = await desk.administrator()
    page = await browser.open("/tokens?q=9")
    first = {link for link in page.links if link.startswith("9")}
    page = await browser.open(page.links["Next page"])
    second = {link for link in page.links if link.startswith("9")}
    assert not first & second
    assert len(first | second) == 30
    assert {"First page", "Previous page"} <= set(page.links)
    assert "30 tokens, page 2 of 2" in page.text
    page = await browser.open(page.links["Previous page"])
    assert first == {link for link in page.links if link.startswith("9")}
    assert (await browser.open("/tokens?page=99999")).status == 422


async def test_lists_are_ordered_by_a_column(desk: Desk) -> None:
    node = desk.node
    for name, shown in (("zoe", "Anna"), ("amy", "Zora"), ("max", "Mina")):
        await node.users.create(
            node.admin("UserService/CreateUser"),
            username=name,
            display_name=shown,
            email="",
        )
    browser = await desk.administrator()
    page = await browser.open("/users")
    assert page.text.index("amy") < page.text.index("max") < page.text.index("zoe")
    page = await browser.open(page.links["Name"])
    assert page.text.index("Anna") < page.text.index("Mina") < page.text.index("Zora")
    await node.enroll("111")
    page = await browser.open((await browser.open("/tokens")).links["User"])
    assert page.text.index(SERIAL) < page.text.index("unassigned")


async def test_several_users_are_changed_at_once(desk: Desk) -> None:
    """Asked first; each has its own result, and a form sent twice changes nothing."""
    for name in ("bob", "carol", "dora"):
        await desk.node.add_user(name, serial=name)
    browser = await desk.administrator()
    page = await browser.open("/users")
    assert {"Unlock", "Enable", "Disable"} <= page.buttons
    form = page.form("/selection")
    fields = [*form.fields, ("user", "bob"), ("user", "carol"), ("action", "disable")]
    page = await sent(browser, fields)
    assert "Disable 2 users" in page.buttons
    assert (await user_of(desk, "bob")).enabled
    fields = [*page.form("/selection").fields, ("user", "gone"), ("action", "disable")]
    page = await sent(browser, fields)
    assert "2 of 3 users done" in page.text
    assert "no user gone" in page.text
    for name, enabled in (("alice", True), ("bob", False), ("carol", False)):
        assert (await user_of(desk, name)).enabled is enabled
    entries = len(desk.node.replicator.entries)
    page = await sent(browser, fields)
    assert "2 of 3 users done" in page.text
    assert len(desk.node.replicator.entries) <= entries + 3
    page = await sent(browser, [*form.fields, ("action", "disable")])
    assert page.path == "/users"
    assert "Choose users in the list first" in page.text


async def test_users_are_imported_after_a_look_at_the_rows(desk: Desk) -> None:
    """(K4, Q1) A bad row stops no other; the same form imports nothing twice."""
    browser = await desk.administrator()
    page = await browser.open("/import/users")
    page = await browser.send("Show the rows", content="name\nbob")
    assert page.status == 422
    assert page.form("/import/users").value("content") == "name\nbob"
    text = (
        "username,display_name,email,groups\nbob,Bob Ash,bob@example.com,Staff; night\n"
        "ALICE,,,\ncarol,,no-address,\nBob,,,\nx y,,,\ndora,,,\n"
    )
    page = await browser.send("Show the rows", content=text)
    assert "Nothing is imported yet. 2 users of 6 rows can be imported" in page.text
    for words in (
        "There is a user of this name.",
        "Email: must be an e-mail address, as in a@example.com.",
        "Row 1 of this file has the same username.",
        "Username: must not hold spaces.",
    ):
        assert words in page.text, words
    preview = page
    page = await browser.send("Import 2 users")
    assert "2 users imported of 6 rows" in page.text
    assert (await user_of(desk, "bob")).groups == ("night", "staff")
    assert (await user_of(desk, "dora")).enabled
    browser.page = preview
    page = await browser.send("Import 2 users")
    assert "2 users imported of 6 rows" in page.text
    users = await desk.node.users.list(desk.node.admin("UserService/ListUsers"))
    names = [user.username for user in users.value.items]
    assert names == ["alice", "bob", "dora"]


async def sent(browser: Paper, fields: list[tuple[str, str]]) -> Page:
    """Send the form of a selection."""
    answer = await browser.client.post(
        "/selection",
        content=urlencode(fields).encode(),
        headers={"content-type": "application/x-www-form-urlencoded"},
        follow_redirects=True,
    )
    browser.page = Page(answer)
    return browser.page


async def test_the_help_desk_unlocks_several_users(desk: Desk) -> None:
    """(P1, L6) It is offered nothing else."""
    assert not await desk.node.accepts(PIN + "000000")
    browser = await with_role(desk, Role.HELP_DESK)
    page = await browser.open("/users?state=locked")
    assert "Unlock" in page.buttons
    assert not {"Enable", "Disable"} & page.buttons
    page = await browser.send("Unlock", action="/selection", tick={"user": "alice"})
    page = await browser.send("Unlock 1 user", action="/selection")
    assert "1 of 1 user done" in page.text
    assert "alice" not in (await browser.open("/users?state=locked")).links
    browser = await with_role(desk, Role.AUDITOR)
    assert "/selection" not in (await browser.open("/users")).forms


async def test_a_locked_user_is_found_and_unlocked(desk: Desk) -> None:
    """(L6) By the help desk, whose role allows it."""
    assert not await desk.node.accepts(PIN + "000000")
    browser = await with_role(desk, Role.HELP_DESK)
    page = await browser.open("/users?state=locked")
    assert "alice" in page.links
    assert "alice" in (await browser.open("/")).links
    await browser.open("/users/alice")
    page = await browser.send("Unlock")
    assert "The user is unlocked" in page.text
    user = await user_of(desk)
    assert not user.locked
    assert not user.token_failures
    assert "alice" not in (await browser.open("/users?state=locked")).links


async def test_a_user_is_created_changed_disabled_and_deleted(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open("/new/user")
    page = await browser.send("Create user", username="  ", email="e@example.com")
    assert page.status == 422
    assert page.form("/new/user").value("email") == "e@example.com"
    page = await browser.send("Create user", username="R&D/eve?")
    assert page.path == "/users/R%26D%2Feve%3F"
    page = await browser.send("Save", display_name="Eve", action=page.forms[2])
    assert "Eve" in page.text
    await browser.send("Disable", action=page.forms[2])
    assert not (await user_of(desk, "R&D/eve?")).enabled
    page = await browser.send("Delete", action=page.forms[2])
    assert page.path == "/users"
    assert "R&D/eve?" not in page.links


async def test_an_agent_is_registered_limited_and_removed(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open("/new/agent")
    page = await browser.send("Register agent", name="mail", identity="with spaces in")
    assert page.status == 422
    assert page.form("/new/agent").value("name") == "mail"
    page = await browser.send(
        "Register agent",
        identity="spiffe://example/mail",
        filter_id="guests",
        tick={"restricted": "on"},
    )
    assert "Filter-Id guests" in page.text
    assert "The list is empty: no user is admitted" in page.text
    page = await browser.send("Add to allow list", username="zoe")
    assert page.status == 404
    # The other form of the page still shows the present values.
    assert page.form(page.path, "Save").values("restricted") == ["on"]
    page = await browser.send("Add to allow list", username="alice")
    assert "alice" in page.links
    page = await browser.send("Remove", username="alice")
    assert "alice" not in page.links
    await browser.open("/agents/mail")
    page = await browser.send("Save", session_timeout="an hour")
    assert "session timeout must be a whole number" in page.text
    page = await browser.send(
        "Save",
        protects="cloud",
        untick=("restricted",),
        filter_id="staff",
        class_attribute="vpn-users",
        session_timeout="3600",
    )
    for words in ("Filter-Id staff", "Class vpn-users", "Session-Timeout 3 600 s"):
        assert words in page.text, words
    assert "Cloud resources" in page.text
    assert "all users" in page.text
    await browser.send("Disable")
    page = await browser.send("Remove")
    assert page.path == "/agents"
    assert "mail" not in page.links


async def test_below_level_2_a_saved_agent_keeps_what_nobody_touched(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are no etags yet, and only what the person has changed is sent."""
    replicator = desk.node.replicator
    propose = replicator.propose

    async def as_in_level_1(proposal: Proposal, *, timeout_s: float) -> Result:
        if isinstance(proposal.call.command, UpdateAgent):
            levels.check(proposal.call, 1)
        return await propose(proposal, timeout_s=timeout_s)

    def set_level(level: int) -> None:
        db = desk.node.local_db
        db.execute("UPDATE meta SET value = ? WHERE name = 'feature_level'", (level,))
        db.commit()

    async def update(**values: object) -> None:
        await desk.node.agents.update(
            desk.node.admin("AgentService/UpdateAgent"), name="mail", **values
        )

    browser = await desk.administrator()
    await desk.node.agents.register(
        desk.node.admin("AgentService/RegisterAgent"),
        name="mail",
        identity="spiffe://example/mail",
        protects=Protects.AUTHENTICATION_MANAGER,
        filter_id="old",
        class_attribute="c",
        session_timeout_s=60,
    )
    await browser.open("/agents/mail")
    await update(filter_id="new")
    with monkeypatch.context() as patch:
        patch.setattr(replicator, "propose", as_in_level_1)
        set_level(1)
        page = await browser.send("Save", protects="cloud")
        assert page.status == 200
        for words in ("Cloud resources", "Filter-Id new", "Class c", "60 s"):
            assert words in page.text, words
        page = await browser.send("Save", class_attribute="d")
        assert "runs an older release" in page.text
    set_level(2)
    await browser.open("/agents/mail")
    page = await browser.send("Save", class_attribute="d", session_timeout="")
    for words in ("Filter-Id new", "Class d"):
        assert words in page.text, words
    assert "60 s" not in page.text


async def test_a_radius_client_is_registered_and_its_secret_shown_once(
    desk: Desk,
) -> None:
    """(D1, Q1) A reload sends the same request, and shows the same secret."""
    browser = await desk.administrator()
    await browser.open("/new/radius-client")
    page = await browser.send("Register RADIUS client", name="vpn", networks="10.1")
    assert page.status == 422
    assert "ust be IP addresses or networks" in page.text
    page = await browser.send(
        "Register RADIUS client", session_timeout="an hour", networks="10.1.0.7"
    )
    assert "session timeout must be a whole number" in page.text
    page = await browser.send(
        "Register RADIUS client",
        networks="10.1.0.7, 2001:db8::/64",
        session_timeout="3600",
        filter_id="staff",
        signatures="optional",
        tick={"repeats": "on"},
    )
    (client,) = [
        each
        for each in (await desk.node.radius_clients.directory()).clients
        if each.name == "vpn"
    ]
    (secret,) = client.secrets
    assert page.text.count(secret.decode()) == 2  # Alone, and in the line for PAM.
    page = await browser.open("/agents/vpn")
    assert secret.decode() not in page.text
    for words in (
        "10.1.0.7/32, 2001:db8::/64",
        "Not required: unsafe",
        "As new requests, within 30 seconds",
        "staff",
        "None since it started",
    ):
        assert words in page.text, words
    page = await browser.open("/agents")
    assert "10.1.0.7/32, 2001:db8::/64 and a secret" in page.text
    assert "Unsafe" in page.text


async def test_the_page_of_a_radius_client_has_configurations_to_copy(
    desk: Desk,
) -> None:
    """The documentation has the same texts."""
    browser = await desk.administrator()
    page = await browser.open(f"/agents/{GATE}")
    documented = (Path(__file__).parents[2] / "docs/radius.md").read_text()
    for each in SNIPPETS:
        assert " ".join(each.text.split()) in page.text, each.key
        assert f"```\n{each.text}```\n" in documented, each.key
    assert "Configuration to copy" not in (await browser.open(f"/agents/{VPN}")).text


async def test_a_bearer_key_is_shown_once(desk: Desk) -> None:
    """(D5) With a text to copy, which the documentation has, too."""
    browser = await desk.administrator()
    page = await browser.open(f"/agents/{VPN}")
    assert "has no bearer key" in page.text
    await browser.open(page.links["Create a bearer key"])
    page = await browser.send("Create the key", networks="10.1.0.7, 2001:db8::/64")
    assert "sparecode_" in page.text
    assert " ".join(CURL.text.split()) in page.text
    documented = (Path(__file__).parents[2] / "docs/http.md").read_text()
    assert f"```\n{CURL.text}```\n" in documented
    page = await browser.open(f"/agents/{VPN}")
    assert "sparecode_" not in page.text
    for words in ("Bearer key since", "10.1.0.7/32, 2001:db8::/64", "curl"):
        assert words in page.text, words
    await browser.open(page.links["Replace the key"])
    page = await browser.send("Create the key", networks="nowhere")
    assert "ust be IP addresses" in page.text
    page = await browser.send("Create the key", networks="", overlap_hours="1")
    assert "sparecode_" in page.text
    assert "Old key works until" in (await browser.open(f"/agents/{VPN}")).text
    page = await browser.open(f"/agent-keys/{GATE}")
    assert "is a RADIUS client" in page.text


async def test_the_settings_of_a_radius_client_are_changed(desk: Desk) -> None:
    """(D2) The form shows all of them, so saving it unchanged changes nothing."""

    async def settings() -> RadiusSettings:
        (client,) = (await desk.node.radius_clients.directory()).clients
        return client.settings

    browser = await desk.administrator()
    page = await browser.open(f"/agents/{GATE}")
    before = await settings()
    await browser.open(page.links["Change settings"])
    page = await browser.send("Save")
    assert await settings() == before
    await browser.open(f"/radius-clients/{GATE}")
    page = await browser.send("Save", tick={"allow_unsigned_proxied": "on"})
    assert "eeds allow_unsigned" in page.text
    page = await browser.send("Save", networks="")
    assert "at least one network" in page.text
    page = await browser.send(
        "Save",
        networks="198.51.100.0/24",
        signatures="first",
        tick={"allow_unsigned_proxied": "on", "repeats": "on", "prompts": "on"},
    )
    changed = RadiusSettings(
        networks=("198.51.100.0/24",),
        allow_unsigned=True,
        allow_unsigned_proxied=True,
        unsigned_until_signed=True,
        repeats_with_new_authenticator=True,
        prompts_for_passcode=True,
    )
    assert await settings() == changed
    page = await browser.open(f"/agents/{GATE}")
    for words in (
        "Not required: unsafe",
        "Not even with Proxy-State",
        "once the client",
    ):
        assert words in page.text, words
    await browser.open(f"/radius-clients/{GATE}")
    await browser.send("Save")
    assert await settings() == changed
    assert (await browser.open(f"/radius-clients/{quote(VPN)}")).status == 404


async def test_a_replaced_secret_works_for_the_time_chosen(desk: Desk) -> None:
    """(D1) The agent's page shows until when, and since when the new one works."""
    browser = await desk.administrator()
    page = await browser.open(f"/agents/{GATE}")
    await browser.open(page.links["Replace the secret"])
    page = await browser.send("Replace the secret", overlap_hours="1")
    (client,) = (await desk.node.radius_clients.directory()).clients
    assert len(client.secrets) == 2
    assert client.secrets[0].decode() in page.text
    assert client.secrets[1].decode() not in page.text
    page = await browser.open(f"/agents/{GATE}")
    assert "Secret since" in page.text
    assert "Old secret works until" in page.text
    desk.node.clock.pass_s(3600)
    browser = await desk.administrator()
    page = await browser.open(f"/agents/{GATE}")
    assert "Secret since" in page.text
    assert "Old secret works until" not in page.text
    for name in (VPN, "unknown"):
        assert (await browser.open(f"/radius-secrets/{quote(name)}")).status == 404


async def test_the_list_shows_what_a_node_has_seen_of_a_radius_client(
    desk: Desk,
) -> None:
    browser = await desk.administrator()
    assert "no packet at node" in (await browser.open("/agents")).text
    for verdict in ("accepted", "wrong_secret", "wrong_secret"):
        desk.node.services.packet_counts.count(GATE, verdict, desk.node.clock.now_ms())
    desk.node.clock.pass_s(120)
    page = await browser.open("/agents")
    assert "2 minutes ago" in page.text
    assert "2 wrong secrets" in page.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert "Packets: wrong secret" in (await browser.open(f"/agents/{GATE}")).text


async def test_a_certificate_is_denied_and_allowed(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open("/denied-certificates")
    page = await browser.send("Deny", value="not hexadecimal", note="stolen")
    assert page.status == 422
    assert page.form("/denied-certificates", "Deny").value("note") == "stolen"
    page = await browser.send("Deny", value="AB:" * 31 + "AB")
    assert "ab" * 32 in page.text
    page = await browser.send("Allow")
    assert "No certificates are denied" in page.text


async def test_a_second_administrator_approves(desk: Desk) -> None:
    """(P3) A sensitive change waits, is listed, and is made after approval."""
    root = await desk.administrator()
    await root.open("/new/administrator")
    page = await root.send(
        "Create administrator",
        name="dora",
        password=PASSWORD,
        password_again="another one than this",
    )
    assert "The two passwords differ" in page.text
    assert PASSWORD not in page.response.text
    page = await root.send(
        "Create administrator",
        tick={"role": "super_admin"},
        name="dora",
        password=PASSWORD,
        password_again=PASSWORD,
    )
    assert "The administrator is created" in page.text
    dora = await desk.browser()
    await dora.sign_in("dora", PASSWORD)
    await dora.send(
        "Change password",
        old_password=PASSWORD,
        new_password=OWN,
        new_password_again=OWN,
    )
    await dora.sign_in("dora", OWN)

    await root.open("/policy")
    page = await root.send("Save", set_low_threshold="5")
    assert "Not done yet: another super administrator must approve" in page.text
    page = await root.open("/approvals")
    assert "Report a set as low at this many codes: from 2 to 5" in page.text
    assert page.buttons & {"Approve", "Withdraw", "Reject"} == {"Withdraw"}
    page = await dora.open("/approvals")
    assert {"Approve", "Reject"} <= page.buttons
    page = await dora.send("Approve")
    assert "Approved" in page.text
    assert "No approvals are waiting" in page.text
    assert (await dora.open("/policy")).form("/policy").value(
        "set_low_threshold"
    ) == "5"

    await dora.open(f"/administrators/{ROOT}")
    await dora.send("Change role", tick={"role": "auditor"})
    await root.open("/approvals")
    page = await root.send("Reject")
    assert "Rejected" in page.text


async def test_codes_for_a_pin_set_by_the_issuer_need_approval(desk: Desk) -> None:
    """(I10, P3) The page says so, keeps the codes, and saves them after the approval."""
    browser = await desk.administrator()
    await with_role(desk, Role.AUDITOR)
    node = desk.node
    second = await desk.browser()
    await node.administrators.update(
        node.admin("AdministratorService/UpdateAdministrator"),
        name="auditor",
        role=Role.SUPER_ADMIN,
    )
    await second.sign_in("auditor", OWN)
    await browser.open(f"{TOKEN}/emergency-access")
    codes = (await browser.send("Generate Codes", count="2")).codes
    page = await browser.send("Save", expires_date="2023-12-24")
    assert page.status == 409
    assert "another super administrator must approve it (approval 1)" in page.text
    assert page.codes == codes
    await second.open("/approvals")
    await second.send("Approve")
    page = await browser.send("Save")
    assert page.status == 200, page.text
    assert page.codes == codes


async def test_the_policy_shows_its_odds_and_is_saved(desk: Desk) -> None:
    """(I6) The page computes the odds for the input as the rules do."""
    browser = await desk.administrator()
    page = await browser.open("/policy")
    odds = page.text.replace("\u202f", " ")
    assert "852 874 260 225 possible codes" in odds
    assert "10 live codes: 1 in 852 874 260" in odds
    assert "50 live codes: 1 in 170 574 852" in odds
    assert "the limit is 1 in 10 000" in odds
    page = await browser.send(
        "Check",
        code_length="6",
        codes_per_set_max="100",
        code_alphabet="0123456789abc",
    )
    assert page.status == 200
    assert "refused" in page.text
    form = page.form("/policy")
    assert form.value("code_length") == "6"
    page = await browser.send("Save")
    assert page.status == 409
    assert "more than 1 in" in page.text
    assert page.form("/policy").value("codes_per_set_max") == "100"
    page = await browser.send(
        "Save",
        code_length="8",
        codes_per_set_max="50",
        code_alphabet=UNAMBIGUOUS,
        lifetime_ms_max="14.5",
        tick={"lock_until_unlocked": "on"},
        untick=("second_approver",),
    )
    assert "It is now version 2" in page.text
    policy = (
        await desk.node.policies.get(desk.node.admin("PolicyService/GetPolicy"))
    ).value
    assert policy.lifetime_ms_max == 14.5 * DAY_MS
    assert policy.lock_until_unlocked
    assert not policy.second_approver


@pytest.mark.parametrize(
    ("field", "typed", "words"),
    [
        ("code_length", "many", "whole number"),
        ("code_length", "99", "6 to 16"),
        ("lock_ms", "soon", "a number of minutes"),
        ("lock_ms", "-5", "Must not be negative"),
        ("lock_ms", "inf", "a number of minutes"),
        ("code_alphabet", "ABC", "at least 10 symbols"),
        ("pin_length_min", "9", "must not be more than"),
    ],
)
async def test_a_policy_out_of_bounds_is_refused_beside_its_field(
    desk: Desk, field: str, typed: str, words: str
) -> None:
    browser = await desk.administrator()
    await browser.open("/policy")
    page = await browser.send("Save", **{field: typed})
    assert page.status in (409, 422)
    assert words in page.text
    assert f'id="{field}-problem"' in page.response.text
    assert page.form("/policy").value(field) == typed


async def test_a_backup_recipient_is_kept_as_it_was_typed(desk: Desk) -> None:
    """A key keeps its lower case; the codes' alphabet is converted to capitals."""
    key = str(pyrage.x25519.Identity.generate().to_public())
    browser = await desk.administrator()
    await browser.open("/policy")
    page = await browser.send(
        "Save", backup_recipients=key, code_alphabet="23456789abcdef"
    )
    assert "It is now version 2" in page.text
    form = (await browser.open("/policy")).form("/policy")
    assert form.value("backup_recipients") == key
    assert form.value("code_alphabet") == "23456789ABCDEF"


async def test_two_administrators_change_the_policy_at_once(desk: Desk) -> None:
    """The second one is refused and sees the first one's value, at its field."""
    one, two = await desk.administrator(), await desk.administrator()
    await one.open("/policy")
    await two.open("/policy")
    await one.send("Save", set_low_threshold="3")
    page = await two.send("Save", set_low_threshold="4")
    assert page.status == 409
    assert "Another administrator has changed this in the meantime" in page.text
    assert "The value is now: 3" in page.text
    assert page.form("/policy").value("set_low_threshold") == "4"
    page = await two.send("Save")
    assert "It is now version 3" in page.text


async def test_the_audit_log_is_filtered_and_exported(desk: Desk) -> None:
    await desk.node.accepts(PIN + desk.node.tokencode())
    browser = await desk.administrator()
    page = await browser.open(f"/audit?actor=agent:{VPN}")
    assert "Authenticate" in page.text
    assert "Create user" not in page.text
    assert "No events match" in (await browser.open("/audit?start=2030-01-01")).text
    page = await browser.open("/audit?start=soon&actor=x")
    assert page.status == 422
    assert page.form("/audit").value("start") == "soon"
    file = await browser.open("/audit/export?format=csv&action=Authenticate")
    assert file.response.headers["content-disposition"] == (
        'attachment; filename="audit.csv"'
    )
    lines = file.response.text.splitlines()
    assert lines[0].startswith("sequence,time,actor")
    assert len(lines) == 2
    file = await browser.open("/audit/export?format=json_lines")
    assert len(file.response.text.splitlines()) > 5
    assert (await browser.open("/audit/export?format=xml")).status == 422
    await browser.open("/audit")
    page = await browser.send("Verify the chain", action="/audit/verify")
    assert "Intact. Proved up to event" in page.text


async def test_without_a_quorum_every_page_still_opens(desk: Desk) -> None:
    """(P2) Pages show stale data and say so."""
    browser = await desk.administrator()
    desk.node.replicator.down = NoQuorumError("down")
    for path in PAGES.keys() - {"/cluster/review"}:  # It must show the present state.
        page = await browser.open(path)
        assert page.status == 200, path
        # Also on pages with a form that could not be applied now.
        assert "No quorum. Too few nodes are in contact" in page.text or (
            path.startswith("/audit/export")
        ), path
    for path in (
        "/",
        "/administrators",
        "/agents",
        "/denied-certificates",
        f"{TOKEN}/emergency-access",
        f"{TOKEN}/disable",
        "/users/alice",
        "/tokens",
        TOKEN,
        "/users",
        "/audit",
        "/policy",
        "/approvals",
        "/account",
    ):
        page = await browser.open(path)
        assert page.status == 200, path
        assert "later changes may be missing" in page.text, path
    assert "No quorum: 1 of 3 nodes" in (await browser.open("/cluster")).text


async def test_a_token_without_pin_has_no_pin_actions(desk: Desk) -> None:
    await desk.node.enroll("777", pin_rule=PinRule.NONE)
    node = desk.node
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial="777", username="alice"
    )
    browser = await desk.administrator()
    links = (await browser.open("/tokens/777")).links
    assert not {"Set PIN", "Clear PIN"} & links.keys()


async def test_every_field_of_the_policy_has_a_label(desk: Desk) -> None:
    """A field added to the policy appears in the editor and keeps its value."""
    names = {knob.name for _, knobs in GROUPS for knob in knobs}
    assert names == {field.name for field in dataclasses.fields(Policy)} - {"version"}
    browser = await desk.administrator()
    await browser.open("/policy")
    page = await browser.send("Save")
    assert "It is now version 2" in page.text
    policy = (
        await desk.node.policies.get(desk.node.admin("PolicyService/GetPolicy"))
    ).value
    assert policy == Policy(version=2)


async def test_a_restored_cluster_is_reviewed_and_opened(desk: Desk) -> None:
    """(E2) Every page that shows the cluster says so, until the review."""
    node = desk.node
    told = {"filter_id": "staff", "class_attribute": "c", "session_timeout_s": 60}
    await node.agents.update(node.admin("AgentService/UpdateAgent"), name=GATE, **told)
    begun = BeginEpoch(cluster_id="c9", cause="restore", state_index=7, state_at_ms=1)
    node.replicator.commit([Proposal(call=beginning(begun))])
    browser = await desk.administrator()
    for path in ("/", "/cluster"):
        page = await browser.open(path)
        assert "After a restore no agent is served" in page.text
    page = await browser.open(page.links["Review and open"])
    assert "This state ends at log index 7" in page.text
    assert ROOT in page.text
    assert VPN in page.text
    for words in ("Filter-Id staff", "Class c", "Session-Timeout 60 s"):
        assert words in page.text, words
    page = await browser.send("Open the cluster as shown")
    assert "The cluster is open" in page.text
    assert "no agent is served" not in page.text
    assert "There is nothing to review" in (await browser.open("/cluster/review")).text


async def test_a_state_that_changed_since_the_review_is_not_opened(desk: Desk) -> None:
    """(E2) An agent is added in the meantime: refused, and shown with the new agent."""
    node = desk.node
    begun = BeginEpoch(cluster_id="c9", cause="recover", state_index=7, state_at_ms=1)
    node.replicator.commit([Proposal(call=beginning(begun))])
    browser, other = await desk.administrator(), await desk.administrator()
    await browser.open("/cluster/review")
    await other.open("/new/agent")
    await other.send("Register agent", name="newcomer", identity="x")
    page = await browser.send("Open the cluster as shown")
    assert page.status == 409
    assert "newcomer" in page.text
    page = await browser.send("Open the cluster as shown")
    assert "The cluster is open" in page.text
