# SPDX-License-Identifier: Apache-2.0
"""Pages say what stands in a user's way, and why the latest attempts were refused."""

import pytest

from sparecode_node.domain.administrators import Role
from tests.console.desk import Desk
from tests.console.test_pages import with_role
from tests.services.one_node import PIN, SERIAL, VPN

pytestmark = pytest.mark.asyncio

WRONG = PIN + "AAAA-BBBB"
TOKEN = f"/tokens/{SERIAL}"
USER = "/users/alice"


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
