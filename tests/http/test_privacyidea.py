# SPDX-License-Identifier: Apache-2.0
"""privacyIDEA's `/validate/check`, as its plug-ins call it."""

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.http.door import Door
from tests.services.one_node import PIN

pytestmark = pytest.mark.asyncio

CP = "privacyidea-cp/3.0 Windows"
WRONG = PIN + "000000"


async def check(
    door: Door, passcode: str, *, agent: str = "PAM/2.15", **fields: str
) -> dict[str, Any]:
    """Send a form as a plug-in does; return the answer, whose form must be right."""
    encoded = passcode if agent == CP else quote(passcode, safe="")
    response = await door.client.post(
        "/validate/check",
        data={"user": "alice", "pass": encoded, **fields},
        headers={"user-agent": agent},
    )
    assert response.status_code == 200, response.text
    body = response.json()
    assert (body["jsonrpc"], body["id"], body["signature"]) == ("2.0", 1, "")
    result = body["result"]
    assert result["status"] is True
    assert result["value"] is (result["authentication"] == "ACCEPT")
    return dict(body)


def verdict(body: dict[str, Any]) -> str:
    """Return the verdict of an answer."""
    return str(body["result"]["authentication"])


def assert_error(response: httpx.Response, status: int) -> None:
    """Check the form of an error."""
    result = response.json()["result"]
    assert response.status_code == status, response.text
    assert result["status"] is False
    assert isinstance(result["error"]["code"], int)
    assert result["error"]["message"]


async def test_a_passcode_is_accepted_once(door: Door) -> None:
    passcode = PIN + (await door.node.issue()).codes[0].code
    assert verdict(await check(door, passcode)) == "ACCEPT"
    assert verdict(await check(door, passcode)) == "REJECT"
    assert door.ended[-1].decision == "refused"


@pytest.mark.parametrize("agent", [CP, "simpleSAMLphp", "PAM/2.15", ""])
async def test_a_passcode_is_decoded_as_often_as_its_client_encodes_it(
    door: Door, agent: str
) -> None:
    """The two ways differ where a passcode has a percent sign."""
    await door.node.tokens.set_pin(
        door.node.admin("TokenService/SetPin"), serial="000131415926", pin="82649173"
    )
    typed = "82649173" + door.node.tokencode()
    once = agent.lower().startswith(("privacyidea-cp", "simplesamlphp"))
    sent = typed if once else quote(typed).replace("8", "%38", 1)
    response = await door.client.post(
        "/validate/check",
        data={"user": "alice", "pass": sent},
        headers={"user-agent": agent},
    )
    assert verdict(response.json()) == "ACCEPT"
    door.node.clock.pass_s(30)
    wrongly = ("82649173" + door.node.tokencode()).replace("8", "%38", 1)
    response = await door.client.post(
        "/validate/check",
        data={"user": "alice", "pass": wrongly},
        headers={"user-agent": agent},
    )
    assert verdict(response.json()) == ("REJECT" if once else "ACCEPT")


async def test_json_is_taken_too(door: Door) -> None:
    passcode = PIN + (await door.node.issue()).codes[0].code
    response = await door.client.post(
        "/validate/check", json={"user": "alice", "pass": passcode, "realm": "office"}
    )
    assert verdict(response.json()) == "ACCEPT"


async def test_a_new_pin_is_chosen_in_three_answers(door: Door) -> None:
    """(K3) The PIN, the PIN again, and a tokencode; a weak PIN is asked for again."""
    await door.node.tokens.clear_pin(
        door.node.admin("TokenService/ClearPin"), serial="000131415926"
    )
    body = await check(door, door.node.tokencode())
    assert verdict(body) == "CHALLENGE"
    (challenge,) = body["detail"]["multi_challenge"]
    assert challenge["client_mode"] == "interactive"
    assert challenge["transaction_id"] == body["detail"]["transaction_id"]
    door.node.clock.pass_s(30)
    for entered in ("1", "82649173", "82649174", "82649173", "82649173", "none"):
        body = await check(
            door, entered, transaction_id=body["detail"]["transaction_id"]
        )
        assert verdict(body) == "CHALLENGE"
    last = body["detail"]["transaction_id"]
    body = await check(door, door.node.tokencode(), transaction_id=last)
    assert verdict(body) == "ACCEPT"
    body = await check(door, door.node.tokencode(), state=last)
    assert verdict(body) == "REJECT"
    assert door.node.reasons()[-1] == "challenge_not_valid"


async def test_a_challenge_is_of_no_use_to_another_user(door: Door) -> None:
    """(K3) The plug-in lets the user in whom it names."""
    await door.node.tokens.clear_pin(
        door.node.admin("TokenService/ClearPin"), serial="000131415926"
    )
    body = await check(door, door.node.tokencode())
    transaction = body["detail"]["transaction_id"]
    body = await check(door, "82649173", transaction_id=transaction, user="bob")
    assert verdict(body) == "REJECT"


async def test_a_challenge_tells_nothing_about_the_token(door: Door) -> None:
    """(A6) privacyIDEA names serial and kind of the token here."""
    await door.node.tokens.clear_pin(
        door.node.admin("TokenService/ClearPin"), serial="000131415926"
    )
    body = await check(door, door.node.tokencode())
    assert "000131415926" not in str(body)


async def test_passcodes_in_urls_are_refused(door: Door) -> None:
    response = await door.client.get(
        "/validate/check", params={"user": "alice", "pass": WRONG}
    )
    assert_error(response, 405)
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["triggerchallenge", "polltransaction"])
async def test_what_is_missing_says_so(door: Door, path: str) -> None:
    for response in (
        await door.client.post(f"/validate/{path}", data={"user": "alice"}),
        await door.client.get(f"/validate/{path}"),
    ):
        assert_error(response, 501)
        assert "not supported" in response.json()["result"]["error"]["message"]


async def test_errors_have_the_form_of_privacyidea(door: Door) -> None:
    """No passcode is quoted, and strangers are turned away."""
    for data in ({"user": "alice"}, {"pass": WRONG}, {"user": "a", "pass": "%ff"}):
        response = await door.client.post("/validate/check", data=data)
        assert_error(response, 400)
        assert WRONG not in response.text
    async with door.stranger() as stranger:
        response = await stranger.post("/validate/check", data={"user": "alice"})
    assert_error(response, 401)
    response = await door.client.post("/validate/check", content=b"user=alice")
    assert_error(response, 415)
