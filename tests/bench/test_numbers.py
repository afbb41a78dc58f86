# SPDX-License-Identifier: Apache-2.0
"""Nodes count what only they know, from their next start on."""

import asyncio
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from local_cluster.cluster import ADMINISTRATOR
from local_cluster.setup import set_up

from sparecode_client import AsyncAdmin
from tests.bench.node_numbers.sitecustomize import (
    COLLECTOR,
    FIELDS,
    LATENESS,
    TO,
    WHAT,
)
from tests.bench.numbers import INSIDE, NodeNumbers, counted

COLLECT = """
import gc, os, subprocess, sys
gc.collect()
subprocess.run([sys.executable, "-c", "import gc; gc.collect()"], check=True)
"""


def test_only_the_process_itself_counts_its_collections(tmp_path: Path) -> None:
    numbers = NodeNumbers({"n1": tmp_path / "n1"})
    environment = {**os.environ, "PYTHONPATH": str(INSIDE)}
    environment |= {TO: str(tmp_path / "n1"), WHAT: COLLECTOR}
    subprocess.run([sys.executable, "-c", COLLECT], env=environment, check=True)
    counts = numbers.of("n1")
    assert 1 <= counts["full_collections"] <= counts["collections"]
    assert 0 < counts["longest_collection_s"] <= counts["collecting_s"]
    numbers.clear()
    assert numbers.of("n1") == dict.fromkeys(FIELDS, 0)


def test_nodes_record_how_late_they_are(tmp_path: Path) -> None:
    cluster = set_up(tmp_path / "cluster", testing=True)
    before = [node.environment for node in cluster.nodes]
    with counted(cluster.nodes, LATENESS) as numbers:
        assert numbers.highest("tick_s") == 0
        try:
            cluster.start()
        finally:
            cluster.stop()
        counts = [numbers.of(node.node_id) for node in cluster.nodes]
        assert numbers.highest("silence_s") == max(each["silence_s"] for each in counts)
    assert [node.environment for node in cluster.nodes] == before
    for name in ("tick_s", "beat_s", "sync_s"):
        assert all(0 < each[name] < 30 for each in counts), name
    # The primary hears no other node.
    assert sorted(each["silence_s"] > 0 for each in counts)[1:] == [True, True]
    assert not any(each["collections"] for each in counts)


@pytest.mark.asyncio
async def test_nodes_record_an_entry_that_changes_the_policy(tmp_path: Path) -> None:
    """Apart from the other entries, and when it was."""
    cluster = set_up(tmp_path / "cluster", testing=True, nodes=1)
    (node,) = cluster.nodes
    with counted(cluster.nodes, LATENESS) as numbers:
        try:
            await asyncio.to_thread(cluster.start)
            async with AsyncAdmin([node.admin_address], ca=cluster.members_ca) as admin:
                await admin.login(ADMINISTRATOR, cluster.password)
                first = numbers.of("n1")
                began = time.perf_counter()
                policy = replace(await admin.get_policy(), lock_from_failures=7)
                await admin.update_policy(policy)
                ended = time.perf_counter()
                counts = numbers.of("n1")
        finally:
            cluster.stop()
    assert first["entry_s"] > 0 == first["policy_at_s"]
    assert began < counts["policy_at_s"] < ended
    assert 0 < counts["policy_entry_s"] < ended - began
    assert 0 < counts["policy_cpu_s"] <= counts["policy_entry_s"] + 0.01
