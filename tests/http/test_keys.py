# SPDX-License-Identifier: Apache-2.0
"""Bearer keys of agents (D5): who calls with them, and who is turned away."""

import dataclasses
import logging
import uuid
from pathlib import Path

import httpx
import pytest

from sparecode_node.domain.outcomes import Reason
from sparecode_node.services.context import HTTP, AgentCaller, CallContext
from sparecode_node.services.errors import (
    InvalidFieldError,
    NoCredentialsError,
    Refused,
)
from sparecode_node.services.load.rates import RateLimits
from sparecode_node.services.secrets.kdf import Kdf
from tests.http.door import AGENT, HOST, IDENTITY, Door, open_door
from tests.http.test_v1 import WRONG, assert_refused, issued
from tests.services.one_node import AgentIdentity, OneNode, one_node

pytestmark = pytest.mark.asyncio

CREATE = "AgentService/CreateAgentKey"


async def create(
    node: OneNode,
    *,
    overlap_s: int = 0,
    networks: tuple[str, ...] = (),
    request_id: str = "",
) -> str:
    """Return a new key of the agent."""
    new = await node.services.agent_keys.create(
        node.admin(CREATE, request_id),
        name=IDENTITY,
        overlap_ms=1000 * overlap_s,
        networks=networks,
    )
    return new.key


async def ask(door: Door, key: str, passcode: str = WRONG) -> httpx.Response:
    """Send a passcode with a key, and without a certificate."""
    async with door.stranger() as client:
        return await client.post(
            "/v1/authenticate",
            json={"username": "alice", "passcode": passcode},
            headers={"authorization": f"Bearer {key}".encode("latin-1")},
        )


async def test_a_key_names_its_agent(door: Door) -> None:
    """(A4) As a certificate does: the agent's rules and its audit log are the same."""
    key = await create(door.node)
    answer = await ask(door, key, await issued(door))
    assert answer.json()["decision"] == "ACCEPTED", answer.text
    await door.node.agents.update(
        door.node.admin("AgentService/UpdateAgent"), name=IDENTITY, enabled=False
    )
    answer = await ask(door, key, await issued(door))
    assert answer.json()["decision"] == "REFUSED", answer.text
    assert door.node.reasons()[-1] == "agent_disabled"


async def test_keys_end_without_another_one(door: Door) -> None:
    """
    (D5, P7) At once, and by a session alone: a key that has leaked is no agent any more.

    The replaced key ends with the current one, and the certificate still works.
    """
    node = door.node
    keys = [await create(node), await create(node, overlap_s=3600)]
    node.clock.pass_s(6 * 60)  # The password was typed longer ago than five minutes.
    await node.agents.update(
        node.admin("AgentService/UpdateAgent"), name=IDENTITY, end_keys=True
    )
    for key in keys:
        assert (await ask(door, key)).status_code == 401
    assert (await door.authenticate(await issued(door))).json()["decision"] == (
        "ACCEPTED"
    )
    view = (await node.agents.get(read_of(node), IDENTITY)).value
    assert view.keys is None
    (detail,) = node.primary_db.execute(
        "SELECT detail FROM audit_events WHERE action = 'UpdateAgent'"
    ).fetchone()
    assert detail == "no bearer key works"
    with pytest.raises(Refused) as refused:
        await create(node)
    assert refused.value.rejected.reason is Reason.REAUTHENTICATION_NEEDED


def read_of(node: OneNode) -> CallContext:
    return dataclasses.replace(node.admin("AgentService/GetAgent"), request_id="")


async def test_a_key_works_for_privacyidea_too(door: Door) -> None:
    key = await create(door.node)
    async with door.stranger() as client:
        response = await client.post(
            "/validate/check",
            data={"user": "alice", "pass": await issued(door)},
            headers={"authorization": f"bearer {key}"},
        )
    assert response.json()["result"]["authentication"] == "ACCEPT"


async def test_a_replaced_key_works_for_its_overlap(door: Door) -> None:
    """(D5) Without one it stops at once, and so do all before it."""
    first = await create(door.node)
    second = await create(door.node, overlap_s=60)
    for key in (first, second):
        assert (await ask(door, key)).status_code == 200
    door.node.clock.pass_s(60)
    assert_refused(await ask(door, first), 401, "CREDENTIALS")
    third = await create(door.node, overlap_s=60)
    last = await create(door.node)
    for key in (second, third):
        assert_refused(await ask(door, key), 401, "CREDENTIALS")
    assert (await ask(door, last)).status_code == 200


