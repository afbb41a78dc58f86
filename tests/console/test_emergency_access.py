# SPDX-License-Identifier: Apache-2.0
"""Manage Emergency Access Tokencodes, without a script."""

import datetime as dt

import pytest

from sparecode_node.console.kit import sheet_pdf
from sparecode_node.domain.administrators import Role
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.domain.policy import DAY_MS
from sparecode_node.replication.errors import (
    NoQuorumError,
    OutcomeUnknownError,
    OverloadedError,
)
from tests.console.desk import Desk
from tests.console.paper import Page
from tests.console.test_pages import with_role
from tests.services.one_node import PIN, SERIAL
from tests.services.two_replicas import NOW_MS

pytestmark = pytest.mark.asyncio

PAGE = f"/tokens/{SERIAL}/emergency-access"
STEPS = (
    "Online Emergency Access",
    "Type of Emergency Access Tokencode(s)",
    "Set of One-Time Tokencodes",
    "Temporary Fixed Tokencode",
    "Number of tokencodes",
    "Generate Codes",
    "Emergency Access Tokencode Lifetime",
    "No expiration",
    "Expires on",
    "If Token Becomes Available",
    "Deny authentication with token",
    (
        "Allow authentication with token at any time and disable online emergency "
        "tokencodes"
    ),
    (
        "Allow authentication with token only after the emergency tokencode lifetime has "
        "expired and disable online emergency tokencodes"
    ),
)


def in_days(days: int) -> dict[str, str]:
    """Return the fields of the expiration."""
    at = dt.datetime.fromtimestamp(NOW_MS / 1000, dt.UTC) + dt.timedelta(days=days)
    return {
        "expires_date": f"{at:%Y-%m-%d}",
        "expires_time": f"{at:%H:%M}",
        "expires_zone": "UTC",
    }


async def test_the_page_has_the_steps_of_the_procedure_in_their_order(
    desk: Desk,
) -> None:
    browser = await desk.administrator()
    text = (await browser.open(PAGE)).text
    for step in (*STEPS, "Save"):
        assert step in text
        text = text.partition(step)[2]


async def test_generated_codes_work_after_save_and_not_before(desk: Desk) -> None:
    """(I3) Not active until saved; then PIN and code sign Alice in."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Generate Codes", count="3")
    assert page.status == 200
    assert len(set(page.codes)) == 3
    assert "Not active until saved" in page.text
    assert not await desk.node.accepts(PIN + page.codes[0])
    desk.node.clock.pass_s(1)  # A wrong code is followed by a wait (L1).

    page = await browser.send(
        "Save", tick={"recovery": "allow_and_disable"}, **in_days(3)
    )
    assert page.status == 200, page.text
    assert "Every node that answers knows these codes." in page.text
    assert "Committed by a quorum, through node n1" in page.text
    assert "through node n1" in page.text
    assert "2023-11-17 22:13 UTC in 3 days" in page.text
    assert await desk.node.accepts(PIN + page.codes[0])
    assert not await desk.node.accepts(PIN + page.codes[0])


async def test_codes_are_on_no_other_page(desk: Desk) -> None:
    """(I9) Codes cannot be read back after their page is left."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Generate Codes", count="3")
    codes = page.codes
    await browser.send("Save", **in_days(3))
    for path in (PAGE, f"/tokens/{SERIAL}", "/tokens"):
        page = await browser.open(path)
        assert page.status == 200
        assert not any(code in page.response.text for code in codes)
    assert "3 live" in (await browser.open(PAGE)).text


def without_password(page: Page) -> str:
    """Return the text; each page has its own password for the PDF."""
    text, number = sheet_pdf.PASSWORD.subn("password", page.text)
    assert number == 1
    return text


