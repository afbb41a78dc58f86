# SPDX-License-Identifier: Apache-2.0
"""Administrators and the policy over gRPC, with the real use cases."""

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from sparecode.v1 import administrators_pb2 as pb
from sparecode.v1 import policy_pb2, users_pb2
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode.v1.policy_pb2_grpc import PolicyServiceStub
from sparecode.v1.sessions_pb2 import LoginRequest
from sparecode.v1.sessions_pb2_grpc import SessionServiceStub
from sparecode.v1.users_pb2_grpc import UserServiceStub
from tests.rpc.edge import failure
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node

pytestmark = pytest.mark.asyncio
CODE = grpc.StatusCode
TEMPORARY, OWN = "a temporary password", "a password of my own"


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    """Start a node; Alice has token 1 with a PIN."""
    async with running_node(tmp_path) as started:
        await started.populate()
        yield started


async def refused(call) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    result = failure(raised.value)
    return result.code, result.reason


async def sign_in(node, password: str):
    answer = await node.call(
        SessionServiceStub,
        "Login",
        LoginRequest(request_id=new_id(), administrator="Dora", password=password),
    )
    return (("authorization", f"Bearer {answer.session}"),)


async def test_help_desk_administrator_from_creation_to_removal(node) -> None:
    """(P1, P2, I10) Temporary password, own password, role, self service, removal."""
    root = node.bearer
    await node.call(
        AdministratorServiceStub,
        "CreateAdministrator",
        pb.CreateAdministratorRequest(
            request_id=new_id(),
            name="Dora",
            role=pb.ADMINISTRATOR_ROLE_HELP_DESK,
            username="alice",
            password=TEMPORARY,
        ),
    )
    node.bearer = await sign_in(node, TEMPORARY)
    policy = (PolicyServiceStub, "GetPolicy", policy_pb2.GetPolicyRequest())
    assert await refused(node.call(*policy)) == (
        CODE.PERMISSION_DENIED,
        "PASSWORD_CHANGE_NEEDED",
    )
    await node.call(
        AdministratorServiceStub,
        "ChangePassword",
        pb.ChangePasswordRequest(
            request_id=new_id(), old_password=TEMPORARY, new_password=OWN
        ),
    )
    assert await refused(node.call(*policy)) == (
        CODE.UNAUTHENTICATED,
        "SESSION_ENDED",
    )
    node.bearer = dora = await sign_in(node, OWN)
    read = (await node.call(*policy)).policy
    update = policy_pb2.UpdatePolicyRequest(request_id=new_id(), policy=read)
    assert await refused(node.call(PolicyServiceStub, "UpdatePolicy", update)) == (
        CODE.PERMISSION_DENIED,
        "ROLE",
    )
    unlock = users_pb2.UnlockUserRequest(request_id=new_id(), username="alice")
    assert await refused(node.call(UserServiceStub, "UnlockUser", unlock)) == (
        CODE.PERMISSION_DENIED,
        "SELF_SERVICE_FORBIDDEN",
    )
    node.bearer = root
    await node.call(
        AdministratorServiceStub,
        "RemoveAdministrator",
        pb.RemoveAdministratorRequest(request_id=new_id(), name="dora"),
    )
    node.bearer = dora
    assert await refused(node.call(*policy)) == (
        CODE.UNAUTHENTICATED,
        "SESSION_ENDED",
    )
    node.bearer = root
    last = pb.RemoveAdministratorRequest(request_id=new_id(), name="root")
    assert await refused(
        node.call(AdministratorServiceStub, "RemoveAdministrator", last)
    ) == (CODE.FAILED_PRECONDITION, "LAST_SUPER_ADMIN")


async def test_policy_update_needs_the_current_version(node) -> None:
    """(I6) An old version, or codes that are too easy to guess, are refused."""
    read = (
        await node.call(PolicyServiceStub, "GetPolicy", policy_pb2.GetPolicyRequest())
    ).policy

    def request() -> policy_pb2.UpdatePolicyRequest:
        return policy_pb2.UpdatePolicyRequest(request_id=new_id(), policy=read)

    answer = await node.call(PolicyServiceStub, "UpdatePolicy", request())
    assert answer.version == read.version + 1
    assert await refused(node.call(PolicyServiceStub, "UpdatePolicy", request())) == (
        CODE.ABORTED,
        "VERSION",
    )
    read.version = answer.version
    read.code_alphabet = "2345678ABC"
    read.code_length = 6
    assert await refused(node.call(PolicyServiceStub, "UpdatePolicy", request())) == (
        CODE.FAILED_PRECONDITION,
        "GUESS_ODDS",
    )
    read.code_length = 99
    assert await refused(node.call(PolicyServiceStub, "UpdatePolicy", request())) == (
        CODE.INVALID_ARGUMENT,
        "POLICY_VALUE",
    )
