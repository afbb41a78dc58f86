# SPDX-License-Identifier: Apache-2.0
"""Approvals at the edge: translated both ways, and named where one is needed (P3)."""

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sparecode.v1 import administrators_pb2 as pb
from sparecode.v1 import policy_pb2
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode.v1.policy_pb2_grpc import PolicyServiceStub
from sparecode_node.queries.approvals import ApprovalView
from sparecode_node.queries.views import Page
from sparecode_node.services.errors import ApprovalNeededError
from tests.rpc.edge import BEARER, failure, running_edge
from tests.rpc.test_methods import APPLIED, COMMIT, ID, PAGE, POSITION, read

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize(
    ("method", "request_class", "name"),
    [("Approve", pb.ApproveRequest, "approve"), ("Reject", pb.RejectRequest, "reject")],
)
async def test_decisions_are_translated(method, request_class, name):
    async with running_edge() as edge, edge.admin() as channel:
        edge.services["approvals"].answer = APPLIED
        answer = await getattr(AdministratorServiceStub(channel), method)(
            request_class(request_id=ID, approval_id=7), timeout=5, metadata=BEARER
        )
    (asked,) = edge.services["approvals"].asked
    assert (asked.name, asked.arguments) == (name, {"approval_id": 7})
    assert asked.context.method == f"AdministratorService/{method}"
    assert asked.context.request_id == ID
    assert answer.commit == COMMIT


async def test_approvals_are_listed():
    view = ApprovalView(
        approval_id=7,
        author="root",
        action="RequestBulkIssue",
        target="2 tokens",
        said="codes for 2 tokens",
        serials=("1", "2"),
        asked_at_ms=1_000,
        ends_at_ms=2_000,
        approver="eve",
    )
    async with running_edge() as edge, edge.admin() as channel:
        edge.services["approvals"].answer = read(
            Page(items=(view,), next_page_token="n")
        )
        answer = await AdministratorServiceStub(channel).ListApprovals(
            pb.ListApprovalsRequest(**PAGE), timeout=5, metadata=BEARER
        )
    (asked,) = edge.services["approvals"].asked
    assert (asked.name, asked.arguments) == ("list", PAGE)
    (approval,) = answer.approvals
    assert (approval.approval_id, approval.author, approval.approver) == (
        7,
        "root",
        "eve",
    )
    assert list(approval.serials) == ["1", "2"]
    assert approval.ask_time.seconds == 1
    assert approval.end_time.seconds == 2
    assert (answer.next_page_token, answer.position) == ("n", POSITION)


async def test_who_needs_an_approval_is_told_its_number():
    """(P3) As a program reads it: in the metadata of `ErrorInfo`."""
    async with running_edge() as edge, edge.admin() as channel:
        edge.services["policies"].answer = ApprovalNeededError(7)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await PolicyServiceStub(channel).UpdatePolicy(
                policy_pb2.UpdatePolicyRequest(request_id=ID),
                timeout=5,
                metadata=BEARER,
            )
    told = failure(raised.value)
    assert (told.code, told.reason) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "APPROVAL_NEEDED",
    )
    assert "approval 7" in told.words
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(raised.value).details[0].Unpack(info)
    assert dict(info.metadata) == {"approval_id": "7"}
