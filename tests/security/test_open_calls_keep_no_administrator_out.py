# SPDX-License-Identifier: Apache-2.0
"""Calls that one administrator keeps open leave room for the others (Q3)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from sparecode.v1 import administrators_pb2, agents_pb2, cluster_pb2, users_pb2
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode.v1.agents_pb2_grpc import AgentServiceStub
from sparecode.v1.cluster_pb2_grpc import ClusterServiceStub
from sparecode.v1.users_pb2_grpc import UserServiceStub
from sparecode_node.rpc.server import ADMIN_CALLS
from sparecode_node.services.access.authorization import NEEDS
from sparecode_node.services.load.open_calls import RESERVED_METHODS
from tests.rpc.edge import failure
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node
from tests.security.administrators import (
    OPERATOR,
    OWN,
    SUPER_ADMIN,
    SignedIn,
    administrator,
    root,
    sign_in,
)
from tests.services.one_node import UNLIMITED

pytestmark = pytest.mark.asyncio

ATTEMPTS = ADMIN_CALLS.calls + 12


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    async with running_node(tmp_path, UNLIMITED) as node:
        yield node


async def opened(call: Any) -> str:
    """Return `open` if the call sends a report; otherwise the reason of its refusal."""
    try:
        await call.read()
    except grpc.aio.AioRpcError as error:
        refusal = failure(error)
        return f"{refusal.reason}: {refusal.words}"
    return "open"


async def end_of(call: Any) -> str:
    """Read the reports of a call to the end; return the reason of its end."""
    try:
        while await call.read():
            pass
    except grpc.aio.AioRpcError as error:
        return failure(error).reason
    return ""


@contextlib.asynccontextmanager
async def watches(by: SignedIn) -> AsyncIterator[list[Any]]:
    """Open as many calls that never end as the node takes; yield those."""
    request = cluster_pb2.WatchStatusRequest()
    request.interval.FromMilliseconds(200)
    async with by.node.admin() as channel:
        stub = ClusterServiceStub(channel)
        calls = [
            stub.WatchStatus(request, timeout=60, metadata=by.bearer)
            for _ in range(ATTEMPTS)
        ]
        answers = await asyncio.gather(*map(opened, calls))
        refused = {each for each in answers if each != "open"}
        assert len(refused) == 1
        assert "too many calls open" in refused.pop()
        yield [
            call
            for call, answer in zip(calls, answers, strict=True)
            if answer == "open"
        ]


async def test_an_operator_watches_and_the_others_work(node: LoopbackNode) -> None:
    """(Q3) A super administrator signs in, denies a certificate, disables the operator."""
    operator = await administrator(node, "operator", OPERATOR)
    second = await administrator(node, "second", SUPER_ADMIN)
    async with watches(operator) as open_calls:
        assert len(open_calls) == ADMIN_CALLS.streams_of_session
        await sign_in(node, "second", OWN)
        await second.call(
            AgentServiceStub,
            "DenyCertificate",
            agents_pb2.DenyCertificateRequest(
                request_id=new_id(), serial_number="abcdef"
            ),
        )
        await second.call(
            UserServiceStub,
            "CreateUser",
            users_pb2.CreateUserRequest(request_id=new_id(), username="bob"),
        )
        await second.call(
            AdministratorServiceStub,
            "UpdateAdministrator",
            administrators_pb2.UpdateAdministratorRequest(
                request_id=new_id(), name="operator", enabled=False
            ),
        )
        for call in open_calls:
            assert await end_of(call) == "SESSION_ENDED"


async def test_more_sessions_get_no_more_from_one_address(node: LoopbackNode) -> None:
    """(Q3) An operator signs in again and again, and watches in every session."""
    await administrator(node, "operator", OPERATOR)
    counts = []
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            session = await sign_in(node, "operator", OWN)
            counts.append(len(await stack.enter_async_context(watches(session))))
        await root(node).call(
            UserServiceStub,
            "CreateUser",
            users_pb2.CreateUserRequest(request_id=new_id(), username="bob"),
        )
    assert sum(counts) == ADMIN_CALLS.streams_of_address


async def test_reserved_methods_exist() -> None:
    sign_in = {"Login", "StartBrowserLogin", "CollectBrowserLogin"}
    without_session = {f"SessionService/{each}" for each in sign_in}
    assert RESERVED_METHODS - without_session <= NEEDS.keys()