async def test_a_save_sent_twice_is_applied_once(desk: Desk) -> None:
    """(Q1) The form that is sent again gets the same answer."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    form = await browser.send("Generate Codes", count="2")
    first = await browser.send("Save", **in_days(3))
    browser.page = form
    second = await browser.send("Save", **in_days(3))
    assert second.status == 200
    assert without_password(second) == without_password(first)


async def test_codes_that_could_not_be_saved_are_not_shown(desk: Desk) -> None:
    """With a date in the past nothing is generated: it would be read out in vain."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Generate Codes", count="2", **in_days(-1))
    assert page.codes == []
    assert "This time is in the past" in page.text
    page = await browser.send("Generate Codes", count="2", **in_days(1))
    assert len(page.codes) == 2


async def test_the_page_of_a_user_leads_to_emergency_access(desk: Desk) -> None:
    browser = await desk.administrator()
    page = await browser.open("/users/alice")
    assert f'class="button primary" href="{PAGE}"' in page.response.text
    await desk.node.add_user("bob", serial="two")
    await desk.node.tokens.disable(
        desk.node.admin("TokenService/DisableToken"), serial="two"
    )
    page = await browser.open("/users/bob")
    assert 'class="button primary" href=' not in page.response.text


async def test_a_wrong_field_is_named_and_the_input_is_kept(
    desk: Desk,
) -> None:
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Generate Codes", count="2")
    codes = page.codes
    page = await browser.send(
        "Save", tick={"recovery": "allow_after_expiry"}, **in_days(-1)
    )
    assert page.status == 409
    assert "This time is in the past" in page.text
    form = page.form(PAGE)
    assert page.codes == codes
    assert form.value("expires_date") == in_days(-1)["expires_date"]
    assert form.value("recovery") == "allow_after_expiry"
    assert (await browser.send("Save", **in_days(2))).status == 200


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ({"expires_date": "2023-13-45"}, "is not a date and time"),
        ({"expires_date": ""}, "The date is missing"),
        ({"expires_time": ""}, "The time of day is missing"),
        ({"expires_zone": "Mars/Olympus"}, "is not a time zone"),
        (
            {
                "expires_date": "2024-03-31",
                "expires_time": "02:30",
                "expires_zone": "Europe/Berlin",
            },
            "clocks skip it",
        ),
        ({"count": "3"}, "You have generated 2 codes"),
        ({"draft": "AAAA"}, "draft"),
        ({"draft": ""}, "Generate the codes first"),
    ],
)
async def test_a_save_is_refused_in_words(
    desk: Desk, typed: dict[str, str], words: str
) -> None:
    browser = await desk.administrator()
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    page = await browser.send("Save", **{**in_days(3), **typed})
    assert page.status in (409, 422)
    assert words in page.text
    assert not (
        await desk.node.emergency.get(
            desk.node.admin("EmergencyAccessService/GetEmergencyAccess"), SERIAL
        )
    ).value.live_codes


@pytest.mark.parametrize("count", ["0", "51", "", "ten", "-1", "9" * 40])
async def test_a_number_out_of_bounds_gives_no_codes(desk: Desk, count: str) -> None:
    """(I4) 1 to 50."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Generate Codes", count=count)
    assert page.status == 422
    assert not page.codes
    assert page.form(PAGE).value("count") == count


async def test_a_local_time_is_converted_from_its_zone(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    page = await browser.send(
        "Save",
        expires_date="2024-07-01",
        expires_time="12:00",
        expires_zone="Europe/Berlin",
    )
    assert "2024-07-01 10:00 UTC" in page.text


async def test_a_fixed_tokencode_is_shown_when_it_is_saved(desk: Desk) -> None:
    """(I11) One code, accepted until its end."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Save", tick={"kind": "fixed", "lifetime": "never"})
    assert page.status == 422
    assert "must end" in page.text
    page = await browser.send(
        "Save", tick={"kind": "fixed", "lifetime": "until"}, **in_days(2)
    )
    (code,) = page.codes
    assert await desk.node.accepts(PIN + code)
    assert await desk.node.accepts(PIN + code)


