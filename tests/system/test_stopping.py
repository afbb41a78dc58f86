# SPDX-License-Identifier: Apache-2.0
"""A node that is told to stop hands over, drains, and goes; nobody notices."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cluster.cluster import LocalCluster, LocalNode
from local_cluster.setup import set_up

from sparecode_client import AsyncAgent
from tests.system.estate import PIN, Estate, Holder

pytestmark = pytest.mark.asyncio

WORKERS = 6
ROUNDS = 2


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    """Return a running cluster that logs JSON."""
    cluster = set_up(tmp_path / "cluster", testing=True)
    for node in cluster.nodes:
        text = node.config.read_text()
        node.config.write_text(text.replace('format = "text"', 'format = "json"'))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


def log_lines(node: LocalNode) -> list[dict[str, str]]:
    return [json.loads(line) for line in node.log.read_text().splitlines()]


async def spend(
    holder: Holder, agent: AsyncAgent, spent: list[int], done: asyncio.Event
) -> None:
    """Try each code twice, and then all of them again; note which were accepted."""
    for ordinal, code in itertools.cycle(enumerate(holder.codes, start=1)):
        for _ in range(2):
            answer = await agent.authenticate(holder.username, PIN + code)
            if answer.accepted:
                spent.append(ordinal)
        if done.is_set():
            return


async def restart_all(cluster: LocalCluster) -> None:
    """Stop and start one node after the other."""
    for node in ROUNDS * cluster.nodes:
        assert await asyncio.to_thread(node.stop) == 0
        node.start()
        await asyncio.to_thread(cluster.wait_ready, node)


@pytest.mark.timeout(300)
async def test_rolling_restart_loses_no_call_and_no_code(cluster: LocalCluster) -> None:
    """
    Every node is stopped and started twice under load, the primary among them.

    No call fails beyond the client's retries; every code is accepted once; each
    node ends with exit code 0, and a primary only after another node leads.
    """
    async with Estate(cluster) as estate:
        holders = [
            await estate.holder(f"rolling-{number}", codes=50)
            for number in range(WORKERS)
        ]
        done = asyncio.Event()
        accepted: dict[str, list[int]] = {holder.serial: [] for holder in holders}

        async with asyncio.TaskGroup() as group:
            for holder in holders:
                spent = accepted[holder.serial]
                group.create_task(spend(holder, estate.any_agent, spent, done))
            await restart_all(cluster)
            done.set()
        await estate.until_equal()
    for spent in accepted.values():
        assert spent == list(range(1, len(spent) + 1))
        assert spent
    handed_over = 0
    for node in cluster.nodes:
        messages = [line["message"] for line in log_lines(node)]
        assert messages.count("stopped") == ROUNDS
        assert "not_handed_over" not in messages
        handed_over += messages.count("handed_over")
    assert handed_over >= 1


async def test_primary_that_stops_says_so_first(cluster: LocalCluster) -> None:
    """Its probes send nobody any more, and another leads before it is gone."""
    async with Estate(cluster) as estate:
        status = await estate.admin.get_status()
    primary = cluster.node(status.primary)
    await asyncio.to_thread(primary.stop)
    said = [line["message"] for line in log_lines(primary)]
    assert said.index("stopping") < said.index("handed_over") < said.index("stopped")
    (line,) = (line for line in log_lines(primary) if line["message"] == "handed_over")
    assert line["primary"] != primary.node_id


async def test_last_node_stops_though_nobody_can_take_over(
    cluster: LocalCluster,
) -> None:
    for node in cluster.nodes:
        assert await asyncio.to_thread(node.stop) == 0
