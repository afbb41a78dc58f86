# SPDX-License-Identifier: Apache-2.0
"""Every method with every wrong kind of credential: nothing gets through."""

import grpc
import pytest
from cryptography import x509

from sparecode_node.rpc.errors import UnidentifiedError
from sparecode_node.rpc.identity import agent_identity
from sparecode_node.services.context import Anonymous
from sparecode_node.services.errors import NotSignedInError
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
from tests.rpc.test_methods import CASES, STUBS

CODE = grpc.StatusCode
ADMIN_CASES = [c for c in CASES if c.service != "AuthenticationService"]
SESSION_CASES = [c for c in ADMIN_CASES if c.method != "SessionService/Login"]
(AUTHENTICATE,) = [c for c in CASES if c.method.endswith("/Authenticate")]


async def refusal_of(channel, case, metadata=None):
    """Call the method of *case*, which must fail."""
    method = getattr(STUBS[case.service][0](channel), case.method.partition("/")[2])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await method(case.request, timeout=5, metadata=metadata)
    return failure(caught.value)


def asked_nothing(edge) -> bool:
    return not any(service.asked for service in edge.services.values())


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
async def test_agents_listener_lets_nobody_else_in(what, own):
    async with running_edge() as edge, edge.agents(own) as channel:
        found = await refusal_of(channel, AUTHENTICATE, metadata=BEARER)
        assert asked_nothing(edge)
    assert found.code is CODE.UNAVAILABLE
    assert found.reason == ""


@pytest.mark.asyncio
async def test_agents_listener_takes_no_plaintext():
    async with running_edge() as edge:
        address = edge.address("agents")
        async with grpc.aio.insecure_channel(address) as channel:
            found = await refusal_of(channel, AUTHENTICATE)
        assert asked_nothing(edge)
    assert found.code is CODE.UNAVAILABLE


@pytest.mark.asyncio
async def test_agent_does_not_take_a_stranger_for_a_node():
    async with running_edge() as edge, edge.agents(ca=STRANGERS) as channel:
        found = await refusal_of(channel, AUTHENTICATE)
    assert found.code is CODE.UNAVAILABLE


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
        found = await refusal_of(channel, AUTHENTICATE)
        assert asked_nothing(edge)
    assert (found.code, found.reason) == (CODE.UNAUTHENTICATED, "CERTIFICATE")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("names", "identity"),
    [
        (("uri:sparecode://agent/a",), "sparecode://agent/a"),
        (("dns:a.example",), "a.example"),
        (("uri:a://1", "dns:a.example", "dns:b.example"), "a://1"),
    ],
)
async def test_identity_is_the_one_uri_or_else_the_one_dns_name(names, identity):
    own = AGENTS.issue("someone else", [san(name) for name in names], now=NOW)
    async with running_edge() as edge:
        edge.services["authentication"].answer = AUTHENTICATE.answer
        async with edge.agents(own) as channel:
            stub = STUBS[AUTHENTICATE.service][0](channel)
            await stub.Authenticate(AUTHENTICATE.request, timeout=5)
    (asked,) = edge.services["authentication"].asked
    assert asked.context.caller.identity == identity


def san(name: str) -> x509.GeneralName:
    kind, _, value = name.partition(":")
    if kind == "uri":
        return x509.UniformResourceIdentifier(value)
    if kind == "dns":
        return x509.DNSName(value)
    return x509.RFC822Name("a@example.net")


def test_identity_of_strange_length_or_letters_is_none():
    for names in ([b""], [b"x" * 257], [b"\xff"]):
        with pytest.raises(UnidentifiedError):
            agent_identity({"peer_uri": names})


@pytest.mark.asyncio
@pytest.mark.parametrize("case", ADMIN_CASES, ids=lambda case: case.method)
async def test_administration_does_not_exist_for_agents(case):
    """Neither the agent's certificate nor an administrator's bearer helps there."""
    async with running_edge() as edge, edge.agents() as channel:
        found = await refusal_of(channel, case, metadata=BEARER)
        assert asked_nothing(edge)
    assert found.code is CODE.UNIMPLEMENTED


@pytest.mark.asyncio
async def test_authentication_does_not_exist_for_administrators():
    async with running_edge() as edge, edge.admin() as channel:
        found = await refusal_of(channel, AUTHENTICATE, metadata=BEARER)
        assert asked_nothing(edge)
    assert found.code is CODE.UNIMPLEMENTED


@pytest.mark.asyncio
@pytest.mark.parametrize("case", SESSION_CASES, ids=lambda case: case.method)
async def test_agent_certificate_is_nobody_on_the_admin_listener(case):
    """
    The listener does not ask for certificates, so there is nothing to show one to.

    The use case is told that nobody has signed in, and refuses.
    """
    async with running_edge() as edge:
        for service in edge.services.values():
            service.answer = NotSignedInError()
        async with edge.admin(own=AGENT) as channel:
            found = await refusal_of(channel, case)
        (asked,) = edge.services[case.asked_of or STUBS[case.service][1]].asked
    assert asked.context.caller == Anonymous()
    assert (found.code, found.reason) == (CODE.UNAUTHENTICATED, "SESSION_ENDED")


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
@pytest.mark.parametrize("case", SESSION_CASES[:1] + SESSION_CASES[-1:])
async def test_header_that_is_no_bearer_is_refused_at_once(case, metadata):
    async with running_edge() as edge, edge.admin() as channel:
        found = await refusal_of(channel, case, metadata=metadata)
        assert asked_nothing(edge)
    assert (found.code, found.reason) == (CODE.UNAUTHENTICATED, "SESSION_ENDED")
    assert "authorization: Bearer" in found.words


@pytest.mark.asyncio
async def test_signing_in_ignores_a_session_that_has_ended():
    """Who has an old session in the pocket must be able to get a new one."""
    (login,) = [c for c in CASES if c.method == "SessionService/Login"]
    async with running_edge() as edge:
        edge.services["sessions"].answer = login.answer
        async with edge.admin() as channel:
            stub = STUBS[login.service][0](channel)
            await stub.Login(login.request, timeout=5, metadata=BEARER)
    (asked,) = edge.services["sessions"].asked
    assert asked.context.caller == Anonymous()
