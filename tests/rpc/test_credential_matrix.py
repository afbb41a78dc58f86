# SPDX-License-Identifier: Apache-2.0
"""
Every method with every wrong credential: refused, nothing changed, and recorded.

A caller that fails in the TLS handshake never reaches a method. These cases are in
`tests/system/test_strangers.py`, on the listeners of real nodes.
"""

import base64
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pyotp
import pytest
import pytest_asyncio

from sparecode.v1 import (
    administrators_pb2,
    agents_pb2,
    authentication_pb2,
    sessions_pb2,
    tokens_pb2,
)
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode.v1.agents_pb2_grpc import AgentServiceStub
from sparecode.v1.authentication_pb2_grpc import AuthenticationServiceStub
from sparecode.v1.sessions_pb2_grpc import SessionServiceStub
from sparecode.v1.tokens_pb2_grpc import TokenServiceStub
from sparecode_node.domain.administrators import Role, may
from sparecode_node.services.access.authorization import CONSOLE_ONLY, NEEDS
from tests.rpc.contract import public
from tests.rpc.edge import AGENT, AGENTS, NOW
from tests.rpc.loopback_node import PIN, LoopbackNode, new_id, running_node
from tests.rpc.test_credentials import refusal_of

pytestmark = pytest.mark.asyncio

CALLS = {each: need for each, need in NEEDS.items() if each not in CONSOLE_ONLY}
"""The permission of each method that needs a session."""

CODE = grpc.StatusCode
TEMPORARY, OWN = "a temporary password", "a password of my own"
PASSCODE = PIN + "ABCD2345"

Bearer = tuple[tuple[str, str], ...]


def bearer(session: str) -> Bearer:
    return (("authorization", f"Bearer {session}"),)


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    """Start a node; Alice has token 1 with a PIN, and an agent may call."""
    async with running_node(tmp_path) as started:
        await started.populate()
        yield started


async def test_every_method_is_in_the_matrix() -> None:
    """
    (P1) The tests below cover every method of the contract.

    Only signing in and the methods for agents need no session.
    """
    without_session = {
        "SessionService/Login",
        "SessionService/StartBrowserLogin",
        "SessionService/CollectBrowserLogin",
        "AuthenticationService/Authenticate",
        "AuthenticationService/ContinueAuthentication",
    }
    assert set(public()) == set(CALLS) | without_session


# --- On the administrators' listener ----------------------------------------


async def administrator(node: LoopbackNode, name: str, role: Any) -> str:
    """Add an administrator with a password of their own; return a session."""
    await node.call(
        AdministratorServiceStub,
        "CreateAdministrator",
        administrators_pb2.CreateAdministratorRequest(
            request_id=new_id(), name=name, role=role, password=TEMPORARY, no_user=True
        ),
    )
    root, node.bearer = node.bearer, bearer(await sign_in(node, name, TEMPORARY))
    await node.call(
        AdministratorServiceStub,
        "ChangePassword",
        administrators_pb2.ChangePasswordRequest(
            request_id=new_id(), old_password=TEMPORARY, new_password=OWN
        ),
    )
    node.bearer = root
    return await sign_in(node, name, OWN)


async def sign_in(node: LoopbackNode, name: str, password: str) -> str:
    async with node.admin() as channel:
        answer = await SessionServiceStub(channel).Login(
            sessions_pb2.LoginRequest(
                request_id=new_id(), administrator=name, password=password
            ),
            timeout=60,
        )
    return str(answer.session)


async def nothing(_: LoopbackNode) -> Bearer:
    return ()


async def another_clusters(_: LoopbackNode) -> Bearer:
    return bearer("A" * 43)


async def expired(node: LoopbackNode) -> Bearer:
    """Move the end of a session into the past, as time would."""
    session = await administrator(
        node, "dora", administrators_pb2.ADMINISTRATOR_ROLE_SUPER_ADMIN
    )
    with node.state_written() as db:
        db.execute(
            "UPDATE sessions SET ends_at_ms = opened_at_ms + 1 "
            "WHERE administrator = 'dora'"
        )
    return bearer(session)


