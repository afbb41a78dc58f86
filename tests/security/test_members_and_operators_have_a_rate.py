# SPDX-License-Identifier: Apache-2.0
"""
The holder of a ticket and an operator keep no cluster busy (Q3, P5).

Each request to join passes the log, and each transfer interrupts calls for a moment.
"""

from pathlib import Path

import grpc
import pytest

from sparecode.v1 import cluster_pb2 as pb
from sparecode.v1.cluster_pb2_grpc import ClusterServiceStub
from sparecode_node.membership.certificates import Issued
from sparecode_node.services.secrets.tickets import door_of
from tests.rpc.edge import failure
from tests.rpc.loopback_node import new_id, running_node
from tests.security.administrators import OPERATOR, administrator
from tests.security.test_a_member_passes_a_joiner_on import cluster, request_of, stub

pytestmark = pytest.mark.asyncio


async def test_a_ticket_joins_ten_times_at_once(tmp_path: Path) -> None:
    """(P5, Q3) Refusals of a ticket take no row of the request table, either."""
    async with cluster(tmp_path) as running:
        ticket = await running.ticket()
        door = door_of(ticket.secret, ticket.node_id)
        running.node.clock.now += 16 * 60_000  # It has expired.
        reasons = []
        own = Issued(door.certificate_pem, door.key_pem)
        async with stub(running.authority, own) as authority:
            for _ in range(12):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await authority.Join(request_of(ticket, door.key), timeout=60)
                reasons.append(failure(raised.value).reason)
        assert reasons == ["TICKET_ENDED"] * 10 + ["RATE"] * 2
        rows = running.node.primary_db.execute(
            "SELECT count(*) FROM requests WHERE method = 'JoiningService/Join'"
        )
        assert rows.fetchone() == (0,)


async def test_an_operator_transfers_the_primary_five_times_at_once(
    tmp_path: Path,
) -> None:
    """(Q3)."""
    async with running_node(tmp_path) as node:
        operator = await administrator(node, "ops", OPERATOR)
        reasons = []
        for _ in range(6):
            request = pb.TransferPrimaryRequest(request_id=new_id(), target="n9")
            refused = await operator.refused(
                ClusterServiceStub, "TransferPrimary", request
            )
            reasons.append(refused.reason)
        assert reasons == ["MEMBER_UNKNOWN"] * 5 + ["RATE"]
