# SPDX-License-Identifier: Apache-2.0
"""Health on both public listeners: alive, and ready to serve."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sparecode_node.services.load.open_calls import CallLimits
from tests.rpc.edge import running_edge

Status = health_pb2.HealthCheckResponse


async def check(channel, service: str) -> int:
    stub = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    return (await stub.Check(request, timeout=60)).status


@pytest.mark.asyncio
@pytest.mark.parametrize("listener", ["agents", "admin"])
async def test_node_without_a_quorum_is_alive_and_not_ready(listener):
    async with running_edge() as edge, getattr(edge, listener)() as channel:
        assert await check(channel, "") == Status.SERVING
        assert await check(channel, "sparecode.ready") == Status.NOT_SERVING


@pytest.mark.asyncio
@pytest.mark.parametrize("listener", ["agents", "admin"])
async def test_list_names_every_service_and_logs_nothing(listener, caplog):
    """Anyone may call it: a method that is missing logged a traceback each time."""
    async with running_edge() as edge, getattr(edge, listener)() as channel:
        answer = await health_pb2_grpc.HealthStub(channel).List(
            health_pb2.HealthListRequest(), timeout=60
        )
    assert {name: each.status for name, each in answer.statuses.items()} == {
        "": Status.SERVING,
        "sparecode.ready": Status.NOT_SERVING,
    }
    assert "Traceback" not in caplog.text


@pytest.mark.asyncio
async def test_watcher_receives_every_change_of_readiness():
    async with running_edge() as edge, edge.admin() as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service="sparecode.ready"), timeout=60
        )
        statuses = []
        async for response in watch:
            statuses.append(response.status)
            edge.ready[0] = not edge.ready[0]
            if len(statuses) == 3:
                break
        assert await check(channel, "") == Status.SERVING
    assert statuses == [Status.NOT_SERVING, Status.SERVING, Status.NOT_SERVING]


@pytest.mark.asyncio
async def test_watch_ends_when_the_node_stops():
    """Otherwise every watcher would delay the stop for the full grace period."""
    async with running_edge() as edge, edge.admin() as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=60
        )
        reading = aiter(watch)
        first = await anext(reading)
        async with asyncio.timeout(60):
            await edge.listeners.stop(grace_s=60)
            rest = [response.status async for response in reading]
    assert first.status == Status.SERVING
    assert rest == [Status.NOT_SERVING]


@pytest.mark.asyncio
async def test_watcher_that_does_not_read_delays_no_other():
    async with running_edge() as edge, edge.admin() as idle, edge.admin() as channel:
        request = health_pb2.HealthCheckRequest(service="sparecode.ready")
        lazy = health_pb2_grpc.HealthStub(idle).Watch(request)
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=60)
        reading = aiter(watch)
        statuses = []
        for _ in range(3):
            statuses.append((await anext(reading)).status)
            edge.ready[0] = not edge.ready[0]
        lazy.cancel()
    assert statuses == [Status.NOT_SERVING, Status.SERVING, Status.NOT_SERVING]


async def watching(watch) -> bool:
    """Return whether a watch was accepted."""
    try:
        return bool(await watch.read())
    except grpc.aio.AioRpcError:
        return False


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("listener", "bound"),
    [("agents", "AGENT_CALLS"), ("admin", "ADMIN_CALLS")],
)
async def test_watchers_leave_room_for_calls(monkeypatch, listener, bound):
    """Any caller may watch forever, and watchers must not use up the room for calls."""
    monkeypatch.setattr(f"sparecode_node.rpc.server.{bound}", CallLimits(calls=2))
    request = health_pb2.HealthCheckRequest()
    async with running_edge() as edge, getattr(edge, listener)() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(request, timeout=60) for _ in range(2)]
        for watch in watches:
            await watch.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Watch(request, timeout=60).read()
        assert await check(channel, "") == Status.SERVING
        watches[0].cancel()
        # A watcher that leaves makes room for the next one.
        async with asyncio.timeout(60):
            while not await watching(stub.Watch(request)):
                pass
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "use Check" in caught.value.details()


@pytest.mark.asyncio
async def test_unknown_health_service_is_not_found():
    async with running_edge() as edge, edge.admin() as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(channel, "sparecode.raedy")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "sparecode.ready" in caught.value.details()