async def removed(node: LoopbackNode) -> Bearer:
    session = await administrator(
        node, "dora", administrators_pb2.ADMINISTRATOR_ROLE_HELP_DESK
    )
    await node.call(
        AdministratorServiceStub,
        "RemoveAdministrator",
        administrators_pb2.RemoveAdministratorRequest(request_id=new_id(), name="dora"),
    )
    return bearer(session)


async def disabled(node: LoopbackNode) -> Bearer:
    session = await administrator(
        node, "dora", administrators_pb2.ADMINISTRATOR_ROLE_HELP_DESK
    )
    await node.call(
        AdministratorServiceStub,
        "UpdateAdministrator",
        administrators_pb2.UpdateAdministratorRequest(
            request_id=new_id(), name="dora", enabled=False
        ),
    )
    return bearer(session)


async def revoked(node: LoopbackNode) -> Bearer:
    session = await administrator(
        node, "dora", administrators_pb2.ADMINISTRATOR_ROLE_SUPER_ADMIN
    )
    root, node.bearer = node.bearer, bearer(await sign_in(node, "dora", OWN))
    await node.call(
        SessionServiceStub,
        "LogoutEverywhere",
        sessions_pb2.LogoutEverywhereRequest(request_id=new_id()),
    )
    node.bearer = root
    return bearer(session)


@pytest.mark.parametrize(
    "credential",
    [nothing, another_clusters, expired, removed, disabled, revoked],
    ids=lambda credential: credential.__name__,
)
async def test_every_method_needs_a_live_session(
    node: LoopbackNode, credential: Callable[[LoopbackNode], Any]
) -> None:
    """(P1, P2, U1) Without one: refused, nothing changed, recorded."""
    metadata = await credential(node)
    async with node.admin() as channel:
        for method in CALLS:
            before = node.facts()
            refusal = await refusal_of(channel, method, metadata)
            assert (refusal.code, refusal.reason) == (
                CODE.UNAUTHENTICATED,
                "SESSION_ENDED",
            ), method
            assert node.facts() == before, method
            assert (await node.recorded_events())[-1] == (
                *("nobody", "NoteRefusedCalls", method),
                *("refused", "session_ended"),
            )


@pytest.mark.parametrize("role", [Role.HELP_DESK, Role.AUDITOR, Role.OPERATOR])
async def test_every_method_needs_a_role_that_allows_it(
    node: LoopbackNode, role: Role
) -> None:
    """(P1, U1) The wrong role: refused, nothing changed, recorded with the name."""
    number = administrators_pb2.AdministratorRole.Value(
        f"ADMINISTRATOR_ROLE_{role.name}"
    )
    metadata = bearer(await administrator(node, "dora", number))
    async with node.admin() as channel:
        for method, permission in CALLS.items():
            if permission is None or may(role, permission):
                continue
            before = node.facts()
            refusal = await refusal_of(channel, method, metadata)
            assert (refusal.code, refusal.reason) == (CODE.PERMISSION_DENIED, "ROLE")
            assert node.facts() == before, method
            assert (await node.recorded_events())[-1] == (
                *("administrator:dora", "NoteRefusedCalls", method),
                *("refused", "role"),
            )


async def test_agent_certificate_is_anonymous_on_the_admin_listener(
    node: LoopbackNode,
) -> None:
    """(P1, U1) The listener does not request a certificate."""
    async with node.admin(own=AGENT) as channel:
        for method in CALLS:
            before = node.facts()
            refusal = await refusal_of(channel, method)
            assert refusal.code is CODE.UNAUTHENTICATED, method
            assert node.facts() == before, method
            assert (await node.recorded_events())[-1][0] == "nobody"
        refusal = await refusal_of(channel, "AuthenticationService/Authenticate")
        assert refusal.code is CODE.UNIMPLEMENTED


async def test_malformed_session_header_is_recorded(node: LoopbackNode) -> None:
    """(U1) The edge refuses such a header before any use case sees it."""
    async with node.admin() as channel:
        refusal = await refusal_of(
            channel, "UserService/ListUsers", (("authorization", "Basic cm9vdA=="),)
        )
    assert refusal.code is CODE.UNAUTHENTICATED
    assert (await node.recorded_events())[-1] == (
        *("nobody", "NoteRefusedCalls", "UserService/ListUsers"),
        *("refused", "session_ended"),
    )


# --- On the agents' listener -------------------------------------------------


