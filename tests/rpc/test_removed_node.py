# SPDX-License-Identifier: Apache-2.0
"""A node that was removed from its cluster answers no call, at either port."""

import grpc
import pytest

from sparecode.v1 import (
    authentication_pb2,
    authentication_pb2_grpc,
    cluster_pb2,
    cluster_pb2_grpc,
    users_pb2,
    users_pb2_grpc,
)
from sparecode_node.rpc.errors import DOMAIN
from sparecode_node.services.cluster.status import ClusterStatus
from tests.rpc.edge import BEARER, NODE, Failure, failure, running_edge

pytestmark = pytest.mark.asyncio


async def failure_of(call: grpc.aio.Call) -> Failure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return failure(caught.value)


async def test_every_call_is_refused_before_any_use_case() -> None:
    """Passcodes, changes and stale reads; the client then uses another node."""
    async with running_edge() as edge, edge.admin() as admin, edge.agents() as agents:
        edge.removed[0] = True
        users = users_pb2_grpc.UserServiceStub(admin)
        passcodes = authentication_pb2_grpc.AuthenticationServiceStub(agents)
        for call in (
            users.GetUser(users_pb2.GetUserRequest(stale_ok=True), metadata=BEARER),
            users.CreateUser(users_pb2.CreateUserRequest(), metadata=BEARER),
            passcodes.Authenticate(authentication_pb2.AuthenticateRequest()),
        ):
            refusal = await failure_of(call)
            assert refusal.code is grpc.StatusCode.UNAVAILABLE
            assert (refusal.reason, refusal.domain) == ("REMOVED", DOMAIN)
            assert "removed from the cluster" in refusal.words
            assert refusal.retry_s is None
        assert not any(each.calls for each in edge.services.values())


async def test_stream_that_is_open_ends_with_the_removal() -> None:
    status = ClusterStatus(
        node_id=NODE,
        primary=None,
        quorum=False,
        members=(),
        cluster_id="",
        feature_level=1,
        last_backup=None,
        pending_resets=(),
        rotation_due="",
    )
    async with running_edge() as edge, edge.admin() as channel:

        async def reports():
            yield status
            edge.removed[0] = True
            yield status

        edge.services["cluster"].answer = reports()
        stub = cluster_pb2_grpc.ClusterServiceStub(channel)
        call = stub.WatchStatus(cluster_pb2.WatchStatusRequest(), metadata=BEARER)
        answers = aiter(call)
        await anext(answers)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(answers)
    assert failure(caught.value).reason == "REMOVED"
