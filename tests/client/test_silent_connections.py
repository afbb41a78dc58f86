# SPDX-License-Identifier: Apache-2.0
"""Connections to a node that die silently: TCP acknowledges, nothing arrives."""

import asyncio
import threading
from collections.abc import Callable

import pytest
from google.protobuf.message import Message
from local_cluster.cluster import free_ports

from sparecode.v1 import types_pb2, users_pb2
from sparecode_client import AsyncAdmin, Commit
from sparecode_client.connection import liveness
from sparecode_client.connection.client import Client
from tests.client.fakes import FakeNode
from tests.replication.silent_proxy import Death, before

CREATE = "UserService/CreateUser"
CREATED = users_pb2.CreateUserResponse(commit=types_pb2.Commit(node_id="n1", index=42))
COMMIT = Commit(node_id="n1", index=42)
DEADLINE_S = 60

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice after a tenth of the time."""
    for name in ("QUIET_S", "ANSWER_S"):
        monkeypatch.setattr(liveness, name, getattr(liveness, name) / 10)


async def test_a_call_over_a_dead_connection_is_repeated_over_another(
    connect: Callable[..., Client], start_node: Callable[[], FakeNode]
) -> None:
    """Also if there is no other node; with the same request id (Q1)."""

    async def answered(death: Death) -> object:
        node = start_node()
        node.answer(CREATE, CREATED)
        (front,) = (f"127.0.0.1:{port}" for port in free_ports(1))
        async with before(node.address, front) as proxy:
            admin = AsyncAdmin.over(connect(front, timeout_s=DEADLINE_S))
            await admin.create_user("alice")
            proxy.kill(death)
            commit = await admin.create_user("bob")
            tries = [request.request_id for request in node.requests(CREATE)[1:]]
            assert len(set(tries)) == 1
            return commit

    deaths = [death for death in Death if death is not Death.LENGTH_CORRUPTED]
    commits = await asyncio.gather(*map(answered, deaths))
    assert commits == [COMMIT] * len(deaths)


async def test_a_slow_node_keeps_its_connection(
    connect: Callable[..., Client],
    start_node: Callable[[], FakeNode],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It answers the question whether it lives, so its call goes on."""
    monkeypatch.setattr(liveness, "ANSWER_S", DEADLINE_S)  # Of a busy machine, too.
    node = start_node()
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    go_on = threading.Event()

    def slow(_: object) -> Message:
        loop.call_soon_threadsafe(asked.set)
        go_on.wait()
        return CREATED

    node.answer(CREATE, slow)
    (front,) = (f"127.0.0.1:{port}" for port in free_ports(1))
    async with before(node.address, front) as proxy:
        admin = AsyncAdmin.over(connect(front, timeout_s=DEADLINE_S))
        creating = asyncio.create_task(admin.create_user("alice"))
        await asked.wait()
        async with asyncio.timeout(DEADLINE_S):
            while node.checks < 2:  # noqa: ASYNC110 - in threads of the fake node.
                await asyncio.sleep(0.01)
        go_on.set()
        assert await creating == COMMIT
        assert len(node.requests(CREATE)) == 1
        assert len(proxy.connections) == 1
