# SPDX-License-Identifier: Apache-2.0
"""Limits: deadlines, sizes, concurrent calls; reflection is off by default."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from sparecode.v1 import (
    authentication_pb2,
    authentication_pb2_grpc,
    users_pb2,
    users_pb2_grpc,
)
from sparecode_node.rpc.calls import DEADLINE_DEFAULT_S, DEADLINE_MAX_S
from sparecode_node.rpc.server import HARD, ListenError, Listeners, ListenerSettings
from sparecode_node.services import fields
from sparecode_node.services.ambient import SystemClock
from sparecode_node.services.authentication.decisions import AgentAnswer
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.load.open_calls import CallLimits
from sparecode_node.services.use_cases import Services
from sparecode_node.statemachine.results import Applied, Decision
from tests.rpc.edge import BEARER, MEMBER, failure, running_edge, settings

CODE = grpc.StatusCode


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("timeout_s", "at_most"),
    [(None, DEADLINE_DEFAULT_S), (20, 20), (3600, DEADLINE_MAX_S)],
)
async def test_use_case_gets_slightly_less_time_than_the_caller(timeout_s, at_most):
    """The answer can then still arrive in time."""
    async with running_edge() as edge, edge.admin() as channel:
        edge.services["users"].answer = Applied(index=1)
        stub = users_pb2_grpc.UserServiceStub(channel)
        await stub.CreateUser(
            users_pb2.CreateUserRequest(), timeout=timeout_s, metadata=BEARER
        )
    (recorded,) = edge.services["users"].calls
    # A busy machine may need seconds until the call begins.
    assert at_most - 5 < recorded.context.deadline_s < at_most


@pytest.mark.asyncio
async def test_call_without_a_deadline_still_ends(monkeypatch):
    monkeypatch.setattr("sparecode_node.rpc.calls.DEADLINE_DEFAULT_S", 0.5)

    async def hang() -> None:
        await asyncio.Event().wait()

    async with running_edge() as edge, edge.admin() as channel:
        edge.services["users"].answer = hang
        stub = users_pb2_grpc.UserServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CreateUser(users_pb2.CreateUserRequest(), metadata=BEARER)
    refusal = failure(caught.value)
    assert (refusal.code, refusal.reason) == (CODE.DEADLINE_EXCEEDED, "OUTCOME_UNKNOWN")
    assert "same request_id" in refusal.words


@pytest.mark.asyncio
async def test_call_with_no_time_left_does_not_begin(monkeypatch):
    monkeypatch.setattr("sparecode_node.rpc.interceptors._TIME_FLOOR_S", 600)
    async with running_edge() as edge, edge.admin() as channel:
        stub = users_pb2_grpc.UserServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CreateUser(
                users_pb2.CreateUserRequest(), timeout=60, metadata=BEARER
            )
        assert not edge.services["users"].calls
    refusal = failure(caught.value)
    assert (refusal.code, refusal.reason) == (CODE.DEADLINE_EXCEEDED, "DEADLINE")


@pytest.mark.asyncio
async def test_agents_listener_limits_requests_to_64_kib():
    async with running_edge() as edge, edge.agents() as channel:
        stub = authentication_pb2_grpc.AuthenticationServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Authenticate(
                authentication_pb2.AuthenticateRequest(passcode="7" * 65 * 1024),
                timeout=60,
            )
        assert not edge.services["authentication"].calls
    assert caught.value.code() is CODE.RESOURCE_EXHAUSTED


@pytest.mark.asyncio
async def test_headers_have_a_size_limit():
    huge = (("authorization", "Bearer " + "A" * 17 * 1024),)
    async with running_edge() as edge, edge.admin() as channel:
        stub = users_pb2_grpc.UserServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.CreateUser(
                users_pb2.CreateUserRequest(), timeout=60, metadata=huge
            )
        assert not edge.services["users"].calls
    assert caught.value.code() is CODE.RESOURCE_EXHAUSTED


@pytest.mark.asyncio
async def test_methods_are_not_listed_unless_configured():
    async def listed(edge) -> set[str]:
        async with edge.admin() as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            call = stub.ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="*")])
            )
            async for response in call:
                return {s.name for s in response.list_services_response.service}
        raise AssertionError("no answer")

    async with running_edge() as edge:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await listed(edge)
        assert caught.value.code() is CODE.UNIMPLEMENTED
    async with running_edge(reflection=True) as edge:
        names = await listed(edge)
    assert "sparecode.v1.EmergencyAccessService" in names
    assert "sparecode.v1.AuthenticationService" not in names


@pytest.mark.asyncio
async def test_port_in_use_is_named_with_the_reason():
    async with running_edge() as edge:
        taken = edge.address("admin")
        second = Listeners(
            node_id="n2",
            agents=settings(mutual=True),
            admin=ListenerSettings(address=taken, tls=settings(mutual=False).tls),
            services=Services(**edge.services),
            refusals=edge.refusals,
            is_ready=lambda: False,
            clock=SystemClock(),
        )
        with pytest.raises(ListenError) as caught:
            await second.start()
    assert str(caught.value) == (
        f"[admin] listen {taken}: cannot listen: Address already in use"
    )


@pytest.mark.asyncio
async def test_running_call_ends_before_the_listeners_close():
    """Stopping is graceful: running calls get their answers."""
    begun, finish = asyncio.Event(), asyncio.Event()

    async def slow() -> AgentAnswer:
        begun.set()
        await finish.wait()
        return AgentAnswer(decision=Decision.ACCEPTED, authentication_id="a")

    async with running_edge() as edge, edge.agents() as channel:
        edge.services["authentication"].answer = slow
        stub = authentication_pb2_grpc.AuthenticationServiceStub(channel)
        call = asyncio.ensure_future(
            stub.Authenticate(authentication_pb2.AuthenticateRequest(), timeout=60)
        )
        await begun.wait()
        stopping = asyncio.create_task(edge.listeners.stop(grace_s=5))
        await asyncio.sleep(0)
        finish.set()
        response = await call
        await stopping
    assert response.decision == authentication_pb2.AUTHENTICATION_DECISION_ACCEPTED


def test_private_key_is_not_in_the_repr():
    assert MEMBER.key.decode() not in repr(settings(mutual=True))


@pytest.mark.asyncio
@pytest.mark.parametrize("listener", ["agents", "admin"])
async def test_calls_beyond_the_limit_are_shed_with_a_hint(monkeypatch, listener):
    """They are refused before any work is done, and the other calls go on."""
    monkeypatch.setattr("sparecode_node.rpc.server.AGENT_CALLS", CallLimits(calls=3))
    monkeypatch.setattr("sparecode_node.rpc.server.ADMIN_CALLS", CallLimits(calls=3))
    release, begun = asyncio.Event(), asyncio.Semaphore(0)
    admin = listener == "admin"
    done = (
        Applied(index=1)
        if admin
        else AgentAnswer(decision=Decision.ACCEPTED, authentication_id="a")
    )

    async def hang() -> Applied | AgentAnswer:
        begun.release()
        await release.wait()
        return done

    async with running_edge() as edge, getattr(edge, listener)() as channel:
        service = edge.services["users" if admin else "authentication"]
        service.answer = hang

        def call():
            if admin:
                stub = users_pb2_grpc.UserServiceStub(channel)
                request = users_pb2.CreateUserRequest()
                return stub.CreateUser(request, timeout=60, metadata=BEARER)
            stub = authentication_pb2_grpc.AuthenticationServiceStub(channel)
            request = authentication_pb2.AuthenticateRequest(username="u")
            return stub.Authenticate(request, timeout=60)

        calls = [call() for _ in range(3)]
        for _ in calls:
            await begun.acquire()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call()
        assert len(service.calls) == 3
        release.set()
        await asyncio.gather(*calls, call())
    refusal = failure(caught.value)
    assert (refusal.code, refusal.reason) == (CODE.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert refusal.retry_s


@pytest.mark.asyncio
async def test_calls_without_a_request_are_limited(monkeypatch):
    """No code of Sparecode runs before a request arrives, so gRPC must count them."""
    monkeypatch.setattr("sparecode_node.rpc.server.ADMIN_CALLS", CallLimits(calls=2))
    async with running_edge() as edge, edge.admin() as silent, edge.admin() as channel:
        method = silent.stream_unary("/sparecode.v1.UserService/CreateUser")
        calls = [method() for _ in range(2 * HARD)]
        check = health_pb2_grpc.HealthStub(channel).Check
        async with asyncio.timeout(60):
            while await answered(check(health_pb2.HealthCheckRequest())):
                # One of the silent may have come beside a check, and been refused.
                calls.append(method())
        for each in calls:
            each.cancel()
        async with asyncio.timeout(60):
            while not await answered(check(health_pb2.HealthCheckRequest())):
                pass
        assert await answered(check(health_pb2.HealthCheckRequest()))


async def answered(call) -> bool:
    """Return whether the call was answered and not shed."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if error.code() is not CODE.RESOURCE_EXHAUSTED:
            raise
        return False
    return True


