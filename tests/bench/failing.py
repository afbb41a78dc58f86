# SPDX-License-Identifier: Apache-2.0
"""Nodes that end and come back, with much in store (f, g)."""

import statistics
import threading
import time

from local_cluster.cluster import LocalNode

from tests.bench.estate import Estate
from tests.bench.measuring import Bench

COMPACTED_S = 180
SHORT_LOG = "log_entries_max = 256\nlog_entries_kept = 64"
ENTRIES_AWAY = 400
"""More than the others keep of a short log."""


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
    for each in estate.cluster.nodes:
        text = each.config.read_text()
        each.config.write_text(text.replace("[raft]", f"[raft]\n{SHORT_LOG}"))
        each.stop()
        each.start()
        estate.cluster.wait_ready(each)
    node = estate.replica()
    node.stop()
    others = [n for n in estate.cluster.nodes if n is not node]
    dropped = {n.node_id: _compactions(n) for n in others}
    taken_s = {n.node_id: estate.snapshot_s(n, "take") for n in others}
    needed = estate.commit_index() + ENTRIES_AWAY
    while estate.commit_index() < needed:
        estate.issue(clients=2, seconds=2, count=1, via=others)
    _until_compacted(others, dropped, estate)
    taking_s = max(estate.snapshot_s(n, "take") - taken_s[n.node_id] for n in others)
    taken = sum(_compactions(n) - dropped[n.node_id] for n in others) / len(others)
    before = _installed(node)
    began = time.perf_counter()
    node.start()
    estate.cluster.wait_ready(node, poll_s=0.05)
    took = time.perf_counter() - began
    bench.report.add(
        "snapshots, in s",
        users=estate.population.users,
        codes=estate.population.codes,
        one_taken=round(taking_s / max(1, taken), 2),
        one_fetched_and_installed=round(estate.snapshot_s(node, "fetch"), 2),
        snapshots_installed=_installed(node) - before,
        start_to_ready_with_it=round(took, 1),
    )


def _compactions(node: LocalNode) -> int:
    return node.log.read_text().count("log_compacted")


def _installed(node: LocalNode) -> int:
    return node.log.read_text().count("snapshot_installed")


def _until_compacted(
    nodes: list[LocalNode], before: dict[str, int], estate: Estate
) -> None:
    deadline = time.monotonic() + COMPACTED_S
    while not all(_compactions(node) > before[node.node_id] for node in nodes):
        if time.monotonic() > deadline:
            raise TimeoutError("the logs are not compacted")
        estate.issue(clients=2, seconds=1, count=1, via=nodes)