async def test_agents_listener_has_no_administration_methods(
    node: LoopbackNode,
) -> None:
    """(P1, U1) An administrator's session does not help there."""
    async with node.agents() as channel:
        for method in (*CALLS, "SessionService/Login"):
            before = node.facts()
            refusal = await refusal_of(channel, method, node.bearer)
            assert refusal.code is CODE.UNIMPLEMENTED, method
            assert node.facts() == before, method
            assert (await node.recorded_events())[-1] == (
                *("agent:sparecode://agent/vpn", "NoteRefusedCalls", method),
                *("refused", "unimplemented"),
            )


async def test_certificate_without_an_identity_is_refused_and_recorded(
    node: LoopbackNode,
) -> None:
    """(U1) An agents' authority signed it, but it names no agent."""
    own = AGENTS.issue("vpn", [], now=NOW)
    before = node.facts()
    async with node.agents(own) as channel:
        refusal = await refusal_of(channel, "AuthenticationService/Authenticate")
    assert (refusal.code, refusal.reason) == (CODE.UNAUTHENTICATED, "CERTIFICATE")
    assert node.facts() == before
    assert (await node.recorded_events())[-1] == (
        *("nobody", "NoteRefusedCalls", "AuthenticationService/Authenticate"),
        *("refused", "certificate"),
    )


NO_LONGER = pytest.mark.parametrize(
    ("method", "fields", "reason"),
    [
        ("RemoveAgent", {"name": "vpn"}, "agent_unknown"),
        ("UpdateAgent", {"name": "vpn", "enabled": False}, "agent_disabled"),
    ],
    ids=["removed", "disabled"],
)


@NO_LONGER
async def test_disabled_agent_changes_nothing(
    node: LoopbackNode, method: str, fields: dict[str, Any], reason: str
) -> None:
    """(A4, A6, U1) Refused like a wrong passcode; no failure is counted for the user."""
    request = getattr(agents_pb2, f"{method}Request")(request_id=new_id(), **fields)
    await node.call(AgentServiceStub, method, request)
    before = node.facts()
    async with node.agents() as channel:
        answer = await AuthenticationServiceStub(channel).Authenticate(
            authentication_pb2.AuthenticateRequest(
                request_id=new_id(), username="alice", passcode=PASSCODE
            ),
            timeout=60,
        )
    assert answer.decision == authentication_pb2.AUTHENTICATION_DECISION_REFUSED
    assert node.facts() == before
    assert (await node.recorded_events())[-1] == (
        *("agent:sparecode://agent/vpn", "Authenticate", "alice"),
        *("refused", reason),
    )


@NO_LONGER
async def test_disabled_agent_cannot_answer_an_earlier_challenge(
    node: LoopbackNode, method: str, fields: dict[str, Any], reason: str
) -> None:
    """(A4, K3, U1) Refused, even with the right answer."""
    await node.call(
        TokenServiceStub,
        "ClearPin",
        tokens_pb2.ClearPinRequest(request_id=new_id(), serial="1"),
    )
    shows = pyotp.TOTP(base64.b32encode(b"12345678901234567890").decode())
    now = int(time.time())
    async with node.agents() as channel:
        stub = AuthenticationServiceStub(channel)
        response = await stub.Authenticate(
            authentication_pb2.AuthenticateRequest(
                request_id=new_id(), username="alice", passcode=shows.at(now)
            ),
            timeout=60,
        )
        needed = authentication_pb2.AUTHENTICATION_DECISION_NEW_PIN_REQUIRED
        assert response.decision == needed
        request = getattr(agents_pb2, f"{method}Request")(request_id=new_id(), **fields)
        await node.call(AgentServiceStub, method, request)
        before = node.facts()
        answer = await stub.ContinueAuthentication(
            authentication_pb2.ContinueAuthenticationRequest(
                request_id=new_id(),
                challenge=response.challenge,
                next_tokencode=shows.at(now + 30),
                new_pin="314271",
            ),
            timeout=60,
        )
    assert answer.decision == authentication_pb2.AUTHENTICATION_DECISION_REFUSED
    assert node.facts() == before
    noted = (await node.recorded_events())[-1]
    assert noted[:2] == ("agent:sparecode://agent/vpn", "ContinueAuthentication")
    assert noted[-2:] == ("refused", reason)
