# SPDX-License-Identifier: Apache-2.0
"""Stopped and killed nodes with much stored data: restart, memory, snapshots (f, g)."""

import re
import statistics
import threading
import time
from dataclasses import dataclass

from local_cluster.cluster import LocalNode

from sparecode_node.replication.settings import RaftSettings
from tests.bench.estate import Estate, Run
from tests.bench.harness import Bench
from tests.bench.load import Measurement, must_have_lasted

COMPACTED_S = 180
SHORT_LOG = 256
"""Entries of a short log."""
ENTRIES_AWAY = 400
"""More entries than the other nodes keep in a short log."""
OUTAGE_S = 4.0
"""Clients call for this long, and the primary is killed meanwhile."""


def growth(bench: Bench, estate: Estate) -> None:
    """Measure restart, failover and snapshots of one estate, with no other running."""
    start_s(bench, estate)
    failover(bench, estate)
    shorten_logs(estate)
    _catch_up(bench, estate)


def memory(bench: Bench, estate: Estate) -> None:
    """Measure the memory of nodes after each of three loads (f)."""
    readings: list[dict[str, float]] = []

    def load() -> Run:
        run = bench.codes(estate, 64)
        readings.append(estate.memory_mb())
        return run

    users = estate.population.users
    bench.median_run(f"authenticate, codes, {users} users", load, clients=64)
    bench.report.add(
        f"memory in MB, {users} users, after each of three loads of 64 clients",
        **{node: [round(each[node]) for each in readings] for node in readings[0]},
    )
    bench.target(
        "(f)",
        f"memory of a node, highest of {len(readings)} readings",
        max(max(each.values()) for each in readings),
        150,
        unit=" MB",
    )


def memory_mb(bench: Bench, estate: Estate, when: str) -> None:
    """Report the memory of each node."""
    bench.report.add(
        f"memory in MB, {estate.population.users} users, {when}",
        **{node: round(mb) for node, mb in estate.memory_mb().items()},
    )


def restart(bench: Bench, estate: Estate) -> None:
    """Measure how long a node takes from start to ready (g)."""
    bench.target("(g)", "start to ready", start_s(bench, estate), 3, unit=" s")


def start_s(bench: Bench, estate: Estate) -> float:
    """Return the median time of a replica from start to ready."""
    took = []
    for _ in range(3):
        node = estate.replica()
        node.stop()
        took.append(ready_s(estate, node))
    return _median_of(bench, estate, "start to ready, in s", took)


def ready_s(estate: Estate, node: LocalNode, *, timeout_s: float = 60) -> float:
    """Start a node; return the seconds until it is ready."""
    began = time.perf_counter()
    node.start()
    estate.cluster.wait_ready(node, timeout_s=timeout_s, poll_s=0.02)
    return time.perf_counter() - began


def _median_of(
    bench: Bench, estate: Estate, name: str, took: list[float], **values: object
) -> float:
    """Report each time and the median; return the median."""
    median = statistics.median(took)
    bench.report.add(
        name,
        users=estate.population.users,
        **values,
        median=round(median, 2),
        each=[round(each, 2) for each in took],
    )
    return median


def crash(bench: Bench, estate: Estate) -> None:
    """Measure the outage after `kill -9` of the primary, and its restart (g)."""
    ready_s = failover(bench, estate)
    bench.target("(g)", "start to ready after kill -9", ready_s, 3, unit=" s")


def failover(bench: Bench, estate: Estate) -> float:
    """Kill the primary under load, three times; return its median time to ready."""
    gaps, took = [], []
    for _ in range(3):
        primary = estate.primary()
        others = [n for n in estate.cluster.nodes if n is not primary]
        at_s: list[float] = []

        def kill(primary: LocalNode = primary, at_s: list[float] = at_s) -> None:
            at_s.append(time.perf_counter())
            primary.kill()

        timer = threading.Timer(1.5, kill)
        timer.start()
        try:
            run = estate.authenticate(
                clients=8, seconds=OUTAGE_S, calls=2400, via=others
            )
        finally:
            timer.join()
            took.append(ready_s(estate, primary))
        must_fall_within(run.measured, at_s)
        must_outlast(run.measured, OUTAGE_S)
        gaps.append(run.measured.longest_gap_s)
    _median_of(
        bench,
        estate,
        "kill -9 of the primary: longest time without an answer, in s",
        gaps,
        callers="of the two other nodes",
    )
    name = "kill -9: start to ready of the killed node, in s"
    return _median_of(bench, estate, name, took)


def must_fall_within(measured: Measurement, kills: list[float]) -> None:
    """Check that the primary was killed during the load."""
    ended = measured.began + measured.lasted_s
    if not (kills and measured.began < kills[0] < ended):
        raise RuntimeError("the primary was not killed during the load")


def must_outlast(measured: Measurement, seconds: float) -> None:
    """Check that the load continued until calls were answered again."""
    must_have_lasted(measured, seconds)
    if measured.silent_at_last_s >= measured.longest_gap_s:
        raise RuntimeError(
            f"no call was answered in the last {measured.silent_at_last_s:.1f} s:"
            " the outage outlasted the load"
        )


def snapshots(bench: Bench, estate: Estate) -> None:
    """Authenticate while snapshots are taken all the time, then install one."""
    shorten_logs(estate)
    bench.median_run(
        f"authenticate, codes, {estate.population.users} users, during snapshots",
        lambda: bench.codes(estate, 1),
        clients=1,
    )
    _catch_up(bench, estate)


