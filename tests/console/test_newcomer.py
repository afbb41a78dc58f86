# SPDX-License-Identifier: Apache-2.0
"""
What misled a newcomer: docs/results/console-walk.md has the walk.

Each test is for one mended point of its list.
"""

import dataclasses

import pytest

from sparecode_node.console.kit.notice_kinds import NOTICE_KINDS
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.ids import NameKey
from sparecode_node.domain.personal_kinds import PersonalKind
from sparecode_node.domain.policy import MINUTE_MS, Policy
from sparecode_node.domain.radius import radius_identity
from sparecode_node.services.context import AgentCaller
from sparecode_node.statemachine.results import Decision
from tests.console.desk import GATE, Desk
from tests.console.test_pages import PASSWORD, create_administrator, with_role
from tests.services.one_node import PASSWORD as ROOTS
from tests.services.one_node import PIN, ROOT, SERIAL

pytestmark = pytest.mark.asyncio

USER = "/users/alice"
PAGE = f"/tokens/{SERIAL}/emergency-access"


async def policy(desk: Desk) -> Policy:
    node = desk.node
    await node.login()
    return (await node.policies.get(node.admin("PolicyService/GetPolicy"))).value


async def update_policy(desk: Desk, **values: object) -> None:
    await desk.node.policies.update(
        desk.node.admin("PolicyService/UpdatePolicy"),
        version=(await policy(desk)).version,
        values=values,
    )


@pytest.mark.parametrize(
    "path", ["/", "/users", "/find?q=alice", "/tokens", "/account", "/approvals"]
)
async def test_a_temporary_password_leads_to_its_change_from_every_page(
    desk: Desk, path: str
) -> None:
    """No page claims that there are no users, and no refused call is audited."""
    await create_administrator(desk, "hana", Role.HELP_DESK)
    browser = await desk.browser()
    await browser.sign_in("hana", PASSWORD)
    page = await browser.open(path)
    assert page.path == "/account/password"
    assert "Your password is temporary." in page.text
    await desk.node.refusals.flush(desk.node.replicator)
    log = (await (await desk.administrator()).open("/audit")).text
    assert "hana" in log
    assert "Password change needed" not in log


@pytest.mark.parametrize("button", ["Sign out", "Sign out everywhere"])
async def test_a_temporary_password_lets_its_administrator_sign_out(
    desk: Desk, button: str
) -> None:
    """The change of the password is not the only way to leave a shared computer."""
    await create_administrator(desk, "hana", Role.HELP_DESK)
    browser = await desk.browser()
    page = await browser.sign_in("hana", PASSWORD)
    assert page.path == "/account/password"
    form = page.form("/account/sign-out")
    if button == "Sign out everywhere":  # Its button is on a page that is closed.
        form.action = "/account/sign-out-everywhere"
        form.buttons[0].words = button
    page = await browser.send(button, action=form.action)
    assert page.path == "/sign-in"
    assert "form_token" in page.response.text
    page = await browser.open("/account/password")
    assert page.path == "/sign-in"


async def test_a_lock_of_tokencodes_says_that_emergency_codes_are_not_locked(
    desk: Desk,
) -> None:
    """(U3) "Tokencodes" alone could be the emergency access tokencodes, too."""
    for _ in range(5):
        desk.node.clock.pass_s(60)
        assert not await desk.node.accepts(PIN + "000000")
    page = await (await with_role(desk, Role.HELP_DESK)).open(USER)
    assert "Tokencodes are locked until" in page.text
    assert "Emergency codes, if the user has any, are not locked." in page.text


async def test_no_page_calls_codes_unlocked_while_they_are_refused(desk: Desk) -> None:
    for passcode in [PIN + "000000"] * 5 + [PIN + "AAAA-BBBB"] * 5:
        desk.node.clock.pass_s(20)
        assert not await desk.node.accepts(passcode)
    page = await (await with_role(desk, Role.HELP_DESK)).open(USER)
    assert "Emergency codes are locked until" in page.text
    assert "are not locked." not in page.text


async def test_a_refused_policy_is_explained_with_the_label_of_the_field(
    desk: Desk,
) -> None:
    browser = await desk.administrator()
    await browser.open("/policy")
    for button, status in (("Check", 200), ("Save", 409)):
        page = await browser.send(button, session_idle_ms="1", lock_ms="15")
        assert page.status == status
        assert 'id="session_idle_ms-problem"' in page.response.text
        assert (
            "“End a session that is not used after” must be 5 minutes to 1 day, "
            "not 1 minute." in page.text
        )
        assert "ession_idle" not in page.text
        assert "ession idle" not in page.text


