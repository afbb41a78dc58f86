# SPDX-License-Identifier: Apache-2.0
"""Every method with every wrong kind of credential: no use case is called."""

import grpc
import pytest
from cryptography import x509
from google.protobuf.message import Message

from sparecode_node.rpc.identity import agent_identity
from sparecode_node.services.authentication.decisions import AgentAnswer
from sparecode_node.services.context import Anonymous
from sparecode_node.services.errors import (
    NotSignedInError,
    UnidentifiedError,
)
from sparecode_node.statemachine.results import Decision
from tests.rpc.contract import public, well_formed
from tests.rpc.edge import (
    AGENT,
    AGENTS,
    BEARER,
    EXPIRED,
    MEMBER,
    NOW,
    STRANGER,
    STRANGERS,
    failure,
    running_edge,
)
from tests.rpc.test_imports import pieces

CODE = grpc.StatusCode
AUTHENTICATE = "AuthenticationService/Authenticate"
LOGIN = "SessionService/Login"
ADMIN_METHODS = [
    name for name in public() if not name.startswith("AuthenticationService/")
]
SIGN_INS = {
    LOGIN,
    "SessionService/StartBrowserLogin",
    "SessionService/CollectBrowserLogin",
}
"""A caller that has no session yet gets one by these."""
SESSION_METHODS = [name for name in ADMIN_METHODS if name not in SIGN_INS]


def serialize(message: Message) -> bytes:
    return message.SerializeToString()


async def call(channel, method, metadata=None):
    """Call any method of the contract with a well-formed request."""
    described, path = public()[method], f"/sparecode.v1.{method}"
    if described.client_streaming:
        response = channel.stream_unary(path, request_serializer=serialize)
        await response(iter(pieces()), timeout=60, metadata=metadata)
        return
    responses = channel.unary_stream(path, request_serializer=serialize)
    request = well_formed(described.input_type)
    async for _ in responses(request, timeout=60, metadata=metadata):
        pass