async def test_a_mislaid_token_works_again_when_the_lifetime_has_ended(
    desk: Desk,
) -> None:
    """(R) The third option: refused while the codes are live, accepted after their end."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    page = await browser.send(
        "Save", tick={"recovery": "allow_after_expiry"}, **in_days(1)
    )
    first, second = page.codes
    assert await desk.node.accepts(PIN + first)
    assert not await desk.node.accepts(PIN + desk.node.tokencode())
    desk.node.clock.pass_s(DAY_MS / 1000)
    assert not await desk.node.accepts(PIN + second)
    assert await desk.node.accepts(PIN + desk.node.tokencode())


async def test_turning_it_off_voids_the_codes(desk: Desk) -> None:
    """(R2) The token stays lost unless the same form reinstates it."""
    issued = await desk.node.issue()
    browser = await desk.administrator()
    page = await browser.open(PAGE)
    assert "3 live codes of this token will be void" in page.text
    page = await browser.send("Save", untick=("online",), tick={"reinstate": "on"})
    assert "Emergency access is off" in page.text
    assert "Every node that answers refuses the codes now." in page.text
    assert not await desk.node.accepts(PIN + issued.codes[0].code)
    assert await desk.node.accepts(PIN + desk.node.tokencode())


async def test_codes_that_ended_with_their_token_are_voided_permanently(
    desk: Desk,
) -> None:
    """(I7, R2) The page says so, and a later expiry date of the token revives none."""
    node = desk.node
    issued = await node.issue()

    async def end_token(at_ms: int | None) -> None:
        await node.tokens.update(
            node.admin("TokenService/UpdateToken"),
            serial=SERIAL,
            expires_at_ms=at_ms,
            never_expires=at_ms is None,
        )

    await end_token(node.clock.now + 60_000)
    node.clock.pass_s(61)
    browser = await desk.administrator()
    page = await browser.open(PAGE)
    assert (
        "0 live codes of this token will be void at once, and the codes that"
        in page.text
    )
    await browser.send("Save", untick=("online",), tick={"reinstate": "on"})
    await end_token(None)
    assert not await node.accepts(PIN + issued.codes[0].code)
    await end_token(node.clock.now + 60_000)
    node.clock.pass_s(61)
    page = await browser.open(PAGE)
    assert "The token has expired, and its codes ended with it" in page.text


@pytest.mark.parametrize(
    ("role", "advice"),
    [
        (Role.SUPER_ADMIN, "Replace it with another one."),
        (Role.HELP_DESK, "your role may not, so ask a super administrator."),
    ],
)
async def test_the_form_of_an_expired_token_warns_before_codes_are_issued(
    desk: Desk, role: Role, advice: str
) -> None:
    """(I7) Its codes would have ended with it; *Generate* gives none, and says why."""
    node = desk.node
    await node.tokens.update(
        node.admin("TokenService/UpdateToken"),
        serial=SERIAL,
        expires_at_ms=node.clock.now + 60_000,
        never_expires=False,
    )
    node.clock.pass_s(61)
    browser = await with_role(desk, role)
    page = await browser.open(PAGE)
    assert f"Token {SERIAL} expired on 2023-11-14 " in page.text
    page = await browser.send("Generate Codes", count="3")
    assert page.codes == []
    assert "The token has expired. " in page.text
    assert advice in page.text


async def test_unused_codes_are_kept_only_on_request(desk: Desk) -> None:
    """(I8) Re-issue voids, unless kept."""
    first = await desk.node.issue()
    browser = await desk.administrator()
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    page = await browser.send("Save", tick={"keep": "on"}, **in_days(3))
    assert page.status == 200
    assert await desk.node.accepts(PIN + first.codes[0].code)
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    page = await browser.send("Save", **in_days(3))
    assert "4 earlier codes are void now" in page.text
    assert not await desk.node.accepts(PIN + first.codes[1].code)


async def test_two_administrators_at_once_make_one_set(desk: Desk) -> None:
    """(I3) The second one must generate again, because the token has changed."""
    one, two = await desk.administrator(), await desk.administrator()
    for browser in (one, two):
        await browser.open(PAGE)
        await browser.send("Generate Codes", count="2")
    assert (await one.send("Save", **in_days(3))).status == 200
    page = await two.send("Save", **in_days(3))
    assert page.status == 409
    assert "Generate codes again" in page.text
    await two.send("Generate Codes")
    assert (await two.send("Save")).status == 200


async def test_a_second_tab_reads_who_has_saved_codes_meanwhile(desk: Desk) -> None:
    """The administrator in another tab, or another one: by name, and when."""
    tabs = [await desk.administrator() for _ in range(3)]
    other = await with_role(desk, Role.HELP_DESK)
    for browser in (*tabs, other):
        await browser.open(PAGE)
        await browser.send("Generate Codes", count="2")
    await tabs[0].send("Save", **in_days(3))
    desk.node.clock.pass_s(120)
    page = await tabs[1].send("Save", **in_days(3))
    assert "Nothing was saved. These codes cannot be saved: you have saved" in page.text
    assert "already, 2 minutes ago, perhaps in another tab. Generate" in page.text
    assert "Correct" not in page.text
    page = await other.send("Save", **in_days(3))
    assert "root has saved others for this token, 2 minutes ago. Generate" in page.text
    await other.send("Generate Codes", count="2")
    assert (await other.send("Save", **in_days(3))).status == 200
    page = await tabs[2].send("Save", **in_days(3))
    assert (
        f"{Role.HELP_DESK.value} has saved others for this token, just now."
        in page.text
    )


async def test_sending_the_form_again_returns_an_unknown_outcome(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(A7, Q1) The answer to a commit is lost: the same form returns its outcome."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    replicator, propose = desk.node.replicator, desk.node.replicator.propose

    async def lose_the_answer(proposal: object, *, timeout_s: float) -> object:
        monkeypatch.setattr(replicator, "propose", propose)
        await propose(proposal, timeout_s=timeout_s)  # type: ignore[arg-type]
        raise OutcomeUnknownError("lost")

    monkeypatch.setattr(replicator, "propose", lose_the_answer)
    page = await browser.send("Save", **in_days(3))
    assert page.status == 503
    assert "it is never applied twice" in page.text
    page = await browser.send("Save")
    assert page.status == 200
    assert await desk.node.accepts(PIN + page.codes[0])


async def test_without_a_quorum_pages_are_stale_and_changes_refused(
    desk: Desk,
) -> None:
    """(P2, A7) Pages show stale data with a banner; changes are refused in words."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    desk.node.replicator.down = NoQuorumError("down")
    page = await browser.send("Save", **in_days(3))
    assert page.status == 503
    assert "nothing was changed" in page.text
    assert "No quorum. Too few nodes are in contact" in page.text
    assert "https://n2.test" in page.response.text
    assert len(page.codes) == 2
    page = await browser.open("/tokens")
    assert page.status == 200
    assert "later changes may be missing" in page.text
    assert SERIAL in page.text
    desk.node.replicator.down = None
    page = await browser.open(PAGE)
    assert "No quorum" not in page.text


