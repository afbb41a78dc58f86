# SPDX-License-Identifier: Apache-2.0
"""Codes for several chosen users at once (I12)."""

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.replication.errors import OutcomeUnknownError
from sparecode_node.services.emergency.bulk_issue import BulkIssue
from tests.console.desk import Desk
from tests.console.paper import Page, Paper
from tests.console.test_emergency_access import in_days
from tests.console.test_pages import OWN, create_administrator
from tests.services.one_node import PASSWORD, PIN

pytestmark = pytest.mark.asyncio


async def chosen(browser: Paper, *names: str) -> Page:
    """Choose users in the list, and press *Issue codes*."""
    page = await browser.open("/users")
    form = page.form("/selection")
    fields = [*form.fields, *(("user", name) for name in names)]
    answer = await browser.client.post(
        "/issue-codes",
        content="&".join(f"{name}={value}" for name, value in fields),
        headers={"content-type": "application/x-www-form-urlencoded"},
        follow_redirects=True,
    )
    browser.page = Page(answer)
    return browser.page


async def second_super(desk: Desk) -> Paper:
    """Return the browser of another super administrator."""
    await create_administrator(desk, "dora", Role.SUPER_ADMIN)
    browser = await desk.browser()
    await browser.sign_in("dora", PASSWORD)
    await browser.send(
        "Change password",
        old_password=PASSWORD,
        new_password=OWN,
        new_password_again=OWN,
    )
    await browser.sign_in("dora", OWN)
    return browser


async def test_codes_are_issued_for_the_chosen_users_and_work(desk: Desk) -> None:
    for name in ("bob", "carol"):
        await desk.node.add_user(name, serial=f"7{len(name)}")
    browser = await desk.administrator()
    page = await chosen(browser, "alice", "bob", "carol")
    page = await browser.send(
        "Issue codes",
        action="/issue-codes",
        untick=(),
        count="2",
        **in_days(3),
    )
    assert "Codes issued: 3 of 3 tokens" in page.text
    assert page.text.count("Active Valid until: ") == 3
    codes = page.text.split("Emergency access tokencodes")
    assert len(codes) == 4  # Three sheets.
    for name, sheet in zip(("alice", "bob", "carol"), codes[1:], strict=True):
        assert name in sheet
        words = sheet.split()
        first = words[words.index("1") + 1]
        assert await desk.node.accepts(PIN + first, username=name)
    shown = page.response.text
    assert shown.count('class="sheet"') == 3


async def test_the_same_form_issues_no_set_twice(desk: Desk) -> None:
    """(I9, Q1) Codes are shown once; the answer to the second says so."""
    browser = await desk.administrator()
    form = await chosen(browser, "alice")
    first = await browser.send("Issue codes", action="/issue-codes", **in_days(3))
    assert "Codes issued: 1 of 1 token" in first.text
    browser.page = form
    again = await browser.send("Issue codes", action="/issue-codes", **in_days(3))
    assert "The codes cannot be shown" in again.text
    (sets,) = desk.node.primary_db.execute("SELECT count(*) FROM code_sets").fetchone()
    assert sets == 1


async def test_one_refused_token_stops_no_other(desk: Desk) -> None:
    await desk.node.add_user("bob", serial="71")
    await desk.node.tokens.disable(
        desk.node.admin("TokenService/DisableToken"), serial="71"
    )
    browser = await desk.administrator()
    await chosen(browser, "alice", "bob")
    page = await browser.send("Issue codes", action="/issue-codes", **in_days(3))
    assert "Codes issued: 1 of 2 tokens" in page.text
    assert "disabled" in page.text


async def test_a_wrong_field_is_named_and_the_input_is_kept(desk: Desk) -> None:
    browser = await desk.administrator()
    await chosen(browser, "alice")
    past = in_days(3) | {"expires_date": "2020-02-29"}
    page = await browser.send("Issue codes", action="/issue-codes", **past)
    form = page.form("/issue-codes")
    assert form.value("expires_date") == "2020-02-29"
    page = await browser.send("Issue codes", action="/issue-codes", count="51")
    assert page.status == 422
    assert page.form("/issue-codes").value("count") == "51"
    page = await browser.send("Issue codes", action="/issue-codes", count="0")
    assert page.status == 422
    (sets,) = desk.node.primary_db.execute("SELECT count(*) FROM code_sets").fetchone()
    assert sets == 0


async def test_codes_of_decided_tokens_stay_when_the_node_loses_the_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.node.add_user("bob", serial="71")
    issue_row = BulkIssue._issue_row
    rows = []

    async def fail_second(self, *given):
        rows.append(given)
        if len(rows) == 2:
            raise OutcomeUnknownError
        return await issue_row(self, *given)

    monkeypatch.setattr(BulkIssue, "_issue_row", fail_second)
    browser = await desk.administrator()
    await chosen(browser, "alice", "bob")
    page = await browser.send("Issue codes", action="/issue-codes", **in_days(3))
    assert "Codes issued: 1 of 2 tokens" in page.text
    assert "Not decided yet" in page.text
    page = await browser.send("Go on", action="/issue-codes")
    assert "Codes issued: 2 of 2 tokens" in page.text
    assert "The codes cannot be shown" in page.text  # Of alice: the other tab has them.
    assert page.response.text.count('class="sheet"') == 1


async def test_only_roles_that_issue_are_offered_it(desk: Desk) -> None:
    browser = await desk.administrator()
    for role, offered in ((Role.HELP_DESK, True), (Role.AUDITOR, False)):
        for db in (desk.node.primary_db, desk.node.local_db):
            db.execute("UPDATE administrators SET role = ?", (role.value,))
        page = await browser.open("/users")
        assert ("Issue codes" in page.buttons) is offered


async def test_an_approval_is_awaited_with_the_form(desk: Desk) -> None:
    """(P3, I10) Root has set the PIN of Alice's token: Dora must approve."""
    dora = await second_super(desk)
    root = await desk.administrator()
    await chosen(root, "alice")
    page = await root.send("Issue codes", action="/issue-codes", **in_days(3))
    assert page.status == 409
    assert "send the form again after the approval" in page.text
    await dora.open("/approvals")
    assert "Approved" in (await dora.send("Approve")).text
    root.page = page
    page = await root.send("Issue codes", action="/issue-codes", **in_days(3))
    assert "Codes issued: 1 of 1 token" in page.text