async def test_bounds_of_the_policy_are_in_words(desk: Desk) -> None:
    """Without public names, and whatever is typed."""
    browser = await desk.administrator()
    first, longest = "“First lock” must", "“Longest lock”"
    for typed, words in (
        ({"lock_ms": "0.5"}, f"{first} be 1 minute to 1 day, not 0.5 minutes."),
        (
            {"lock_ms": "99999999"},
            f"{first} be 1 minute to 1 day, not 99,999,999 minutes.",
        ),
        ({"lock_ms": "999999999999999"}, "Is too large."),
        (
            {"lock_ms": "1440", "lock_ms_max": "12"},
            f"{first} not be more than {longest}: 1,440 minutes is more than 12 hours.",
        ),
        ({"pin_length_min": "3"}, "“Shortest PIN” must be 4 to 16, not 3."),
    ):
        await browser.open("/policy")
        for button in ("Check", "Save"):
            page = await browser.send(button, **typed)
            assert words in page.text
    browser.client.headers["accept-language"] = "de"
    await browser.open("/policy")
    page = await browser.send("Speichern", session_idle_ms="1")
    assert "muss zwischen 5 Minuten und 1 Tag liegen" in page.text
    # English words in a German sentence are called so.
    await browser.open("/policy")
    page = await browser.send("Speichern", code_alphabet="ABC")
    assert (
        "„Alphabet“ – auf Englisch: “must hold at least 10 symbols, not 3.”"
        in page.text
    )


async def test_kinds_of_notices_are_chosen_in_words(desk: Desk) -> None:
    """Not typed by their names, and a form that changes none changes no order either."""
    browser = await desk.administrator()
    page = await browser.open("/policy")
    assert "Failures have locked the sign-in" in page.text
    assert "new_device" not in page.text
    assert "codes_issued" not in page.text
    form = page.form("/policy", "Save")
    assert form.values("silent_notices") == []
    assert "token_reinstated" in form.values("manager_notices")
    assert ("silent_notices", "new_device") in form.choices
    assert ("silent_notices", "test") not in form.choices
    kept = (await policy(desk)).manager_notices
    page = await browser.send("Save", tick={"silent_notices": "new_device"})
    assert "The policy is changed." in page.text
    assert (await policy(desk)).silent_notices == "new_device"
    assert (await policy(desk)).manager_notices == kept
    await update_policy(desk, silent_notices="new_device locked code_used")
    page = await browser.open("/policy")
    assert page.form("/policy", "Save").values("silent_notices") == [
        *("code_used", "locked", "new_device")
    ]
    await browser.send("Save", untick=("manager_notices",))
    assert (await policy(desk)).silent_notices == "new_device locked code_used"
    assert (await policy(desk)).manager_notices == ""
    page = await browser.send("Save", lock_ms="0", untick=("silent_notices",))
    assert page.form("/policy", "Save").values("silent_notices") == []
    page = await browser.send("Save", lock_ms="15")
    assert (await policy(desk)).silent_notices == ""


async def test_previews_name_kinds_of_notices_in_words(desk: Desk) -> None:
    page = await (await desk.administrator()).open("/notices")
    assert ">Emergency codes were issued</option>" in page.response.text
    assert ">codes_issued<" not in page.response.text
    assert set(NOTICE_KINDS) == set(PersonalKind)


async def test_events_are_in_words_of_a_help_desk(desk: Desk) -> None:
    """No call is noted, no session opened: calls are refused, administrators sign in."""
    browser = await with_role(desk, Role.HELP_DESK)
    assert (await browser.open("/agents")).status == 403
    assert await desk.node.refusals.flush(desk.node.replicator)
    browser = await desk.administrator()
    for path in ("/", "/audit"):
        page = await browser.open(path)
        assert "Calls refused List agents" in page.text
        assert "Administrator sign-in" in page.text
        for internal in ("Note refused", "Open session", "Service/"):
            assert internal not in page.text, internal
    assert "Register agent vpn" in page.text, "not the address of its certificate"
    page = await browser.open("/audit?action=calls+refused")
    assert "List agents" in page.text
    assert "Administrator sign-in" not in page.text
    assert page.links["List agents"] == "/audit?target=AgentService/ListAgents"


