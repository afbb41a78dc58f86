# SPDX-License-Identifier: Apache-2.0
"""A node that is told to stop hands over, drains and exits; no call fails."""

import asyncio
import dataclasses
import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_cluster.cluster import LocalCluster, LocalNode
from local_cluster.setup import set_up

from sparecode_client import AsyncAgent
from sparecode_node.services.files import age_files
from tests.system.estate import PIN, Estate, Holder

pytestmark = pytest.mark.asyncio

WORKERS = 6
ROUNDS = 2
PATIENCE_S = 60


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
    """Its probes turn away new callers, and another node leads before it exits."""
    async with Estate(cluster) as estate:
        primary = await estate.primary()
    await asyncio.to_thread(primary.stop)
    text = [line["message"] for line in log_lines(primary)]
    assert text.index("stopping") < text.index("handed_over") < text.index("stopped")
    (line,) = (line for line in log_lines(primary) if line["message"] == "handed_over")
    assert line["primary"] != primary.node_id


async def test_last_node_stops_although_none_can_take_over(
    cluster: LocalCluster,
) -> None:
    for node in cluster.nodes:
        assert await asyncio.to_thread(node.stop) == 0


ENDLESS = f"""#!{sys.executable}
import os, runpy, sys, threading
from pathlib import Path
from sparecode_node.services.state import state_process

def work(*paths):
    Path(os.environ["BEGUN"], f"{{sys.argv[2]}} {{paths[-1].name}}").touch()
    threading.Event().wait()

if sys.argv[1] == "-P":  # -m, the module, and what it is to read.
    state_process.WORK = dict.fromkeys(state_process.WORK, work)
    del sys.argv[1:4]
    sys.exit(state_process.main())
state_process.SMALL_BYTES = 0
sys.executable = __file__
del sys.argv[1:3]  # -m sparecode_node
runpy.run_module("sparecode_node", run_name="__main__", alter_sys=True)
"""
"""The node, with a state that takes forever to read."""


class OneNode:
    """A cluster of one that reads its state forever."""

    def __init__(self, cluster: LocalCluster, begun: Path) -> None:
        self.cluster = cluster
        self.begun = begun
        (self.node,) = cluster.nodes

    async def until_begun(self, name: str) -> None:
        """Wait until a process has begun to do this."""
        async with asyncio.timeout(PATIENCE_S):
            # What other processes do to files, no event tells us.
            while not (self.begun / name).exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[OneNode]:
    """Return a running node whose snapshots are due soon."""
    raft = {"log_entries_max": 16, "log_entries_kept": 4}
    cluster = set_up(tmp_path / "cluster", nodes=1, testing=True, raft=raft)
    (node,) = cluster.nodes
    text = node.config.read_text()
    node.config.write_text(text.replace('format = "text"', 'format = "json"'))
    python = tmp_path / "endless"
    python.write_text(ENDLESS)
    python.chmod(0o700)
    begun = tmp_path / "begun"
    begun.mkdir()
    node.python = str(python)
    node.environment["BEGUN"] = str(begun)
    try:
        cluster.start()
        yield OneNode(cluster, begun)
    finally:
        cluster.kill()


async def test_node_that_stops_does_not_wait_for_reads_of_its_state(
    endless: OneNode,
) -> None:
    """
    A snapshot, a digest and a backup take long with many users.

    The node exits in order, callers learn why, and no failure is reported.
    """
    _, recipient = age_files.new_identity()
    async with Estate(endless.cluster) as estate:
        policy = await estate.admin.get_policy()
        await estate.admin.update_policy(
            dataclasses.replace(policy, backup_recipients=recipient)
        )
        await estate.holder("alice", codes=1)
        for number in range(16):
            await estate.admin.create_user(f"user-{number}")
        await endless.until_begun("write snapshot.written")
        pieces: list[bytes] = []
        calls = [
            asyncio.create_task(estate.admin.get_status(digest=True)),
            asyncio.create_task(
                estate.admin.create_backup(pieces.clear, pieces.append)
            ),
        ]
        await endless.until_begun("look state.db")
        await endless.until_begun("write-whole state.db")
        assert await asyncio.to_thread(endless.node.stop) == 0
        for call in calls:
            call.cancel()  # Clients look for another node that could answer.
        await asyncio.gather(*calls, return_exceptions=True)
    assert not pieces
    lines = log_lines(endless.node)
    stopping = [line for line in lines if line.get("reason") == "STOPPING"]
    assert {line["method"] for line in stopping} == {
        "ClusterService/GetStatus",
        "ClusterService/CreateBackup",
    }
    assert lines[-1]["message"] == "stopped"
    assert "snapshot_failed" not in {line["message"] for line in lines}
    assert {line["level"] for line in lines} <= {"info", "warning"}
    assert not list((endless.node.directory / "data").glob("backup.*"))
