# SPDX-License-Identifier: Apache-2.0
"""Pages of a token's actions: their effects and refusals."""

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.queries.views import TokenView
from tests.console.desk import Desk
from tests.console.test_pages import with_role
from tests.services.one_node import PIN, SERIAL, seed_of

pytestmark = pytest.mark.asyncio

TOKEN = f"/tokens/{SERIAL}"


async def token_of(desk: Desk, serial: str = SERIAL) -> TokenView:
    """Return a token's present state."""
    return (
        await desk.node.tokens.get(desk.node.admin("TokenService/GetToken"), serial)
    ).value


async def test_a_token_is_disabled_and_enabled(desk: Desk) -> None:
    """(R3) The next page shows the node of the commit, once."""
    browser = await desk.administrator()
    await desk.node.issue()
    page = await browser.open(f"{TOKEN}/disable")
    assert "3 live emergency codes of this token will be void" in page.text
    page = await browser.send("Disable token")
    assert page.path == TOKEN
    assert "The token is disabled. Committed by a quorum, through node n1" in page.text
    assert "The token is disabled" not in (await browser.open(TOKEN)).text
    assert not (await token_of(desk)).enabled
    await browser.open(f"{TOKEN}/enable")
    await browser.send("Enable token")
    assert (await token_of(desk)).enabled