async def test_the_download_has_the_codes_of_the_page(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    page = await browser.send("Save", **in_days(3))
    codes = page.codes
    file = await browser.send("Download", action=f"{PAGE}/sheet.txt")
    assert file.response.headers["content-type"].startswith("text/plain")
    assert "attachment" in file.response.headers["content-disposition"]
    assert file.response.headers["cache-control"] == "no-store"
    lines = file.response.text.splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("[ ]")] == codes
    assert "User:                alice" in lines
    assert "Valid until:         2023-11-17 22:13 UTC" in lines
    assert "Sign in with:        PIN followed by the code" in lines
    assert lines[-1] == "Issued 2023-11-14 22:13 UTC by root."
    browser.page = page
    file = await browser.send(
        "Download", action=f"{PAGE}/sheet.txt", zone="Europe/Berlin"
    )
    ends = "2023-11-17 23:13 Europe/Berlin (2023-11-17 22:13 UTC)"
    assert f"Valid until:         {ends}" in file.response.text
    browser.page = page
    file = await browser.send("Download", action=f"{PAGE}/sheet.txt", zone="../../x")
    assert "2023-11-17 22:13 UTC\r\n" in file.response.text


@pytest.mark.parametrize(
    ("role", "advice"),
    [
        (Role.SUPER_ADMIN, "Enable it first."),
        (
            Role.HELP_DESK,
            "Enable it first: your role may not, so ask a super administrator.",
        ),
    ],
)
async def test_advice_asks_only_for_what_the_role_may_do(
    desk: Desk, role: Role, advice: str
) -> None:
    await desk.node.tokens.disable(
        desk.node.admin("TokenService/DisableToken"), serial=SERIAL
    )
    browser = await with_role(desk, role)
    await browser.open(PAGE)
    page = await browser.send("Generate Codes", count="2")
    assert f"The token is disabled. {advice}" in page.text


