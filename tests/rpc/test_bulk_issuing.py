# SPDX-License-Identifier: Apache-2.0
"""`BulkIssueTokencodes`: a stream of results, translated and held to the caller's time."""

from pathlib import Path

import grpc
import pytest
from google.protobuf import duration_pb2

from sparecode.v1 import emergency_access_pb2 as pb
from sparecode.v1 import types_pb2
from sparecode.v1.emergency_access_pb2_grpc import EmergencyAccessServiceStub
from sparecode_node.domain.emergency_access import RecoveryPolicy
from sparecode_node.services.emergency.bulk_issuing import BulkResult, BulkRow
from sparecode_node.services.emergency.issuing import Lifetime, ShownCode, Wish
from sparecode_node.statemachine.results import EmergencyAccessSaved
from tests.rpc.edge import BEARER, failure, running_edge
from tests.rpc.whole import new_id, running_whole

pytestmark = pytest.mark.asyncio

SAVED = EmergencyAccessSaved(
    index=7,
    at_ms=1000,
    set_id="set-1",
    codes=1,
    live_codes=1,
    voided_codes=0,
    ends_at_ms=None,
    pin_missing_warning=False,
)
REQUEST = pb.BulkIssueTokencodesRequest(
    request_id="6f1e7c5e-0000-4000-8000-000000000001",
    rows=[
        pb.BulkIssueRow(row=1, serial="1"),
        pb.BulkIssueRow(row=3, serial="2", count=4),
    ],
    count=5,
    lifetime=pb.Lifetime(duration=duration_pb2.Duration(seconds=60)),
    recovery_policy=types_pb2.RECOVERY_POLICY_ALLOW_AND_DISABLE,
    weaken_recovery_policy=True,
)


async def test_bulk_issue_is_translated_both_ways():
    async def told():
        async def results():
            yield BulkResult(
                row=1,
                serial="1",
                username="Alice",
                saved=SAVED,
                codes=(ShownCode(ordinal=1, code="K7PM-4XQ2"),),
            )
            yield BulkResult(row=3, serial="2", saved=SAVED, withheld=True)
            yield BulkResult(row=4, serial="4", reason="TOKEN_EXPIRED", problem="old")

        return results()

    async with running_edge() as edge, edge.admin() as channel:
        edge.services["bulk"].answer = told
        call = EmergencyAccessServiceStub(channel).BulkIssueTokencodes(
            REQUEST, timeout=5, metadata=BEARER
        )
        first, second, third = [answer async for answer in call]
    (asked,) = edge.services["bulk"].asked
    assert asked.context.method == "EmergencyAccessService/BulkIssueTokencodes"
    assert asked.context.request_id == REQUEST.request_id
    assert asked.arguments == {
        "rows": [
            BulkRow(row=1, serial="1", count=None),
            BulkRow(row=3, serial="2", count=4),
        ],
        "count": 5,
        "wish": Wish(
            lifetime=Lifetime(duration_ms=60_000),
            recovery=RecoveryPolicy.ALLOW_AND_DISABLE,
            keep_unused_codes=False,
            weaken_recovery_policy=True,
        ),
    }
    assert (first.row, first.serial, first.username) == (1, "1", "Alice")
    assert first.saved.commit.index == 7
    assert [(code.ordinal, code.code) for code in first.codes] == [(1, "K7PM-4XQ2")]
    assert (second.codes_withheld, list(second.codes)) == (True, [])
    assert third == pb.BulkIssueTokencodesResponse(
        row=4, serial="4", reason="TOKEN_EXPIRED", problem="old"
    )


async def test_bulk_issue_through_the_edge(tmp_path: Path):
    """(I9) A whole node; asked again under the id, it shows no code a second time."""
    request = pb.BulkIssueTokencodesRequest(
        request_id=new_id(),
        rows=[pb.BulkIssueRow(row=1, serial="1"), pb.BulkIssueRow(row=2, serial="2")],
        count=3,
    )
    async with running_whole(tmp_path) as whole, whole.admin() as channel:
        await whole.populate()
        stub = EmergencyAccessServiceStub(channel)

        async def answers():
            call = stub.BulkIssueTokencodes(request, timeout=5, metadata=whole.bearer)
            return [answer async for answer in call]

        issued, refused = await answers()
        assert len(issued.codes) == 3
        assert refused.reason == "TOKEN_UNKNOWN"
        again, _ = await answers()
        assert again.codes_withheld
        assert not again.codes
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            async for _ in stub.BulkIssueTokencodes(request, timeout=5):
                pass
    assert failure(raised.value).reason == "SESSION_ENDED"
