# SPDX-License-Identifier: Apache-2.0
"""Nodes that end and come back, with much in store (f, g)."""

import statistics
import threading
import time

from local_cluster.cluster import LocalNode

from tests.bench.estate import Estate
from tests.bench.measuring import Bench

COMPACTED_S = 180


def memory(bench: Bench, estate: Estate) -> None:
    """Look at the memory of nodes that have worked (f)."""
    run = bench.thrice(
        f"authenticate, codes, {estate.population.users} users",
        lambda: bench.codes(estate, 64),
        clients=64,
    )
    del run
    found = estate.memory_mb()
    bench.report.add(
        f"memory in MB, {estate.population.users} users",
        **{node: round(mb) for node, mb in found.items()},
    )
    bench.target("(f)", "memory of a node", max(found.values()), 150, unit=" MB")


def restart(bench: Bench, estate: Estate) -> None:
    """See how long a node takes until it is ready (g)."""
    took = []
    for _ in range(3):
        node = estate.replica()
        node.stop()
        began = time.perf_counter()
        node.start()
        estate.cluster.wait_ready(node, poll_s=0.02)
        took.append(time.perf_counter() - began)
    median = statistics.median(took)
    bench.report.add(
        "start to ready, in s",
        users=estate.population.users,
        median=round(median, 2),
        each=[round(each, 2) for each in took],
    )
    bench.target("(g)", "start to ready", median, 3, unit=" s")


def failover(bench: Bench, estate: Estate) -> None:
    """Kill the primary under load, three times."""
    gaps = []
    for _ in range(3):
        primary = estate.primary()
        others = [n for n in estate.cluster.nodes if n is not primary]
        timer = threading.Timer(2.0, primary.kill)
        timer.start()
        try:
            run = estate.authenticate(clients=8, seconds=6, calls=3000, via=others)
            gaps.append(run.measured.longest_gap_s)
        finally:
            timer.join()
            primary.start()
            estate.cluster.wait_ready(primary)
    bench.report.add(
        "kill -9 of the primary: longest time without an answer, in s",
        median=round(statistics.median(gaps), 2),
        each=[round(gap, 2) for gap in gaps],
    )


def behind(bench: Bench, estate: Estate) -> None:
    """Take a snapshot, and have a node install it that was away for too long."""
    node = estate.replica()
    node.stop()
    others = [n for n in estate.cluster.nodes if n is not node]
    needed = estate.commit_index() + 400
    began = time.perf_counter()
    while estate.commit_index() < needed:
        estate.issue(clients=2, seconds=2, count=1, via=others)
    _until_compacted(others, estate)
    compacted = time.perf_counter() - began
    before = node.log.read_text().count("snapshot_installed")
    began = time.perf_counter()
    node.start()
    estate.cluster.wait_ready(node, poll_s=0.05)
    took = time.perf_counter() - began
    bench.report.add(
        "a node that was away for longer than the log: start to ready, in s",
        users=estate.population.users,
        codes=estate.population.codes,
        seconds=round(took, 1),
        snapshots_installed=node.log.read_text().count("snapshot_installed") - before,
        until_the_others_had_dropped_their_logs_s=round(compacted, 1),
    )


def _until_compacted(nodes: list[LocalNode], estate: Estate) -> None:
    deadline = time.monotonic() + COMPACTED_S
    while not all("log_compacted" in node.log.read_text() for node in nodes):
        if time.monotonic() > deadline:
            raise TimeoutError("the logs are not compacted")
        estate.issue(clients=2, seconds=1, count=1, via=nodes)
