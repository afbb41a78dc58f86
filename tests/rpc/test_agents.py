# SPDX-License-Identifier: Apache-2.0
"""Agents over gRPC: changes apply at once, also on open connections."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from cryptography import x509

from sparecode.v1 import agents_pb2 as pb
from sparecode.v1 import authentication_pb2, emergency_access_pb2, types_pb2
from sparecode.v1.agents_pb2_grpc import AgentServiceStub
from sparecode.v1.authentication_pb2_grpc import AuthenticationServiceStub
from sparecode_client import certificate_fingerprint
from tests.rpc.edge import AGENT, AGENTS, NOW, failure
from tests.rpc.loopback_node import PIN, LoopbackNode, new_id, running_node

pytestmark = pytest.mark.asyncio

ACCEPTED = authentication_pb2.AUTHENTICATION_DECISION_ACCEPTED
REFUSED = authentication_pb2.AUTHENTICATION_DECISION_REFUSED
Ask = Callable[[grpc.aio.Channel], Awaitable[int]]


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    """Start a node; Alice has token 1 with a PIN."""
    async with running_node(tmp_path) as started:
        await started.populate()
        yield started


@pytest_asyncio.fixture
async def ask(node: LoopbackNode) -> Ask:
    """Issue codes; each call tries the next one through a channel."""
    issued = await node.emergency(
        "IssueTokencodes",
        emergency_access_pb2.IssueTokencodesRequest(
            request_id=new_id(),
            serial="1",
            count=10,
            recovery_policy=types_pb2.RECOVERY_POLICY_DENY,
        ),
    )
    codes = [each.code for each in issued.codes]

    async def ask(channel: grpc.aio.Channel) -> int:
        answer = await AuthenticationServiceStub(channel).Authenticate(
            authentication_pb2.AuthenticateRequest(
                request_id=new_id(), username="alice", passcode=PIN + codes[-1]
            ),
            timeout=60,
        )
        if answer.decision == ACCEPTED:
            codes.pop()
        return int(answer.decision)

    return ask


async def change(node: LoopbackNode, method: str, **fields: Any) -> None:
    request = getattr(pb, f"{method}Request")(request_id=new_id(), **fields)
    await node.call(AgentServiceStub, method, request)


@pytest.mark.parametrize(
    ("refusing", "accepting"),
    [
        (
            ("UpdateAgent", {"name": "vpn", "enabled": False}),
            ("UpdateAgent", {"name": "vpn", "enabled": True}),
        ),
        (
            ("UpdateAgent", {"name": "vpn", "restricted": True}),
            ("UpdateAgent", {"name": "vpn", "add_usernames": ["alice"]}),
        ),
        (
            (
                "UpdateAgent",
                {"name": "vpn", "protects": types_pb2.AGENT_PROTECTS_CLOUD},
            ),
            (
                "UpdateAgent",
                {
                    "name": "vpn",
                    "protects": types_pb2.AGENT_PROTECTS_AUTHENTICATION_MANAGER,
                },
            ),
        ),
        (
            ("RemoveAgent", {"name": "vpn"}),
            (
                "RegisterAgent",
                {"name": "vpn", "certificate_identity": "sparecode://agent/vpn"},
            ),
        ),
    ],
    ids=["disabled", "restricted", "cloud", "removed"],
)
async def test_agent_change_applies_to_the_next_call_on_an_open_connection(
    node: LoopbackNode, ask: Ask, refusing: Any, accepting: Any
) -> None:
    """(A4) The connection stays open, and each call on it is judged separately."""
    async with node.agents() as channel:
        assert await ask(channel) == ACCEPTED
        await change(node, refusing[0], **refusing[1])
        assert await ask(channel) == REFUSED
        await change(node, accepting[0], **accepting[1])
        assert await ask(channel) == ACCEPTED


@pytest.mark.parametrize("mark", ["fingerprint", "serial_number"])
async def test_denied_certificate_is_refused_on_its_open_connection(
    node: LoopbackNode, ask: Ask, mark: str
) -> None:
    """(A4) From the commit on a stolen key is useless, and a new certificate works."""
    if mark == "fingerprint":
        number = certificate_fingerprint(AGENT.certificate)
    else:
        number = f"{x509.load_pem_x509_certificate(AGENT.certificate).serial_number:x}"
    async with node.agents() as stolen:
        assert await ask(stolen) == ACCEPTED
        await change(node, "DenyCertificate", **{mark: number})
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await ask(stolen)
        assert failure(refusal.value).reason == "CERTIFICATE_REFUSED"
        async with node.agents(AGENTS.issue_agent("vpn", now=NOW)) as renewed:
            assert await ask(renewed) == ACCEPTED
        await change(node, "AllowCertificate", **{mark: number})
        assert await ask(stolen) == ACCEPTED