@pytest.mark.asyncio
async def test_call_is_shed_before_its_request_is_read():
    """Shedding must be cheaper than answering, and must not wait."""

    async def never():
        await asyncio.Event().wait()
        yield b""

    method = "/sparecode.v1.AuthenticationService/"
    async with running_edge() as edge, edge.agents() as channel:
        edge.services["authentication"].full = True
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary(f"{method}Authenticate")(never(), timeout=60)
        assert not edge.services["authentication"].calls
        # The next step of who was admitted may need no hash.
        edge.services["continuation"].answer = AgentAnswer(
            decision=Decision.ACCEPTED, authentication_id="a"
        )
        stub = authentication_pb2_grpc.AuthenticationServiceStub(channel)
        await stub.ContinueAuthentication(
            authentication_pb2.ContinueAuthenticationRequest(), timeout=60
        )
    refusal = failure(caught.value)
    assert (refusal.code, refusal.reason) == (CODE.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert refusal.retry_s == pytest.approx(0.7)


@pytest.mark.asyncio
async def test_streams_per_connection_are_limited(monkeypatch):
    """The next stream waits until another one ends. Other connections do not wait."""
    monkeypatch.setattr("sparecode_node.rpc.server.STREAMS_MAX", 3)
    request = health_pb2.HealthCheckRequest()
    async with (
        running_edge() as edge,
        edge.agents() as crowded,
        edge.agents() as other,
    ):
        crowded_stub = health_pb2_grpc.HealthStub(crowded)
        watches = [crowded_stub.Watch(request) for _ in range(3)]
        for watch in watches:
            await watch.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await crowded_stub.Check(request, timeout=0.3)
        await health_pb2_grpc.HealthStub(other).Check(request, timeout=60)
        watches[0].cancel()
        await crowded_stub.Check(request, timeout=60, wait_for_ready=True)
    assert caught.value.code() is CODE.DEADLINE_EXCEEDED


@pytest.mark.asyncio
async def test_page_size_is_limited():
    """For users, tokens and audit events: all of them use `fields.page_size`."""
    assert fields.page_size(0) == fields.PAGE_SIZE_DEFAULT
    assert fields.page_size(fields.PAGE_SIZE_MAX) == fields.PAGE_SIZE_MAX
    for wrong in (-1, fields.PAGE_SIZE_MAX + 1):
        with pytest.raises(InvalidFieldError, match="page_size"):
            fields.page_size(wrong)
