# SPDX-License-Identifier: Apache-2.0
"""The clock of the primary jumps by an hour, and another node takes over (T5)."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cluster.cluster import LocalCluster
from local_cluster.setup import set_up

from sparecode_client import ClusterStatus, MemberRole
from tests.faults.clocks import NodeClock
from tests.system.estate import PATIENCE, PIN, Estate

HOUR_S = 3600


@pytest.fixture
def made(tmp_path: Path) -> LocalCluster:
    """Return a cluster that does not run yet."""
    return set_up(tmp_path / "cluster", testing=True)


@pytest.fixture
def clocks(made: LocalCluster, tmp_path: Path) -> dict[str, NodeClock]:
    """Return the clocks of its nodes, by node."""
    return {node.node_id: NodeClock(node, tmp_path) for node in made.nodes}


@pytest.fixture
def cluster(made: LocalCluster, clocks: dict[str, NodeClock]) -> Iterator[LocalCluster]:
    """Return the cluster, running with these clocks."""
    assert set(clocks) == {node.node_id for node in made.nodes}
    try:
        made.start()
        yield made
    finally:
        made.kill()


async def primary(estate: Estate, *, other_than: str = "") -> ClusterStatus:
    """Return the status once there is a primary, and not that one."""
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            status = await estate.admin.get_status()
            if status.primary not in ("", other_than):
                return status


@pytest.mark.asyncio
@pytest.mark.parametrize("offset_s", [HOUR_S, -HOUR_S])
async def test_a_primary_with_a_wrong_clock_hands_over(
    cluster: LocalCluster, clocks: dict[str, NodeClock], offset_s: int
) -> None:
    """
    (T5) Codes are accepted all the time, once, and the cluster's time goes on.

    An hour ahead would end every set that ends within the hour, and forget what
    was answered to a request (Q3): both are looked at.
    """
    async with Estate(cluster) as estate:
        holder = await estate.holder(f"user{offset_s}", codes=4)
        first = await estate.any_agent.authenticate(
            holder.username, PIN + holder.codes[0]
        )
        assert first.accepted
        status = await primary(estate)
        wrong = status.primary
        clocks[wrong].set(offset_s)
        try:
            for code in holder.codes[1:3]:
                passcode = PIN + code
                answer = await estate.any_agent.authenticate(holder.username, passcode)
                assert answer.accepted
                again = await estate.any_agent.authenticate(holder.username, passcode)
                assert not again.accepted
            status = await primary(estate, other_than=wrong)
            off = next(each for each in status.members if each.node_id == wrong)
            assert off.reachable
            assert off.role is MemberRole.REPLICA
            events = await estate.admin.list_audit_events(page_size=20)
            times = [event.time for event in events.items if event.time]
            spread_s = (max(times) - min(times)).total_seconds()
            assert spread_s < HOUR_S / 2
        finally:
            clocks[wrong].set(0)
        answer = await estate.any_agent.authenticate(
            holder.username, PIN + holder.codes[3]
        )
        assert answer.accepted
        assert await estate.until_equal()