async def test_a_refused_generation_speaks_of_no_save(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Generate Codes", count="0")
    assert "No codes were generated. Enter a number from 1 to 50" in page.text
    assert "Nothing was saved" not in page.text
    assert "Manage Existing Tokens" in page.text
    page = await browser.send("Save", count="2")
    assert "Nothing was saved. Generate the codes first" in page.text


async def test_a_reload_says_that_unsaved_codes_are_gone(desk: Desk) -> None:
    """Once, without a script, and not if they were saved in another tab."""
    gone = "are not saved. Unless another tab still shows them, they are gone"
    browser = await desk.administrator()
    assert gone not in (await browser.open(PAGE)).text
    await browser.send("Generate Codes", count="0")
    assert gone not in (await browser.open(PAGE)).text
    page = await browser.send("Generate Codes", count="2")
    assert gone not in page.text
    code = page.codes[0]
    desk.node.clock.pass_s(60)
    page = await browser.open(PAGE)
    assert f"The codes generated 1 minute ago {gone}" in page.text
    assert code not in page.text
    assert gone not in (await browser.open(PAGE)).text
    await browser.send("Generate Codes", count="2")
    other = await browser.client.get("/users/alice")
    assert "-unsaved" not in str(other.headers)
    await browser.send("Save")
    assert gone not in (await browser.open(PAGE)).text
    await browser.send("Generate Codes", count="2")
    desk.node.clock.pass_s(1)
    await desk.node.issue(count=2, recovery=RecoveryPolicy.DENY)
    assert gone not in (await browser.open(PAGE)).text
    await browser.send("Generate Codes", count="2")
    await update_policy(desk, draft_lifetime_ms=MINUTE_MS)
    desk.node.clock.pass_s(61)
    page = await browser.open(PAGE)
    assert page.path == PAGE
    assert gone not in page.text, "too old to be saved"


async def test_generated_codes_say_that_unused_ones_become_void(desk: Desk) -> None:
    """(I8) *Save* is in reach then, and the box that keeps them is not in sight."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Generate Codes", count="2")
    assert "Check below what happens if the token becomes available." in page.text
    assert "Saving voids" not in page.text
    assert "Continue in a new tab, on n2 , n3" in page.text
    await desk.node.issue()
    await browser.open(PAGE)
    page = await browser.send("Generate Codes", count="2")
    assert "Saving voids the 3 unused codes issued earlier" in page.text
    assert page.links["keep them"] == "#unused"


async def test_turning_it_off_says_that_a_token_left_at_home_works(desk: Desk) -> None:
    """(R3) As `users explain` says: nothing stands in the way of the token."""
    await desk.node.issue(recovery=RecoveryPolicy.ALLOW_AND_DISABLE)
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Save", untick=("online",))
    assert "are void. The token works at its next use." in page.text
    assert "still counts as lost" not in page.text
    assert await desk.node.accepts(PIN + desk.node.tokencode())


async def test_turning_it_off_leads_to_reinstating_the_token(desk: Desk) -> None:
    await desk.node.issue(recovery=RecoveryPolicy.DENY)
    browser = await desk.administrator()
    await browser.open(PAGE)
    await browser.send("Save", untick=("online",))
    page = await browser.send("Turn off all the same")
    assert "are void. The token itself still counts as lost." in page.text
    assert page.links["Token is back"] == f"/tokens/{SERIAL}/reinstate"


async def test_what_a_help_desk_asked_for_can_be_approved(desk: Desk) -> None:
    """(P3, P3a) Both name a token without its owner, which the page must bear."""
    root = await desk.administrator()
    browser = await with_role(desk, Role.HELP_DESK)
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    page = await browser.send("Save", expires_date="2023-12-24")
    assert len(page.codes) == 2
    for _ in range(5):
        desk.node.clock.pass_s(60)
        assert not await desk.node.accepts(PIN + "000000")
    await browser.open(USER)
    page = await browser.send("Unlock")
    assert "Not done yet" in page.text
    await browser.open(PAGE)
    page = await browser.send("Save", untick=("online",), tick={"reinstate": "on"})
    assert page.status == 409
    assert "must approve it (approval 2). The page Approvals shows why." in page.text
    assert "save again after the approval" not in page.text
    for reader in (root, browser):
        page = await reader.open("/approvals")
        assert page.status == 200
        assert "help_desk has issued its codes" in page.text
        assert f"Tokens: {SERIAL}" in page.text


async def test_input_kept_over_sign_in_is_announced(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    desk.node.clock.pass_s(16 * 60)
    page = await browser.send("Save")
    assert "Your input is kept. Sign in to continue." in page.text
    form = page
    page = await browser.send(
        "Sign in", action="/sign-in", administrator=ROOT, password=ROOTS
    )
    assert "This form was not sent before you signed in." in page.text
    browser.page = form
    assert "Your input is kept" not in (await browser.open("/sign-in")).text


async def test_a_form_that_is_not_kept_over_sign_in_says_so(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open("/new/administrator")
    desk.node.clock.pass_s(16 * 60)
    page = await browser.send("Create administrator", name="hana", password=PASSWORD)
    assert (
        "The form was not sent: fill it in again after you have signed in" in page.text
    )
    assert "hana" not in page.response.text
    page = await browser.send(
        "Sign in", action="/sign-in", administrator=ROOT, password=ROOTS
    )
    assert page.path == "/new/administrator"
    assert "hana" not in page.response.text


async def test_a_form_that_a_temporary_password_drops_is_not_called_sent(
    desk: Desk,
) -> None:
    """Kept over sign-in, it would else be gone without a word."""
    node = desk.node
    browser = await with_role(desk, Role.HELP_DESK)
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    node.clock.pass_s(31 * 60)
    await browser.send("Save")
    await node.login()
    await node.administrators.change_password(
        node.admin("AdministratorService/ChangePassword"),
        name=Role.HELP_DESK.value,
        old_password="",
        new_password=PASSWORD,
    )
    await browser.send(
        "Sign in",
        action="/sign-in",
        administrator=Role.HELP_DESK.value,
        password=PASSWORD,
    )
    page = await browser.send("Continue", action=PAGE)
    assert page.path == "/account/password"
    assert "The form was not sent. Do this first, then fill" in page.text
    page = await browser.open("/users")
    assert page.path == "/account/password"
    assert "The form was not sent." not in page.text


async def test_the_result_of_an_import_comes_right_after_the_name(desk: Desk) -> None:
    """Empty columns must not push it out of sight."""
    browser = await desk.administrator()
    await browser.open("/import/users")
    page = await browser.send("Show the rows", content="username\nbob\n")
    heading = page.text.index("User name Result ")
    assert "bob Can be imported" in page.text[heading:]


async def test_the_address_in_a_certificate_is_a_detail_for_super_administrators(
    desk: Desk,
) -> None:
    """It says no more than the name of the agent, in words of the machinery."""
    root = await desk.administrator()
    await root.open("/new/agent")
    await root.send(
        "Register agent", name="portal", identity="sparecode://agent/portal"
    )
    page = await root.open("/agents")
    assert "portal its certificate" in page.text
    assert "sparecode://agent/" not in page.text
    page = await root.open("/agents/portal")
    assert "Name in the certificate sparecode://agent/portal" in page.text
    page = await (await with_role(desk, Role.AUDITOR)).open("/agents/portal")
    assert "its certificate" in page.text
    assert "sparecode://agent/" not in page.text


async def test_a_radius_client_is_called_by_its_name(desk: Desk) -> None:
    """By the codes used at it and in the audit log, which is filtered by it."""
    node, gate = desk.node, radius_identity(NameKey(GATE))
    issued = await node.issue()
    (secret_id,) = node.primary_db.execute(
        "SELECT secret_id FROM radius_secrets WHERE identity = ?", (gate,)
    ).fetchone()
    caller = AgentCaller(identity=gate, radius_secret_id=secret_id, radius_signed=True)
    answer = await node.authentication.authenticate(
        dataclasses.replace(node.agent(), caller=caller),
        username="alice",
        passcode=PIN + issued.codes[0].code,
        client_address="",
        resource="",
    )
    assert answer.decision is Decision.ACCEPTED
    page = await (await with_role(desk, Role.HELP_DESK)).open(PAGE)
    assert f"at {GATE} , through n1" in page.text
    assert gate not in page.text
    browser = await desk.administrator()
    page = await browser.open("/audit")
    assert f"Register radius client {GATE}" in page.text
    page = await browser.open(f"/audit?actor=agent+{GATE}")
    assert f"agent {GATE}" in page.text
    assert "Authenticate" in page.text
    assert gate not in page.text


async def test_codes_taken_to_another_console_are_not_called_sent(desk: Desk) -> None:
    """Sending them there only shows them; they are saved by *Save*."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    desk.node.clock.pass_s(16 * 60)
    await browser.send("n2", action=PAGE)
    page = await browser.send(
        "Sign in", action="/sign-in", administrator=ROOT, password=ROOTS
    )
    assert f"Show the codes for token {SERIAL}, to be saved" in page.text
