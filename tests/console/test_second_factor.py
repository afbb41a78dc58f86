# SPDX-License-Identifier: Apache-2.0
"""A second factor is set up by its administrator and removed by another (P1, P3)."""

import base64
import re

import pytest

from sparecode_node.domain.administrators import SECOND_FACTOR, Role
from sparecode_node.domain.ids import Moment
from sparecode_node.domain.tokencodes import step_at, tokencode_at
from tests.console.desk import Desk
from tests.console.paper import Page, Paper
from tests.console.test_pages import OWN, with_role
from tests.services.one_node import PASSWORD, ROOT

pytestmark = pytest.mark.asyncio

PAGE = "/account/second-factor"


def code_of(desk: Desk, page: Page, *, step: int = 0) -> str:
    """Return the code that an app with the secret on the page shows."""
    typed = page.form(PAGE).value("enrolled_secret")
    assert " ".join(re.findall("....", typed)) in page.text
    seed = base64.b32decode(typed)
    now = step_at(desk.node.clock.now, SECOND_FACTOR)
    return tokencode_at(seed, SECOND_FACTOR, Moment(now + step))


async def enrolled(desk: Desk, browser: Paper) -> None:
    """Set up a second factor."""
    await browser.open(PAGE)
    page = await browser.send("Set up")
    page = await browser.send("Confirm", second_factor=code_of(desk, page))
    assert page.path == "/account", page.text


async def test_a_second_factor_is_set_up_and_asked_for(desk: Desk) -> None:
    """The secret is a picture and a text; a wrong code keeps both and changes nothing."""
    browser = await desk.administrator()
    other = await desk.administrator()
    page = await browser.open("/account")
    assert "Not set" in page.text
    await browser.open(page.links["Set up a second factor"])
    page = await browser.send("Set up")
    assert page.status == 200
    assert "<svg" in page.response.text
    drawn = page.form(PAGE).value("enrolled_secret")
    page = await browser.send("Confirm", second_factor="000000")
    assert page.status == 409
    assert 'id="second_factor-problem"' in page.response.text
    assert "check the clock of the device" in page.text
    assert page.form(PAGE).value("enrolled_secret") == drawn
    assert "Not set" in (await other.open("/account")).text
    browser.page = page
    page = await browser.send("Confirm", second_factor=code_of(desk, page))
    assert page.path == "/account"
    assert "sign-in also asks for a code from your app" in page.text
    assert drawn not in page.response.text
    # Sessions opened with the password alone have ended.
    assert (await other.open("/tokens")).path == "/sign-in"
    page = await other.send("Sign in", administrator=ROOT, password=PASSWORD)
    assert "Enter the code that your app shows now" in page.text


async def test_an_administrator_cannot_remove_the_own_second_factor(desk: Desk) -> None:
    """Not offered on either page, and a forged request is refused."""
    browser = await desk.administrator()
    await enrolled(desk, browser)
    page = await browser.open(PAGE)
    assert "ask another super administrator to remove it" in page.text
    assert not {"Set up", "Confirm"} & page.buttons
    page = await browser.open(f"/administrators/{ROOT}")
    assert "Remove second factor" not in page.buttons
    token = page.form("/account/sign-out").value("form_token")
    forged = {"action": "remove-second-factor", "form_token": token}
    answer = await browser.client.post(f"/administrators/{ROOT}", data=forged)
    assert answer.status_code == 409
    assert "You cannot do this for yourself" in answer.text


async def test_a_second_factor_is_removed_after_approval(
    desk: Desk,
) -> None:
    """(P3) It waits; after the approval, the password alone is enough again."""
    heidi = await with_role(desk, Role.HELP_DESK)
    await enrolled(desk, heidi)
    root = await desk.administrator()
    node = desk.node
    await with_role(desk, Role.AUDITOR)
    await node.administrators.update(
        node.admin("AdministratorService/UpdateAdministrator"),
        name="auditor",
        role=Role.SUPER_ADMIN,
    )
    second = await desk.browser()
    await second.sign_in("auditor", OWN)
    page = await root.open("/administrators/help_desk")
    page = await root.send("Remove second factor")
    assert "Not done yet: another super administrator must approve" in page.text
    assert "Remove second factor" in page.buttons
    await second.open("/approvals")
    page = await second.send("Approve")
    assert "Approved" in page.text
    assert (await heidi.open("/tokens")).path == "/sign-in"
    page = await heidi.send("Sign in", administrator="help_desk", password=OWN)
    assert page.path == "/tokens"


async def test_an_old_secret_cannot_be_confirmed(desk: Desk) -> None:
    browser = await with_role(desk, Role.HELP_DESK)  # Its session lasts longer.
    await browser.open(PAGE)
    page = await browser.send("Set up")
    desk.node.clock.pass_s(16 * 60)
    page = await browser.send("Confirm", second_factor=code_of(desk, page))
    assert "needs your password" in page.text
    page = await browser.send("Confirm", confirm_password=OWN)
    page = await browser.send("Confirm", second_factor=code_of(desk, page))
    assert page.status == 422
    assert "shown too long ago" in page.text
    assert "Set up" in page.buttons


async def test_a_forged_secret_or_draft_is_refused(desk: Desk) -> None:
    """A made-up secret with another administrator's draft, or with none, sets nothing."""
    heidi = await with_role(desk, Role.HELP_DESK)
    await heidi.open(PAGE)
    draft = (await heidi.send("Set up")).form(PAGE).value("enrolled_draft")
    browser = await desk.administrator()
    await browser.open(PAGE)
    page = await browser.send("Set up")
    for planted in (draft, "", "no base64", "AAAA"):
        browser.page = page
        answer = await browser.send(
            "Confirm", second_factor=code_of(desk, page), enrolled_draft=planted
        )
        assert answer.status == 422, planted
    browser.page = page
    answer = await browser.send(
        "Confirm", second_factor="000000", enrolled_secret='"><script>'
    )
    assert "<script>&" not in answer.response.text
    assert "Not set" in (await browser.open("/account")).text
