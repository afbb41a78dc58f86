# SPDX-License-Identifier: Apache-2.0
"""
An operator cannot become more than an operator, by any member or machine (P1, P3).

The attack: an operator made a ticket for a machine of their own. The machine got the
key ring and the authorities' keys, and root on it could read every seed.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from sparecode.v1 import administrators_pb2, agents_pb2, moves_pb2
from sparecode.v1 import cluster_pb2 as pb
from sparecode.v1.administrators_pb2_grpc import AdministratorServiceStub
from sparecode.v1.agents_pb2_grpc import AgentServiceStub
from sparecode.v1.cluster_pb2_grpc import ClusterServiceStub
from sparecode.v1.moves_pb2_grpc import MoveServiceStub
from tests.rpc.loopback_node import LoopbackNode, new_id, running_node
from tests.security.administrators import (
    OPERATOR,
    SUPER_ADMIN,
    SignedIn,
    administrator,
    root,
)

pytestmark = pytest.mark.asyncio

POWER = (
    (ClusterServiceStub, "CreateJoinTicket", {"node_id": "n4", "address": "n4:7301"}),
    (ClusterServiceStub, "AddMember", {"node_id": "n4", "address": "n4:7301"}),
    (ClusterServiceStub, "RemoveMember", {"node_id": "n1"}),
    (ClusterServiceStub, "DeclareSegmentsLost", {"first": 1, "reason": "mine"}),
    (ClusterServiceStub, "ConfirmArchive", {"first": 1, "last": 1, "place": "mine"}),
    (
        ClusterServiceStub,
        "WithdrawArchive",
        {"administrator": "root", "reason": "mine"},
    ),
    (ClusterServiceStub, "KeepAuthorities", {"node_id": "n1", "reason": "mine"}),
    (ClusterServiceStub, "ReplaceAuthorities", {"node_id": "n1"}),
    (ClusterServiceStub, "ReplaceAuthorities", {"node_id": "n1", "finish": True}),
    (ClusterServiceStub, "RotateKeys", {"at_once": True}),
    (
        MoveServiceStub,
        "PrepareMove",
        {
            "last_slot": 4095,
            "source": moves_pb2.MoveKey(
                cluster_id="c9", key_id=1, public_key=bytes(32)
            ),
        },
    ),
    (MoveServiceStub, "ActivateMove", {"move_id": "m1"}),
    (MoveServiceStub, "CancelMove", {"move_id": "m1"}),
    (MoveServiceStub, "DeleteMovedUsers", {"move_id": "m1"}),
    (
        AgentServiceStub,
        "RegisterAgent",
        {"name": "own", "certificate_identity": "spiffe://own"},
    ),
    (AgentServiceStub, "UpdateAgent", {"name": "vpn", "restricted": False}),
    (AgentServiceStub, "RemoveAgent", {"name": "vpn"}),
    (AgentServiceStub, "DenyCertificate", {"serial_number": "ab"}),
    (AgentServiceStub, "AllowCertificate", {"serial_number": "ab"}),
    (AdministratorServiceStub, "Approve", {"approval_id": 1}),
)
"""The calls that give power, take it from others, or give it back."""


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    """Start a node; Alice has a token, and an agent is registered."""
    async with running_node(tmp_path) as started:
        await started.populate()
        yield started


def request_of(method: str, fields: dict[str, Any]) -> Any:
    """Return the request of a method, with a new request id."""
    for package in (pb, agents_pb2, administrators_pb2, moves_pb2):
        if kind := getattr(package, f"{method}Request", None):
            return kind(request_id=new_id(), **fields)
    raise LookupError(method)


async def ask(
    administrator: SignedIn, address: str = "n4:7301", **fields: Any
) -> pb.CreateJoinTicketResponse:
    """Ask for a ticket for n4."""
    fields = {"node_id": "n4", "address": address, **fields}
    ticket: pb.CreateJoinTicketResponse = await administrator.call(
        ClusterServiceStub,
        "CreateJoinTicket",
        request_of("CreateJoinTicket", fields),
    )
    return ticket


async def needed(administrator: SignedIn, **fields: Any) -> int:
    """Ask for a ticket, which needs an approval; return the approval's number."""
    fields = {"node_id": "n4", "address": "n4:7301", **fields}
    refusal = await administrator.refused(
        ClusterServiceStub, "CreateJoinTicket", request_of("CreateJoinTicket", fields)
    )
    assert refusal.reason == "APPROVAL_NEEDED"
    return int(refusal.words.rpartition("approval ")[2].split()[0].rstrip(".:;,"))


async def test_an_operator_alone_admits_nothing_and_changes_no_key(
    node: LoopbackNode,
) -> None:
    """(P1) Every such call is refused for the role, recorded, and changes nothing."""
    oscar = await administrator(node, "oscar", OPERATOR)
    before = node.facts()
    for stub, method, fields in POWER:
        refusal = await oscar.refused(stub, method, request_of(method, fields))
        assert (refusal.code, refusal.reason) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "ROLE",
        ), method
    assert node.facts() == before
    refused = {each[2] for each in await node.recorded_events() if each[3] == "refused"}
    assert refused >= {
        f"{stub.__name__.removesuffix('Stub')}/{method}" for stub, method, _ in POWER
    }


async def test_an_operator_keeps_the_daily_work(node: LoopbackNode) -> None:
    """(P1) Status, the primary and backups are the operator's."""
    oscar = await administrator(node, "oscar", OPERATOR)
    status = await oscar.call(ClusterServiceStub, "GetStatus", pb.GetStatusRequest())
    assert status.quorum
    answer = await oscar.refused(
        ClusterServiceStub, "CreateBackup", pb.CreateBackupRequest(request_id=new_id())
    )
    assert answer.reason == "NO_BACKUP_RECIPIENT"


async def test_a_super_administrator_alone_admits_no_member(
    node: LoopbackNode,
) -> None:
    """(P3) With a second one in the cluster, admitting waits, by ticket or without."""
    await administrator(node, "eve", SUPER_ADMIN)
    for method in ("CreateJoinTicket", "AddMember"):
        fields = {"node_id": "n4", "address": "n4:7301"}
        refusal = await root(node).refused(
            ClusterServiceStub, method, request_of(method, fields)
        )
        assert refusal.reason == "APPROVAL_NEEDED"
    assert node.rows()["join_tickets"] == node.rows()["nodes"] == []


async def test_an_approval_is_for_exactly_one_ticket(node: LoopbackNode) -> None:
    """(P3) Not for another address, name or host, nor for the authorities' keys."""
    eve = await administrator(node, "eve", SUPER_ADMIN)
    author = root(node)
    number = await needed(author, hosts=["n4.example"])
    assert node.rows()["join_tickets"] == []
    await eve.approve(number)
    for other in (
        {"hosts": ["n4.example"], "address": "n4:7302"},
        {"hosts": ["n4.example"], "node_id": "n5"},
        {"hosts": ["n1.example"]},
        {"hosts": ["n4.example"], "with_authority": True},
    ):
        assert await needed(author, **other) != number
    assert await needed(eve, hosts=["n4.example"]) != number
    assert node.rows()["join_tickets"] == []
    ticket = await ask(author, hosts=["n4.example"])
    assert ticket.ticket.startswith("sparecode-join-1:")
    assert await needed(author, hosts=["n4.example"]) != number


async def test_one_super_administrator_needs_no_other(node: LoopbackNode) -> None:
    """(P3) A cluster with a single super administrator can grow."""
    await administrator(node, "oscar", OPERATOR)
    assert (await ask(root(node))).ticket
