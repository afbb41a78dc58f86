# SPDX-License-Identifier: Apache-2.0
"""`BulkIssueTokencodes` on a node: a stream of results."""

from pathlib import Path

import grpc
import pytest

from sparecode.v1 import emergency_access_pb2 as pb
from sparecode.v1.emergency_access_pb2_grpc import EmergencyAccessServiceStub
from tests.rpc.edge import failure
from tests.rpc.loopback_node import new_id, running_node

pytestmark = pytest.mark.asyncio


async def test_bulk_issue_shows_each_code_only_once(tmp_path: Path):
    """(I9) On a real node, a retry with the same request ID shows no code again."""
    request = pb.BulkIssueTokencodesRequest(
        request_id=new_id(),
        rows=[pb.BulkIssueRow(row=1, serial="1"), pb.BulkIssueRow(row=2, serial="2")],
        count=3,
    )
    async with running_node(tmp_path) as node, node.admin() as channel:
        await node.populate()
        stub = EmergencyAccessServiceStub(channel)

        async def answers():
            call = stub.BulkIssueTokencodes(request, timeout=60, metadata=node.bearer)
            return [answer async for answer in call]

        issued, refused = await answers()
        assert len(issued.codes) == 3
        assert refused.reason == "TOKEN_UNKNOWN"
        again, _ = await answers()
        assert again.codes_withheld
        assert not again.codes
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for _ in stub.BulkIssueTokencodes(request, timeout=60):
                pass
    assert failure(raised.value).reason == "SESSION_ENDED"