def shorten_logs(estate: Estate, entries: int = SHORT_LOG) -> RaftSettings:
    """Restart nodes so that they take a snapshot after this many entries."""
    settings = RaftSettings(log_entries_max=entries, log_entries_kept=entries // 4)
    limits = "\n".join(
        f"{name} = {getattr(settings, name)}"
        for name in ("log_entries_max", "log_entries_kept")
    )
    for each in estate.cluster.nodes:
        text = each.config.read_text()
        each.config.write_text(text.replace("[raft]", f"[raft]\n{limits}"))
        each.stop()
        each.start()
        estate.cluster.wait_ready(each)
    return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class _CatchUp:
    """The return of a node that needs a snapshot: times, sizes and installations."""

    taken_s: float
    """Time to take one snapshot, on the slower of the other nodes."""
    installed_s: float
    """Time to fetch and install one snapshot, from its first byte on."""
    ready_s: float
    """Time from the node's start until it is ready."""
    installed: int
    snapshot_mb: float
    """In millions of bytes, like all sizes here."""
    state_mb: float
    """Size of the state's database on disk."""


def _catch_up(bench: Bench, estate: Estate) -> None:
    """Three times: stop a node until it needs a snapshot, then let it catch up."""
    results = [_catch_up_once(estate) for _ in range(3)]
    ready = [each.ready_s for each in results]
    bench.report.add(
        "snapshots, in s, medians of three",
        users=estate.population.users,
        codes=estate.population.codes,
        snapshot_mb=round(statistics.median(each.snapshot_mb for each in results), 1),
        state_db_mb=round(statistics.median(each.state_mb for each in results), 1),
        one_taken=round(statistics.median(each.taken_s for each in results), 2),
        one_fetched_and_installed=round(
            statistics.median(each.installed_s for each in results), 2
        ),
        start_to_ready_with_it=round(statistics.median(ready), 1),
        each=[round(each, 1) for each in ready],
        installed=[each.installed for each in results],
    )


def _catch_up_once(estate: Estate) -> _CatchUp:
    node = estate.replica()
    node.stop()
    others = [n for n in estate.cluster.nodes if n is not node]
    taken = {n.node_id: _taken(n, estate) for n in others}
    leave_behind(estate, others)
    one_taken_s = max(_one_taken_s(n, estate, *taken[n.node_id]) for n in others)
    before = _installed(node)
    took = ready_s(estate, node)
    installed = _installed(node) - before
    if not installed:
        raise RuntimeError(f"{node.node_id} is ready but has installed no snapshot")
    return _CatchUp(
        taken_s=one_taken_s,
        installed_s=estate.snapshot_s(node, "fetch") / installed,
        ready_s=took,
        installed=installed,
        snapshot_mb=max(snapshot_bytes(n.log.read_text()) for n in others) / 1e6,
        state_mb=max(_state_bytes(n) for n in others) / 1e6,
    )


def leave_behind(
    estate: Estate, others: list[LocalNode], *, timeout_s: float = COMPACTED_S
) -> None:
    """
    Commit entries on the other nodes until a stopped one needs a snapshot.

    *timeout_s*: for the snapshots of the others.
    """
    has = estate.commit_index()
    while estate.commit_index() < has + ENTRIES_AWAY:
        estate.issue(clients=2, seconds=2, count=1, via=others)
    _wait_until_dropped(others, has + 1, estate, timeout_s)


def _taken(node: LocalNode, estate: Estate) -> tuple[int, float]:
    """Return the number of snapshots that a node has taken, and their total seconds."""
    times = node.log.read_text().count("snapshot_taken")
    return times, estate.snapshot_s(node, "take")


def _one_taken_s(
    node: LocalNode, estate: Estate, times_before: int, seconds_before: float
) -> float:
    times, seconds = _taken(node, estate)
    return (seconds - seconds_before) / max(1, times - times_before)


def _installed(node: LocalNode) -> int:
    return node.log.read_text().count("snapshot_installed")


def snapshot_bytes(log: str) -> int:
    """Return the bytes of the latest snapshot in a node's log. Raises `ValueError`."""
    length = _last_logged(log, "snapshot_taken", "bytes")
    if length is None:
        raise ValueError("no snapshot was taken")
    return length


def _state_bytes(node: LocalNode) -> int:
    return (node.directory / "data" / "state.db").stat().st_size


def first_kept(log: str) -> int:
    """Return the first entry of a node's log after its latest compaction, or 0."""
    return _last_logged(log, "log_compacted", "first") or 0


def _last_logged(log: str, event: str, field: str) -> int | None:
    """Return the field of the last line with this event, or None without such a line."""
    values = re.findall(rf" {event}\b.*\b{field}=(\d+)", log)
    return int(values[-1]) if values else None


def _wait_until_dropped(
    nodes: list[LocalNode], index: int, estate: Estate, timeout_s: float
) -> None:
    """
    Commit entries until none of the nodes has the entry *index* anymore.

    A compaction alone is not enough: it may rest on an earlier snapshot, and then
    the node that was away gets entries instead of a snapshot.
    """
    deadline = time.monotonic() + timeout_s
    while not all(first_kept(node.log.read_text()) > index for node in nodes):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the logs still have entry {index}")
        estate.issue(clients=2, seconds=1, count=1, via=nodes)