async def test_a_pin_is_set_and_cleared(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open(f"{TOKEN}/set-pin")
    page = await browser.send("Set PIN", pin="25803691", pin_again="25803692")
    assert page.status == 422
    assert "The two PINs differ" in page.text
    assert "25803691" not in page.response.text
    page = await browser.send("Set PIN", pin="12", pin_again="12")
    assert "A PIN is 4 to 8 digits" in page.text
    page = await browser.send("Set PIN", pin="25803691", pin_again="25803691")
    assert "The PIN is set" in page.text
    assert await desk.node.accepts("25803691" + desk.node.tokencode())
    await browser.open(f"{TOKEN}/clear-pin")
    await browser.send("Clear PIN")
    assert not (await token_of(desk)).pin_set


async def test_a_token_is_assigned_and_unassigned(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open(f"{TOKEN}/unassign")
    await browser.send("Unassign token")
    assert not (await token_of(desk)).username
    await browser.open(f"{TOKEN}/assign")
    page = await browser.send("Assign token", username="nobody")
    assert page.status == 404
    assert page.form(page.path).value("username") == "nobody"
    await browser.send("Assign token", username="Alice")
    assert (await token_of(desk)).username == "alice"


async def test_a_token_replaces_another(desk: Desk) -> None:
    browser = await desk.administrator()
    await desk.node.enroll("777")
    await browser.open(f"{TOKEN}/replace")
    page = await browser.send("Replace token")
    assert "Enter the serial number of the replacement" in page.text
    page = await browser.send("Replace token", replacement="778", untick=("keep_pin",))
    assert page.status == 404
    assert ("keep_pin", "on") in page.form(page.path).choices
    await browser.open(f"{TOKEN}/replace")
    page = await browser.send("Replace token", replacement="777")
    assert page.path == "/tokens/777"
    assert (await token_of(desk, "777")).username == "alice"
    assert await desk.node.accepts(PIN + desk.node.tokencode(seed=seed_of("777")))


async def test_a_token_is_resynchronized_by_two_tokencodes(desk: Desk) -> None:
    """(K1) Other than two consecutive tokencodes are refused beside the field."""
    browser = await desk.administrator()
    await browser.open(f"{TOKEN}/resynchronize")
    page = await browser.send(
        "Resynchronize token", first_tokencode="123456", second_tokencode="654321"
    )
    assert "not two consecutive tokencodes" in page.text
    assert page.form(page.path).value("first_tokencode") == "123456"
    page = await browser.send(
        "Resynchronize token",
        first_tokencode=desk.node.tokencode(step=20),
        second_tokencode=desk.node.tokencode(step=21),
    )
    assert "The token is resynchronized" in page.text


async def test_a_lost_token_is_reinstated(desk: Desk) -> None:
    """(R) Its codes become void, and it is accepted again."""
    await desk.node.issue()
    browser = await desk.administrator()
    await browser.open(f"{TOKEN}/reinstate")
    await browser.send("Token is back")
    token = await token_of(desk)
    assert not token.lost
    assert not token.live_codes


async def test_an_expiration_is_changed_and_a_token_deleted(desk: Desk) -> None:
    browser = await desk.administrator()
    await browser.open(f"{TOKEN}/expiration")
    page = await browser.send(
        "Save",
        tick={"lifetime": "until"},
        expires_date="2030-06-30",
        expires_time="14:00",
        expires_zone="Europe/Berlin",
    )
    assert "2030-06-30 12:00 UTC" in page.text
    await browser.open(f"{TOKEN}/expiration")
    page = await browser.send("Save", expires_date="2030-02-31")
    assert page.status == 422
    assert page.form(page.path).value("expires_date") == "2030-02-31"
    await browser.send("Save", tick={"lifetime": "never"})
    assert (await token_of(desk)).expires_at_ms is None
    await browser.open(f"{TOKEN}/delete")
    page = await browser.send("Delete token")
    assert page.path == "/tokens"
    assert SERIAL not in page.text


@pytest.mark.parametrize("path", ["/users/alice", f"/tokens/{SERIAL}"])
async def test_the_help_desk_takes_a_token_back_in_two_clicks(
    desk: Desk, path: str
) -> None:
    """(R2) A button on the user's and on the token's page, and one confirmation."""
    issued = await desk.node.issue(recovery=RecoveryPolicy.DENY)
    browser = await with_role(desk, Role.HELP_DESK)
    page = await browser.open(path)
    page = await browser.open(page.links["Token is back"])
    assert "has the token again. It is accepted from now on" in page.text
    assert "3 live emergency codes of this token will be void at once" in page.text
    page = await browser.send("Token is back")
    assert "The token is accepted again." in page.text
    assert "Token is back" not in page.links
    assert not await desk.node.accepts(PIN + issued.codes[0].code)
    desk.node.clock.pass_s(60)
    assert await desk.node.accepts(PIN + desk.node.tokencode())


@pytest.mark.parametrize("path", ["/users/alice", f"/tokens/{SERIAL}"])
async def test_the_help_desk_turns_codes_off_in_two_clicks(
    desk: Desk, path: str
) -> None:
    """(R2) The token stays as it was, and the page says so."""
    issued = await desk.node.issue(recovery=RecoveryPolicy.DENY)
    browser = await with_role(desk, Role.HELP_DESK)
    page = await browser.open(path)
    page = await browser.open(page.links["Turn off codes"])
    assert "A token that still counts as lost stays refused" in page.text
    page = await browser.send("Turn off codes")
    assert "The emergency codes are void." in page.text
    assert "Turn off codes" not in page.links
    assert page.links["Token is back"] == f"/tokens/{SERIAL}/reinstate"
    assert not await desk.node.accepts(PIN + issued.codes[0].code)
    page = await browser.open(f"/tokens/{SERIAL}/reinstate")
    page = await browser.send("Token is back")
    assert "The token is accepted again." in page.text, page.text


async def test_a_token_that_lacks_its_pin_is_not_called_in_use(desk: Desk) -> None:
    """No passcode of it is accepted, so it is not shown as if all were well."""
    browser = await desk.administrator()
    assert "In use" in (await browser.open("/users/alice")).text
    await desk.node.tokens.clear_pin(
        desk.node.admin("TokenService/ClearPin"), serial=SERIAL
    )
    for path in ("/users/alice", f"/tokens/{SERIAL}", "/tokens"):
        page = await browser.open(path)
        assert "No PIN" in page.text, path
        assert "In use" not in page.text, path
