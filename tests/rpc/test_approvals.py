# SPDX-License-Identifier: Apache-2.0
"""Approvals at the edge: a refusal names the approval that is needed (P3)."""

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sparecode.v1 import policy_pb2
from sparecode.v1.policy_pb2_grpc import PolicyServiceStub
from sparecode_node.services.errors import ApprovalNeededError
from tests.rpc.contract import ID
from tests.rpc.edge import BEARER, failure, running_edge

pytestmark = pytest.mark.asyncio


async def test_refusal_carries_the_number_of_the_needed_approval():
    """(P3) Programs read it in the metadata of `ErrorInfo`."""
    async with running_edge() as edge, edge.admin() as channel:
        edge.services["policies"].answer = ApprovalNeededError(7)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await PolicyServiceStub(channel).UpdatePolicy(
                policy_pb2.UpdatePolicyRequest(request_id=ID),
                timeout=60,
                metadata=BEARER,
            )
    report = failure(raised.value)
    assert (report.code, report.reason) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "APPROVAL_NEEDED",
    )
    assert "approval 7" in report.words
    info = error_details_pb2.ErrorInfo()
    assert rpc_status.from_call(raised.value).details[0].Unpack(info)
    assert dict(info.metadata) == {"approval_id": "7"}
