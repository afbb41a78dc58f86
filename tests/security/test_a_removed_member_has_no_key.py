# SPDX-License-Identifier: Apache-2.0
"""
A removed member has had the ring's key: the removal replaces it (P6).

On request, or because the policy requires it. The removal stands in any case, and the
answer says what became of the key.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from sparecode.v1 import cluster_pb2 as pb
from sparecode.v1 import policy_pb2
from sparecode.v1.cluster_pb2_grpc import ClusterServiceStub
from sparecode.v1.policy_pb2_grpc import PolicyServiceStub
from sparecode_node.services.cluster.membership_commands import (
    MembershipCommands,
    Removal,
)
from sparecode_node.services.keys import due_rotation
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node
from tests.security.administrators import root

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    """Start a node that has admitted n4 and n5."""
    async with running_node(tmp_path) as started:
        for node_id in ("n4", "n5"):
            request = pb.AddMemberRequest(
                request_id=new_id(), node_id=node_id, address=f"{node_id}:7301"
            )
            await root(started).call(ClusterServiceStub, "AddMember", request)
        yield started


async def remove(
    node: LoopbackNode, node_id: str, *, rotate_keys: bool = False
) -> pb.RemoveMemberResponse:
    answer: pb.RemoveMemberResponse = await root(node).call(
        ClusterServiceStub,
        "RemoveMember",
        pb.RemoveMemberRequest(
            request_id=new_id(), node_id=node_id, rotate_keys=rotate_keys
        ),
    )
    return answer


def active_key(node: LoopbackNode) -> int:
    """Return the number of the ring's newest key."""
    return max(row[0] for row in node.rows()["ring_keys"])


async def test_a_removal_replaces_the_key_on_request(node: LoopbackNode) -> None:
    """(P6) Without the request, the key stays, and the administrator is told."""
    assert await remove(node, "n4") == pb.RemoveMemberResponse()
    assert active_key(node) == 1
    assert await remove(node, "n5", rotate_keys=True) == pb.RemoveMemberResponse(
        new_key_id=2
    )
    assert active_key(node) == 2


@pytest.mark.parametrize("by_policy", [False, True])
async def test_the_primary_replaces_the_key_if_the_call_is_cut_off(
    node: LoopbackNode, monkeypatch: pytest.MonkeyPatch, *, by_policy: bool
) -> None:
    """(P6) The commit of the removal records it, so the cluster continues by itself."""
    if by_policy:
        await require_rotations(node)

    async def cut_off(*_: object) -> Removal:
        return Removal(rotation_problem="cut off")

    monkeypatch.setattr(MembershipCommands, "_rotate", cut_off)
    due = node.due_rotation
    await remove(node, "n4", rotate_keys=not by_policy)
    assert await rotation_due(node) == "n4"
    assert not await due.step()  # First the call has time to do it.
    assert active_key(node) == 1
    monkeypatch.setattr(due_rotation, "WAIT_S", 0)
    assert await due.step()
    assert active_key(node) == 2
    assert await rotation_due(node) == ""
    assert not await due.step()
    assert (await node.recorded_events())[-1][:3] == (
        *("node:n1", "ActivateDueKey", "n4"),
    )


async def test_a_rotation_that_the_call_starts_is_the_due_one(
    node: LoopbackNode,
) -> None:
    """(P6) The primary adds no second one."""
    await remove(node, "n4", rotate_keys=True)
    assert await rotation_due(node) == ""


async def rotation_due(node: LoopbackNode) -> str:
    """Return what the cluster's status says."""
    request = pb.GetStatusRequest()
    answer = await root(node).call(ClusterServiceStub, "GetStatus", request)
    return str(answer.rotation_due)


async def test_the_policy_requires_it(node: LoopbackNode) -> None:
    """(P6) Then no administrator has to ask for it."""
    await require_rotations(node)
    assert (await remove(node, "n4")).new_key_id == 2
    assert active_key(node) == 2


async def require_rotations(node: LoopbackNode) -> None:
    """Set the policy; a new cluster's does not require rotations."""
    admin = root(node)
    read = await admin.call(
        PolicyServiceStub, "GetPolicy", policy_pb2.GetPolicyRequest()
    )
    assert read.policy.rotate_after_removal is False
    read.policy.rotate_after_removal = True
    await admin.call(
        PolicyServiceStub,
        "UpdatePolicy",
        policy_pb2.UpdatePolicyRequest(request_id=new_id(), policy=read.policy),
    )