async def test_used_codes_show_time_and_place(desk: Desk) -> None:
    issued = await desk.node.issue()
    assert await desk.node.accepts(PIN + issued.codes[1].code)
    browser = await desk.administrator()
    text = (await browser.open(PAGE)).text
    assert "2 live 1 used" in text
    assert "Code 2 used 2023-11-14 22:13 UTC at vpn , through n1" in text


async def test_a_commit_is_reported_even_if_nothing_can_be_read_afterwards(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(I9, A7) The codes are live, so the page must not say that nothing was changed."""
    browser = await desk.administrator()
    for kind in ("set", "fixed"):
        await browser.open(PAGE)
        if kind == "set":
            await browser.send("Generate Codes", count="2")
        save = desk.node.emergency.save, desk.node.emergency.issue_fixed

        async def busy(*_: object, **__: object) -> None:
            raise OverloadedError("too many reads at once")

        with monkeypatch.context() as patch:
            for name, method in zip(("save", "issue_fixed"), save, strict=True):

                async def then_busy(
                    *args: object, method: object = method, **kwargs: object
                ) -> object:
                    done = await method(*args, **kwargs)  # type: ignore[operator]
                    patch.setattr(desk.node.tokens, "get", busy)
                    return done

                patch.setattr(desk.node.emergency, name, then_busy)
            page = await browser.send("Save", tick={"kind": kind}, **in_days(3))
        assert page.status == 200, page.text
        assert "Committed by a quorum, through node n1" in page.text
        assert await desk.node.accepts(PIN + page.codes[0])


async def test_obstacles_to_issuing_are_shown_in_advance(
    desk: Desk,
) -> None:
    """(I1) With a link to the remedy, if the role may use it."""
    browser, node = await desk.administrator(), desk.node
    assert "note obstacle" not in (await browser.open(PAGE)).response.text
    await node.tokens.clear_pin(node.admin("TokenService/ClearPin"), serial=SERIAL)
    page = await browser.open(PAGE)
    assert "needs a PIN and has none. Set PIN" in page.text
    await node.tokens.disable(node.admin("TokenService/DisableToken"), serial=SERIAL)
    page = await browser.open(PAGE)
    assert page.links["Enable"] == f"/tokens/{SERIAL}/enable"
    page = await browser.send("Generate Codes")
    assert page.status == 409
    assert not page.codes
    auditor = await with_role(desk, Role.AUDITOR)
    page = await auditor.open(PAGE)
    assert f"Token {SERIAL} is disabled, and so are its codes." in page.text
    assert "Ask a super administrator to enable the token." in page.text
    assert "Enable" not in page.links
    await node.enroll("777")
    page = await browser.open("/tokens/777/emergency-access")
    assert "is not assigned to a user. Assign" in page.text


async def test_no_expiration_is_not_offered_if_policy_requires_an_end(
    desk: Desk,
) -> None:
    """(I7) A forged choice is refused."""
    node = desk.node
    await node.policies.update(
        node.admin("PolicyService/UpdatePolicy"),
        version=1,
        values={"lifetime_ms_max": 14 * DAY_MS},
    )
    browser = await desk.administrator()
    page = await browser.open(PAGE)
    assert "The policy requires an end, at most 14 days from now" in page.text
    assert 'value="never" disabled' in page.response.text
    await browser.send("Generate Codes", count="2")
    page = await browser.send("Save", tick={"lifetime": "never"})
    assert page.status == 409
    assert 'id="expires-problem"' in page.response.text


async def test_codes_on_the_page_are_replaced_after_a_question(desk: Desk) -> None:
    """Generate pressed twice keeps the codes, which may be written down already."""
    browser = await desk.administrator()
    await browser.open(PAGE)
    codes = (await browser.send("Generate Codes", count="2")).codes
    page = await browser.send("Generate Codes", count="3")
    assert "The codes below are not saved." in page.text
    assert page.codes == codes
    page = await browser.send("Replace the codes")
    assert len(page.codes) == 3
    assert not set(codes) & set(page.codes)
    await browser.send("Generate Codes", count="3")
    page = await browser.send("Save", **in_days(3))
    assert page.status == 200
    assert await desk.node.accepts(PIN + page.codes[0])


async def test_codes_that_can_no_longer_be_saved_are_replaced_at_once(
    desk: Desk,
) -> None:
    browser = await desk.administrator()
    await browser.open(PAGE)
    await browser.send("Generate Codes", count="2")
    now_ms = str(desk.node.clock.now)
    page = await browser.send("Generate Codes", count="3", draft_ends_at_ms=now_ms)
    assert len(page.codes) == 3


@pytest.mark.parametrize("reinstate", [True, False])
async def test_turning_it_off_asks_before_the_user_is_left_without_a_token(
    desk: Desk, reinstate: bool
) -> None:
    """(R2) The form says what follows, and offers to reinstate the token."""
    await desk.node.issue(recovery=RecoveryPolicy.DENY)
    browser = await desk.administrator()
    page = await browser.open(PAGE)
    assert "alice then has no way to sign in." in page.text
    page = await browser.send("Save", untick=("online",))
    assert "Nothing is changed yet." in page.text
    access = await desk.node.emergency.get(
        desk.node.admin("EmergencyAccessService/GetEmergencyAccess"), SERIAL
    )
    assert access.value.live_codes == 3
    page = await browser.send(
        "Turn off and reinstate the token" if reinstate else "Turn off all the same"
    )
    assert "Emergency access is off" in page.text
    assert await desk.node.accepts(PIN + desk.node.tokencode()) is reinstate


async def test_turning_it_off_does_not_ask_if_another_token_works(desk: Desk) -> None:
    node = desk.node
    await node.enroll("2")
    await node.tokens.assign(
        node.admin("TokenService/AssignToken"), serial="2", username="alice"
    )
    await node.issue(recovery=RecoveryPolicy.DENY)
    browser = await desk.administrator()
    page = await browser.open(PAGE)
    assert "alice can then sign in only with token 2." in page.text
    page = await browser.send("Save", untick=("online",))
    assert "Emergency access is off" in page.text


async def test_the_form_begins_with_whom_it_is_for(desk: Desk) -> None:
    """On a phone the card with the user comes after the form."""
    browser = await desk.administrator()
    page = await browser.open(PAGE)
    assert f"alice token {SERIAL}" in page.text.partition("Online Emergency Access")[0]