async def test_a_wrong_key_is_turned_away_before_any_work(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """(D5) Nothing is hashed for a stranger, nor is a body read."""
    await create(door.node)
    calls: list[object] = []
    monkeypatch.setattr(Kdf, "derive", lambda *given, **_: calls.append(given))
    wrong = ("x", "sparecode_" + 43 * "A", "sparecode_" + 5000 * "A", "\xe9")
    for key in wrong:
        response = await ask(door, key)
        assert_refused(response, 401, "CREDENTIALS")
        assert response.headers["www-authenticate"] == "Bearer"
    async with door.stranger() as client:
        response = await client.post(
            "/v1/authenticate",
            json={"username": "alice", "passcode": WRONG},
            headers={"authorization": "Basic YTpi"},
        )
    assert_refused(response, 401, "CREDENTIALS")
    assert not calls


async def test_wrong_keys_have_a_rate(tmp_path: Path) -> None:
    """(L7) A stranger who tries keys waits, and the agent goes on."""
    limits = RateLimits(session=1)
    async with (
        one_node(tmp_path, limits) as node,
        open_door(node, tmp_path / "tls") as door,
    ):
        await node.register_agent(AgentIdentity(IDENTITY))
        key = await create(node)
        for _ in range(10):
            with pytest.raises(NoCredentialsError):
                await node.services.agent_keys.caller("wrong", HOST)
        assert_refused(await ask(door, "wrong"), 429, "RATE")
        assert (await ask(door, key)).status_code == 200


async def test_a_key_works_from_its_networks_alone(door: Door) -> None:
    """(D5) A key that was copied to another machine is of no use there."""
    elsewhere = await create(door.node, networks=("192.0.2.0/24", "2001:db8::/64"))
    assert_refused(await ask(door, elsewhere), 401, "CREDENTIALS")
    here = await create(door.node, networks=("192.0.2.0/24", "127.0.0.0/8"))
    assert (await ask(door, here)).status_code == 200


async def test_apply_looks_at_the_key_again(door: Door) -> None:
    """(A4) The called node may be behind: it has not seen that the key has ended."""
    answer = await door.node.services.authentication.authenticate(
        CallContext(
            caller=AgentCaller(
                identity=AgentIdentity(IDENTITY), bearer_id=str(uuid.uuid4())
            ),
            request_id=str(uuid.uuid4()),
            method="AuthenticationService/Authenticate",
            deadline_s=10,
            door=HTTP,
        ),
        username="alice",
        passcode=await issued(door),
        client_address="",
        resource="",
    )
    assert answer.decision == "refused"
    assert door.node.reasons()[-1] == "agent_unknown"


async def test_a_key_is_shown_once(door: Door) -> None:
    """(D5) A retry has drawn another key, which no state has: it says so."""
    request_id = str(uuid.uuid4())
    key = await create(door.node, request_id=request_id)
    with pytest.raises(InvalidFieldError, match="create another"):
        await create(door.node, request_id=request_id)
    assert (await ask(door, key)).status_code == 200
    door.node.clock.pass_s(601)
    await door.node.login()
    with pytest.raises(Refused) as refused:  # Its id is forgotten, but not its key.
        await create(door.node, request_id=request_id)
    assert refused.value.rejected.reason is Reason.REQUEST_ID_REUSED
    assert (await ask(door, key)).status_code == 200


async def test_a_stolen_session_draws_no_key(door: Door) -> None:
    """(P7) A key lets anyone ask about passcodes."""
    door.node.clock.pass_s(301)
    with pytest.raises(Refused) as refused:
        await create(door.node)
    assert refused.value.rejected.reason is Reason.REAUTHENTICATION_NEEDED


async def test_the_state_has_no_key(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """(D5) Neither have the logs, whatever becomes of the call."""
    caplog.set_level(1)
    key = await create(door.node)
    await ask(door, key, await issued(door))
    await ask(door, key + "x")
    dumped = "\n".join(door.node.primary_db.iterdump())
    assert "agent_keys" in dumped
    for text in (key, key.removeprefix("sparecode_"), key.encode().hex()):
        assert text not in dumped
    ours = [r for r in caplog.records if not r.name.startswith(("http", "asyncio"))]
    assert ours
    logged = "\n".join(f"{each.getMessage()} {vars(each)}" for each in ours)
    assert key not in logged
    logging.getLogger(__name__).debug("looked through")


async def test_administrators_see_the_times_of_keys(door: Door) -> None:
    read = "AgentService/GetAgent"
    view = (await door.node.agents.get(door.node.admin(read), IDENTITY)).value
    assert view.keys is None
    await create(door.node)
    await create(door.node, overlap_s=60, networks=("192.0.2.1",))
    view = (await door.node.agents.get(door.node.admin(read), IDENTITY)).value
    assert view.keys is not None
    assert view.keys.created_at_ms is not None
    assert view.keys.networks == ("192.0.2.1/32",)
    assert view.keys.former_ends_at_ms == view.keys.created_at_ms + 60_000


async def test_a_certificate_needs_no_key(door: Door) -> None:
    """The header of a program's own user is not taken for a key."""
    response = await door.client.post(
        "/v1/authenticate",
        json={"username": "alice", "passcode": WRONG},
        headers={"authorization": "Bearer of-a-user"},
    )
    assert (response.status_code, AGENT) == (200, "vpn")
