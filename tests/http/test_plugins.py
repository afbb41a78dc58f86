# SPDX-License-Identifier: Apache-2.0
"""privacyIDEA's plug-ins: their requests byte for byte, without credentials, repeated."""

import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from sparecode_node.domain.ids import AgentIdentity
from sparecode_node.domain.networks import ByNetwork
from sparecode_node.http.plugins import Plugins
from sparecode_node.http.privacyidea import ENTER_PASSCODE
from tests.http.door import AGENT, HOST, IDENTITY, Door, open_door, trusting
from tests.http.plugins import PLUGINS, Plugin, answer
from tests.http.test_keys import create
from tests.services.one_node import PIN, one_node

pytestmark = pytest.mark.asyncio

ALICE = "alice@example.net"
"""A name that encoding changes."""
WRONG = PIN + "000000"
HERE = ipaddress.ip_network("127.0.0.0/8")
LISTED = Plugins(
    by_network=ByNetwork(
        {
            HERE: AgentIdentity("sparecode://agent/mail"),
            ipaddress.ip_network(HOST): AgentIdentity(IDENTITY),
        }
    )
)
REPEATING = Plugins(
    by_network=LISTED.by_network, repeating=frozenset({AgentIdentity(IDENTITY)})
)


@pytest_asyncio.fixture
async def door(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    """Open a door with the plug-ins of the test's parameter; Alice has a token."""
    plugins = getattr(request, "param", LISTED)
    async with (
        one_node(tmp_path) as node,
        open_door(node, tmp_path / "tls", plugins) as opened,
    ):
        await node.add_user(ALICE)
        await node.register_agent(AgentIdentity(IDENTITY))
        yield opened


async def check(door: Door, plugin: Plugin, passcode: str, **more: str) -> str:
    """Send what a plug-in sends, without a certificate; return the verdict."""
    body = await answer(
        door,
        plugin({"user": ALICE, "pass": passcode, **more}),
        trusting(door.folder),
    )
    return verdict(body)


def verdict(body: dict[str, Any]) -> str:
    """Return the verdict; an error has none."""
    return str(body["result"].get("authentication", body["result"].get("error")))


async def issued(door: Door) -> str:
    """Return a passcode with a code."""
    return PIN + (await door.node.issue()).codes[0].code


@pytest.mark.parametrize("name", PLUGINS)
async def test_the_bytes_of_each_plug_in_are_understood(door: Door, name: str) -> None:
    """Names and passcodes arrive as they were typed, and each code works once."""
    plugin, passcode = PLUGINS[name], await issued(door)
    assert await check(door, plugin, WRONG) == "REJECT"
    assert await check(door, plugin, passcode, realm="office") == "ACCEPT"
    assert await check(door, plugin, passcode, realm="office") == "REJECT"
    assert door.node.reasons()[-3:] == ["wrong_passcode", "", "code_not_live"]


@pytest.mark.parametrize("name", PLUGINS)
async def test_each_plug_in_takes_a_user_through_a_dialog(
    door: Door, name: str
) -> None:
    """(K3) It repeats `transaction_id` as it got it."""
    await door.node.tokens.clear_pin(
        door.node.admin("TokenService/ClearPin"), serial="000131415926"
    )
    plugin, context = PLUGINS[name], trusting(door.folder)
    entered, more = door.node.tokencode(), {}
    for following in ("82649173", "82649173", None):
        body = await answer(
            door, plugin({"user": ALICE, "pass": entered, **more}), context
        )
        assert verdict(body) == "CHALLENGE"
        more = {"transaction_id": body["detail"]["transaction_id"]}
        if following is None:
            door.node.clock.pass_s(30)
        entered = following or door.node.tokencode()
    assert await check(door, plugin, entered, **more) == "ACCEPT"


async def test_an_empty_passcode_is_no_guess(door: Door) -> None:
    """Plug-ins send one to ask for a challenge (`sendEmptyPass`), and show the message."""
    request = PLUGINS["pam"]({"user": ALICE, "pass": ""})
    for _ in range(20):
        body = await answer(door, request, trusting(door.folder))
        assert verdict(body) == "REJECT"
        assert body["detail"]["message"] == ENTER_PASSCODE
    tokencode = PIN + door.node.tokencode()
    assert await check(door, PLUGINS["pam"], tokencode) == "ACCEPT"


async def test_json_is_not_decoded_again(door: Door) -> None:
    """A server of privacyIDEA decodes forms alone."""
    response = await door.client.post(
        "/validate/check", json={"user": "alice%40example.net", "pass": WRONG}
    )
    assert verdict(response.json()) == "REJECT"
    assert door.node.reasons()[-1] == "user_unknown"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x",
        b"--x\r\n\r\nalice\r\n--x--\r\n",
        b'--x\r\nContent-Disposition: form-data; name="user"\r\n\r\nalice\r\n',
        (
            b'--x\r\nContent-Disposition: form-data; name="user"; filename="f"\r\n\r\n'
            b"alice\r\n--x--\r\n"
        ),
        b'--x\r\nContent-Disposition: form-data; name="user"\r\n\r\n\xff\r\n--x--\r\n',
        # An IndexError of the parser.
        b"--x\r\nContent-Disposition: form-data; name*\r\n\r\nalice\r\n--x--\r\n",
        (
            b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n"
            b'Content-Disposition: form-data; name="user"\r\n\r\n'
            b"--y\r\n\r\n--y--\r\n--x--\r\n"
        ),
        b'--x\r\nContent-Disposition: form-data; name="user"\r\n\r\nalice\r\n' * 33
        + b"--x--\r\n",
    ],
)
async def test_a_broken_form_in_parts_is_an_error(door: Door, body: bytes) -> None:
    response = await door.client.post(
        "/validate/check",
        content=body,
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    assert response.status_code == 400, response.text
    assert response.json()["result"]["status"] is False


async def test_a_listed_network_stands_for_its_agent(door: Door) -> None:
    """The most specific one counts, and the agent's rules hold as with a certificate."""
    passcode = await issued(door)
    assert await check(door, PLUGINS["pam"], passcode) == "ACCEPT"
    await door.node.agents.update(
        door.node.admin("AgentService/UpdateAgent"), name=IDENTITY, enabled=False
    )
    assert await check(door, PLUGINS["pam"], await issued(door)) == "REJECT"
    assert door.node.reasons()[-1] == "agent_disabled"


async def test_a_listed_network_opens_no_other_path(door: Door) -> None:
    async with door.stranger() as stranger:
        response = await door.post(
            "/v1/authenticate", stranger, username=ALICE, passcode=WRONG
        )
    assert (response.status_code, response.json()["reason"]) == (401, "CREDENTIALS")


@pytest.mark.parametrize(
    "header",
    [{"Origin": "https://attacker.example"}, {"Sec-Fetch-Site": "cross-site"}],
)
async def test_a_page_in_a_browser_is_no_plug_in(
    door: Door, header: dict[str, str]
) -> None:
    """
    (D5) Else any page could spend and try passcodes from a listed network.

    And with an agent's certificate that a person has imported into the browser.
    """
    passcode = await issued(door)
    form = {"user": ALICE, "pass": passcode}
    before = door.node.reasons()
    async with door.stranger() as stranger:
        for browser in (stranger, door.client):
            response = await browser.post("/validate/check", data=form, headers=header)
            assert response.status_code == 401
    assert door.node.reasons() == before
    # With a bearer key, which a page may not send, it is judged.
    key = await create(door.node)
    async with door.stranger(headers={"authorization": f"Bearer {key}"}) as program:
        response = await program.post("/validate/check", data=form, headers=header)
    assert verdict(response.json()) == "ACCEPT"


async def test_a_wrong_key_is_no_way_to_a_listed_network(door: Door) -> None:
    """Who shows a key is judged by it."""
    async with door.stranger() as stranger:
        response = await stranger.post(
            "/validate/check",
            data={"user": ALICE, "pass": WRONG},
            headers={"authorization": "Bearer wrong"},
        )
    assert response.status_code == 401


@pytest.mark.parametrize(
    "door",
    [Plugins(by_network=ByNetwork({ipaddress.ip_network("192.0.2.0/24"): IDENTITY}))],
    indirect=True,
)
async def test_another_network_needs_credentials(door: Door) -> None:
    async with door.stranger() as stranger:
        response = await stranger.post(
            "/validate/check", data={"user": ALICE, "pass": WRONG}
        )
    assert response.status_code == 401


@pytest.mark.parametrize("door", [REPEATING], indirect=True)
async def test_a_repeated_call_is_one_request_for_30_s(door: Door) -> None:
    """(D3) The answer was lost: the plug-in, or its HTTP library, asks again."""
    passcode = await issued(door)
    events = len(door.node.reasons())
    for _ in range(3):
        assert await check(door, PLUGINS["keycloak"], passcode) == "ACCEPT"
    assert len(door.node.reasons()) == events + 1
    # Another form of the same fields is the same call; other fields are another one.
    assert await check(door, PLUGINS["pam"], passcode) == "ACCEPT"
    assert await check(door, PLUGINS["pam"], passcode, realm="other") == "REJECT"
    door.node.clock.pass_s(31)
    for _ in range(2):
        assert await check(door, PLUGINS["keycloak"], passcode) == "REJECT"


async def test_without_the_setting_a_repeated_call_is_another_one(door: Door) -> None:
    passcode = await issued(door)
    assert await check(door, PLUGINS["keycloak"], passcode) == "ACCEPT"
    assert await check(door, PLUGINS["keycloak"], passcode) == "REJECT"


@pytest.mark.parametrize("door", [REPEATING], indirect=True)
async def test_another_agent_repeats_nothing(door: Door) -> None:
    """The setting is one agent's, and its calls are told by agent and address."""
    passcode = await issued(door)
    await door.node.register_agent(AgentIdentity("sparecode://agent/mail"))
    request = PLUGINS["pam"]({"user": ALICE, "pass": passcode})
    assert (
        verdict(await answer(door, request, trusting(door.folder, AGENT))) == "ACCEPT"
    )
    assert (
        verdict(await answer(door, request, trusting(door.folder, "mail"))) == "REJECT"
    )


@pytest.mark.parametrize("door", [REPEATING], indirect=True)
async def test_a_repeated_answer_to_a_challenge_is_one_request(door: Door) -> None:
    await door.node.tokens.clear_pin(
        door.node.admin("TokenService/ClearPin"), serial="000131415926"
    )
    plugin, context = PLUGINS["shibboleth"], trusting(door.folder)
    entered, more = door.node.tokencode(), {}
    for following in ("82649173", "82649173", ""):
        body = await answer(
            door, plugin({"user": ALICE, "pass": entered, **more}), context
        )
        entered, more = following, {"transaction_id": body["detail"]["transaction_id"]}
    door.node.clock.pass_s(30)
    tokencode = door.node.tokencode()
    for _ in range(2):
        assert await check(door, plugin, tokencode, **more) == "ACCEPT"