async def refusal_of(channel, method, metadata=None):
    """Call a method that must fail; return the failure."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(channel, method, metadata)
    return failure(caught.value)


def no_use_case_was_called(edge) -> bool:
    return not any(service.calls for service in edge.services.values())


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("what", "own"),
    [
        ("no certificate", None),
        ("another authority's", STRANGER),
        ("a member's", MEMBER),
        ("expired", EXPIRED),
    ],
)
async def test_agents_listener_refuses_other_certificates(what, own):
    async with running_edge() as edge, edge.agents(own) as channel:
        refusal = await refusal_of(channel, AUTHENTICATE, metadata=BEARER)
        assert no_use_case_was_called(edge)
    assert refusal.code is CODE.UNAVAILABLE
    assert refusal.reason == ""


@pytest.mark.asyncio
async def test_agents_listener_refuses_plaintext():
    async with running_edge() as edge:
        address = edge.address("agents")
        async with grpc.aio.insecure_channel(address) as channel:
            refusal = await refusal_of(channel, AUTHENTICATE)
        assert no_use_case_was_called(edge)
    assert refusal.code is CODE.UNAVAILABLE


@pytest.mark.asyncio
async def test_agent_refuses_a_node_of_another_authority():
    async with running_edge() as edge, edge.agents(ca=STRANGERS) as channel:
        refusal = await refusal_of(channel, AUTHENTICATE)
    assert refusal.code is CODE.UNAVAILABLE


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "names",
    [
        (),
        ("uri:a://1", "uri:a://2"),
        ("dns:a.example", "dns:b.example"),
        ("ip:192.0.2.1",),
    ],
)
async def test_certificate_must_name_exactly_one_agent(names):
    own = AGENTS.issue("vpn", [san(name) for name in names], now=NOW)
    async with running_edge() as edge, edge.agents(own) as channel:
        refusal = await refusal_of(channel, AUTHENTICATE)
        assert no_use_case_was_called(edge)
    assert (refusal.code, refusal.reason) == (CODE.UNAUTHENTICATED, "CERTIFICATE")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("names", "identity"),
    [
        (("uri:sparecode://agent/a",), "sparecode://agent/a"),
        (("dns:a.example",), "a.example"),
        (("uri:a://1", "dns:a.example", "dns:b.example"), "a://1"),
    ],
)
async def test_identity_is_the_only_uri_or_else_the_only_dns_name(names, identity):
    own = AGENTS.issue("someone else", [san(name) for name in names], now=NOW)
    async with running_edge() as edge:
        edge.services["authentication"].answer = AgentAnswer(
            decision=Decision.REFUSED, authentication_id="a"
        )
        async with edge.agents(own) as channel:
            await call(channel, AUTHENTICATE)
    (recorded,) = edge.services["authentication"].calls
    assert recorded.context.caller.identity == identity


def san(name: str) -> x509.GeneralName:
    kind, _, value = name.partition(":")
    if kind == "uri":
        return x509.UniformResourceIdentifier(value)
    if kind == "dns":
        return x509.DNSName(value)
    return x509.RFC822Name("a@example.net")


def test_identity_must_be_ascii_and_within_its_length():
    for names in ([b""], [b"x" * 257], [b"\xff"]):
        with pytest.raises(UnidentifiedError):
            agent_identity({"peer_uri": names})


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ADMIN_METHODS)
async def test_administration_does_not_exist_for_agents(method):
    """Neither the agent's certificate nor an administrator's session helps."""
    async with running_edge() as edge, edge.agents() as channel:
        refusal = await refusal_of(channel, method, metadata=BEARER)
        assert no_use_case_was_called(edge)
    assert refusal.code is CODE.UNIMPLEMENTED


@pytest.mark.asyncio
async def test_authentication_does_not_exist_for_administrators():
    async with running_edge() as edge, edge.admin() as channel:
        refusal = await refusal_of(channel, AUTHENTICATE, metadata=BEARER)
        assert no_use_case_was_called(edge)
    assert refusal.code is CODE.UNIMPLEMENTED


@pytest.mark.asyncio
@pytest.mark.parametrize("method", SESSION_METHODS)
async def test_admin_listener_ignores_agent_certificates(method):
    """
    The listener does not request certificates, so the caller is anonymous.

    The use case receives an anonymous caller, and refuses.
    """
    async with running_edge() as edge:
        for service in edge.services.values():
            service.answer = NotSignedInError()
        async with edge.admin(own=AGENT) as channel:
            refusal = await refusal_of(channel, method)
        (recorded,) = (each for one in edge.services.values() for each in one.calls)
    assert recorded.context.caller == Anonymous()
    assert (refusal.code, refusal.reason) == (CODE.UNAUTHENTICATED, "SESSION_ENDED")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", ""),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer  "),),
        (("authorization", "Basic cm9vdDpyb290"),),
        (("authorization", "s3cret-bearer"),),
        (("authorization", "Bearer a"), ("authorization", "Bearer b")),
    ],
)
@pytest.mark.parametrize("method", SESSION_METHODS[:1] + SESSION_METHODS[-1:])
async def test_malformed_bearer_header_is_refused_at_once(method, metadata):
    async with running_edge() as edge, edge.admin() as channel:
        refusal = await refusal_of(channel, method, metadata=metadata)
        assert no_use_case_was_called(edge)
    assert (refusal.code, refusal.reason) == (CODE.UNAUTHENTICATED, "SESSION_ENDED")
    assert "authorization: Bearer" in refusal.words


@pytest.mark.asyncio
async def test_sign_in_ignores_an_ended_session():
    """A caller that still sends an old session must be able to open a new one."""
    async with running_edge() as edge:
        edge.services["sessions"].answer = NotSignedInError()
        async with edge.admin() as channel:
            await refusal_of(channel, LOGIN, metadata=BEARER)
    (recorded,) = edge.services["sessions"].calls
    assert recorded.context.caller == Anonymous()
