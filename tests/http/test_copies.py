# SPDX-License-Identifier: Apache-2.0
"""Copies of a call by HTTP (D3): they cost little, and an acceptance must still stand."""

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from sparecode_node.domain.agents import Certificate
from sparecode_node.http.v1 import AUTHENTICATE
from sparecode_node.services.context import HTTP, AgentCaller, CallContext
from sparecode_node.services.errors import CertificateDeniedError
from sparecode_node.services.load.rates import BURST_S
from tests.http.door import HOST, IDENTITY, Door, open_door
from tests.http.test_v1 import WRONG, issued
from tests.services.one_node import UNLIMITED, AgentIdentity, one_node

pytestmark = pytest.mark.asyncio

CERTIFICATE = Certificate(fingerprint="ab" * 32, serial_number="1")


async def test_a_copy_takes_no_hash(door: Door) -> None:
    """(D3) A plug-in or a proxy may send one at once, and each cost two hashes."""
    passcode, key = await issued(door), str(uuid.uuid4())
    for sent, decision in ((passcode, "ACCEPTED"), (WRONG, "REFUSED")):
        first = await door.authenticate(sent, request_id=key)
        assert first.json()["decision"] == decision
        before = door.node.kdf.evaluations(), len(door.node.reasons())
        for _ in range(5):
            copy = await door.authenticate(sent, request_id=key)
            assert copy.json() == first.json()
        assert (door.node.kdf.evaluations(), len(door.node.reasons())) == before
        key = str(uuid.uuid4())


@pytest.mark.parametrize("step", ["first", "next"])
async def test_a_changed_copy_is_hashed_counted_and_recorded(
    tmp_path: Path, step: str
) -> None:
    """(Q1, L7) Else the holder of a key could try passcodes under one id, unseen."""
    key = str(uuid.uuid4())
    async with (
        one_node(tmp_path, replace(UNLIMITED, user=1)) as node,
        open_door(node, tmp_path / "tls") as door,
    ):
        await node.add_user()
        await node.register_agent(AgentIdentity(IDENTITY))

        async def send(guess: int) -> dict[str, object]:
            path, secret = (
                ("/v1/authenticate", {"username": "alice", "passcode": f"{guess:06}"})
                if step == "first"
                else ("/v1/continue", {"challenge": "AAEC", "tokencode": f"{guess:06}"})
            )
            answer: dict[str, object] = (
                await door.post(path, **secret, request_id=key)
            ).json()
            return answer

        assert (await send(0))["decision"] == "REFUSED"
        for guess in range(1, BURST_S):
            hashed = node.kdf.evaluations()
            assert (await send(guess))["reason"] == "REQUEST_ID_REUSED"
            assert node.kdf.evaluations() > hashed
        assert "request_id_reused" in node.reasons()
        hashed = node.kdf.evaluations()
        assert (await send(BURST_S))["status"] == 429
        assert (await send(0))["decision"] == "REFUSED", "a copy has a rate of its own"
        assert node.kdf.evaluations() == hashed


@pytest.mark.parametrize("change", ["user", "agent", "list", "key", "certificate"])
async def test_a_copy_of_an_acceptance_is_refused_once_it_no_longer_stands(
    door: Door, change: str
) -> None:
    """(Q2) On a node that has the decision already."""
    node, request_id = door.node, str(uuid.uuid4())
    passcode = await issued(door)

    async def create_key() -> str:
        new = await node.services.agent_keys.create(
            node.admin("AgentService/CreateAgentKey"), name=IDENTITY, overlap_ms=0
        )
        return new.key

    key = await create_key()
    known = await node.services.agent_keys.caller(key, HOST)
    caller = (
        known
        if change == "key"
        else AgentCaller(identity=known.identity, certificate=CERTIFICATE)
    )

    async def decide() -> str:
        answer = await node.services.authentication.authenticate(
            CallContext(
                caller=caller,
                request_id=request_id,
                method=AUTHENTICATE,
                deadline_s=10,
                door=HTTP,
            ),
            username="alice",
            passcode=passcode,
            client_address="",
            resource="",
        )
        return answer.decision.value

    assert [await decide(), await decide()] == ["accepted", "accepted"]
    if change == "user":
        await node.users.update(
            node.admin("UserService/UpdateUser"), username="alice", enabled=False
        )
    elif change == "key":
        await create_key()  # It replaces the one that was shown.
    elif change == "certificate":
        await node.agents.deny(
            node.admin("AgentService/DenyCertificate"),
            fingerprint=CERTIFICATE.fingerprint,
            note="stolen",
        )
    else:
        await node.agents.update(
            node.admin("AgentService/UpdateAgent"),
            name=IDENTITY,
            **({"enabled": False} if change == "agent" else {"restricted": True}),
        )
    if change == "certificate":
        with pytest.raises(CertificateDeniedError):
            await decide()
    else:
        assert await decide() == "refused"
