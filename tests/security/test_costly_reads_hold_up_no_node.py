# SPDX-License-Identifier: Apache-2.0
"""Reads of the whole state or audit log hold up no node (Q3)."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from sparecode.v1 import administrators_pb2, audit_pb2, cluster_pb2
from sparecode.v1.audit_pb2_grpc import AuditServiceStub
from sparecode.v1.cluster_pb2_grpc import ClusterServiceStub
from sparecode_node.domain.ids import AdministratorName
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.context import Deadline
from sparecode_node.services.load.costly_reads import WAITING_MAX, CostlyReads
from sparecode_node.services.load.rates import Rates
from tests.rpc.edge import Failure, failure
from tests.rpc.loopback_node import LoopbackNode, running_node
from tests.security.administrators import OWN, SignedIn, administrator, root, sign_in
from tests.services.one_node import UNLIMITED

pytestmark = pytest.mark.asyncio

AUDITOR = administrators_pb2.ADMINISTRATOR_ROLE_AUDITOR


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[LoopbackNode]:
    async with running_node(tmp_path) as node:
        yield node


async def digest(by: SignedIn) -> Any:
    """Ask for the digest of every member's state."""
    request = cluster_pb2.GetStatusRequest(digest=True)
    return await by.call(ClusterServiceStub, "GetStatus", request)


async def verification(by: SignedIn) -> Any:
    """Ask for a verification of the audit log."""
    request = audit_pb2.VerifyChainRequest()
    return await by.call(AuditServiceStub, "VerifyChain", request)


async def refusals(by: SignedIn, number: int) -> list[Failure]:
    """Ask for digests and verifications in turn; return the refusals."""
    refused = []
    for _, read in zip(
        range(number), itertools.cycle((digest, verification)), strict=False
    ):
        try:
            await read(by)
        except grpc.aio.AioRpcError as error:
            refused.append(failure(error))
    return refused


async def test_digests_and_verifications_have_a_rate(node: LoopbackNode) -> None:
    """(Q3) An auditor has two at once, in all sessions; others are not slowed."""
    auditor = await administrator(node, "auditor", AUDITOR)
    refused = await refusals(auditor, 6)
    assert [each.reason for each in refused] == ["RATE"] * 4
    assert all(each.retry_s and each.retry_s > 1 for each in refused)
    assert len(await refusals(await sign_in(node, "auditor", OWN), 2)) == 2
    await auditor.call(
        ClusterServiceStub, "GetStatus", cluster_pb2.GetStatusRequest(digest=False)
    )
    (member,) = (await digest(root(node))).members
    assert member.digest
    assert (await verification(root(node))).verified_sequence


async def test_one_costly_read_runs_at_a_time() -> None:
    """(Q3) And only a few of them wait."""
    clock = SystemClock()
    reads = CostlyReads(Rates(UNLIMITED, clock=clock, entropy=SystemEntropy()))
    running = most = 0

    async def read(number: int) -> None:
        nonlocal running, most
        deadline = Deadline(clock, clock.monotonic_s() + 10)
        async with reads.turn(AdministratorName(f"a{number}"), deadline):
            running += 1
            most = max(running, most)
            await asyncio.sleep(0.01)
            running -= 1

    outcomes = await asyncio.gather(*map(read, range(10)), return_exceptions=True)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds.count(OverloadedError) == 10 - WAITING_MAX
    assert most == 1
