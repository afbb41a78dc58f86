# SPDX-License-Identifier: Apache-2.0
"""Reads of the whole state or audit log hold up no node (Q3)."""

import asyncio
from pathlib import Path

import pytest

from sparecode_node.domain.administrators import Role
from sparecode_node.domain.ids import AdministratorName
from sparecode_node.replication.errors import OverloadedError
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.context import Deadline
from sparecode_node.services.errors import RateError
from sparecode_node.services.load.costly_reads import WAITING_MAX, CostlyReads
from sparecode_node.services.load.rates import DEFAULT_LIMITS, Rates
from sparecode_node.services.people.administrators import Link
from tests.security.administrators import OWN
from tests.services.one_node import PASSWORD, UNLIMITED, OneNode, one_node

pytestmark = pytest.mark.asyncio


async def digest(node: OneNode) -> str:
    """Return the digest of the one member's state; `rate` if the call is too fast."""
    context = node.admin("ClusterService/GetStatus")
    try:
        status = await node.cluster.status(context, digest=True)
    except RateError:
        return "rate"
    return str(status.members[0].digest)


async def verification(node: OneNode) -> str:
    """Verify the audit log; return `rate` if the call is too fast."""
    context = node.admin("AuditService/VerifyChain")
    try:
        read = await node.audit.verify_chain(context)
    except RateError:
        return "rate"
    assert read.value.verified_sequence
    return "verified"


async def test_digests_and_verifications_have_a_rate(tmp_path: Path) -> None:
    """(Q3) An administrator has two at once, in all sessions; others are not slowed."""
    async with one_node(tmp_path, DEFAULT_LIMITS) as node:
        await node.administrators.create(
            node.admin("AdministratorService/CreateAdministrator"),
            name="second",
            role=Role.SUPER_ADMIN,
            link=Link(""),
            password=PASSWORD,
        )
        assert await digest(node) != "rate"
        assert await verification(node) == "verified"
        await node.login()
        assert await digest(node) == await verification(node) == "rate"
        await node.cluster.status(node.admin("ClusterService/GetStatus"))
        node.clock.pass_s(5)
        assert await verification(node) == "verified"
        assert await digest(node) == "rate"
        await node.login(name="second")
        await node.administrators.change_password(
            node.admin("AdministratorService/ChangePassword"),
            name="",
            old_password=PASSWORD,
            new_password=OWN,
        )
        await node.login(name="second", password=OWN)
        assert await digest(node) != "rate"


async def test_one_costly_read_runs_at_a_time() -> None:
    """(Q3) And only a few of them wait."""
    clock = SystemClock()
    reads = CostlyReads(Rates(UNLIMITED, clock=clock, entropy=SystemEntropy()))
    running = most = 0

    async def read(number: int) -> None:
        nonlocal running, most
        deadline = Deadline(clock, clock.monotonic_s() + 60)
        async with reads.turn(AdministratorName(f"a{number}"), deadline):
            running += 1
            most = max(running, most)
            await asyncio.sleep(0.01)
            running -= 1

    outcomes = await asyncio.gather(*map(read, range(10)), return_exceptions=True)
    kinds = [type(outcome) for outcome in outcomes]
    assert kinds.count(OverloadedError) == 10 - WAITING_MAX
    assert most == 1
