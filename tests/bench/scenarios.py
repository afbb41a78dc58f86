# SPDX-License-Identifier: Apache-2.0
"""What is measured, each on the estate that it needs, and what it is held against."""

import asyncio
import re
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from local_cluster.cluster import ADMINISTRATOR, LocalNode

from sparecode_client import AsyncAdmin, BulkIssueRow
from tests.bench.estate import Estate, Run
from tests.bench.limits import Limits
from tests.bench.population import Population
from tests.bench.report import Report, Target

CLIENTS = (1, 8, 64)
MANY = 256
EVALUATIONS = 2
"""Of Argon2id for each attempt (T4)."""
BULK_SETS = 1000
SHORT_LOG = {"log_entries_max": 256, "log_entries_kept": 64}


class Scenarios:
    """Measures, and keeps what comes out in a report."""

    def __init__(self, report: Report, limits: Limits, *, seconds: float) -> None:
        self._report = report
        self._limits = limits
        self._seconds = seconds

    def _load(self, name: str, run: Callable[[], Run], **values: object) -> Run:
        """Do it three times; keep the one in the middle."""
        runs = sorted((run() for _ in range(3)), key=lambda each: each.measured.per_s)
        middle = runs[1]
        self._report.add_load(name, middle.measured, middle.cpu_ms, **values)
        return middle

    def _target(
        self,
        name: str,
        words: str,
        value: float | None,
        bound: float,
        *,
        at_least: bool = False,
        unit: str = "",
    ) -> None:
        self._report.targets.append(
            Target(
                name=name,
                words=words,
                value=value,
                target=bound,
                at_least=at_least,
                unit=unit,
            )
        )

    # --- The hashing of production

    def production(self, directory: Path, users: int) -> None:
        """Measure what hashing leaves (a)."""
        with Estate(directory, Population(users=users, profile="production")) as estate:
            run = self._load(
                "authenticate, codes, hashing of production",
                lambda: estate.authenticate(
                    clients=64, seconds=self._seconds, calls=users * 3
                ),
                clients=64,
            )
        ceiling = self._limits.argon2id_per_s / EVALUATIONS
        self._target(
            "(a)",
            "hashing of production, 64 clients: share of what all cores can hash",
            run.measured.per_s / ceiling,
            0.8,
            at_least=True,
        )

    # --- Everything else with cheap hashing

    def single(self, directory: Path, users: int) -> None:
        """Measure one node alone."""
        population = Population(users=users, profile="testing")
        with Estate(directory, population, nodes=1) as estate:
            for clients in CLIENTS:
                self._load(
                    "authenticate, codes, one node",
                    lambda clients=clients: self._codes(estate, clients),
                    clients=clients,
                )

    def _codes(
        self, estate: Estate, clients: int, via: list[LocalNode] | None = None
    ) -> Run:
        calls = int(self._seconds * (200 if clients == 1 else 800))
        return estate.authenticate(
            clients=clients, seconds=self._seconds, calls=calls, via=via
        )

    def three(self, estate: Estate) -> None:
        """Measure three nodes (b, d, e, h, i)."""
        limits = self._limits
        best = 0.0
        for clients in CLIENTS:
            run = self._load(
                "authenticate, codes",
                lambda clients=clients: self._codes(estate, clients),
                clients=clients,
            )
            best = max(best, run.measured.per_s)
            if clients == 1:
                alone = run.measured.p50_ms
        at_64 = run.measured.per_s
        for name, node in (
            ("the primary", estate.primary()),
            ("a replica", estate.replica()),
        ):
            self._load(
                f"authenticate, codes, all through {name}",
                lambda node=node: self._codes(estate, 8, [node]),
                clients=8,
            )
        run = estate.authenticate(
            kind="token", clients=8, seconds=self._seconds, calls=2000
        )
        self._report.add_load("authenticate, TOTP", run.measured, run.cpu_ms, clients=8)
        self._target(
            "(b)",
            "cheap hashing, 64 clients: share of the echo",
            at_64 / limits.echo[64].per_s,
            0.35,
            at_least=True,
        )
        floor = limits.echo[1].p50_ms + limits.sync_ms
        self._target(
            "(b)",
            "one client's p50, in echo p50 + one sync",
            alone / floor,
            4.0,
        )
        self._syncs(estate)
        self._administration(estate)
        self._crowd(estate, best)
        self._bulk(estate)

    def _syncs(self, estate: Estate) -> None:
        """Count the journal's syncs of each node (d)."""
        with counting_syncs(estate) as counts:
            run = self._codes(estate, 8)
        syncs = max(counts().values(), default=0)
        entries = max(1, run.entries)
        self._report.add(
            "syncs of the journal", entries=entries, syncs_of_each_node=counts()
        )
        self._target(
            "(d)", "syncs of the journal for each batch and node", syncs / entries, 1.05
        )

    def _administration(self, estate: Estate) -> None:
        """Measure issuing and reading (h)."""
        for count in (10, 50):
            self._load(
                f"issue sets of {count}",
                lambda count=count: estate.issue(
                    clients=4, seconds=self._seconds, count=count
                ),
                clients=4,
            )
        for stale, name in ((False, "linearizable"), (True, "stale")):
            run = self._load(
                f"read a token, {name}",
                lambda stale=stale: estate.read(
                    clients=8, seconds=self._seconds, stale_ok=stale
                ),
                clients=8,
            )
            one = estate.replica()
            primary = estate.primary().node_id
            run = estate.read(
                clients=8, seconds=self._seconds, stale_ok=stale, via=[one]
            )
            others = max(ms for node, ms in run.cpu_ms.items() if node != one.node_id)
            self._report.add(
                f"CPU of a {name} read on a replica",
                asked_ms=round(run.cpu_ms[one.node_id], 3),
                primary_ms=round(run.cpu_ms[primary], 3),
            )
            self._target(
                "(h)",
                f"{name} read on a replica: CPU of any other node, as a share of its",
                others / run.cpu_ms[one.node_id],
                0.5 if not stale else 0.1,
            )

    def _crowd(self, estate: Estate, best: float) -> None:
        """See that a crowd does not bring it down, nor elect anybody (e)."""
        term = max(member.term for member in estate.status().members)
        run = self._load(
            "authenticate, codes",
            lambda: self._codes(estate, MANY),
            clients=MANY,
        )
        after = max(member.term for member in estate.status().members)
        measured = run.measured
        shed = measured.codes.get("RESOURCE_EXHAUSTED", 0)
        self._target(
            "(e)",
            "256 clients: share of the best throughput",
            measured.per_s / best,
            0.8,
            at_least=True,
        )
        if shed:
            self._target(
                "(e)",
                "shed calls: p95 of the answer",
                measured.shed_p95_ms,
                50,
                unit=" ms",
            )
            self._target(
                "(e)",
                "shed calls with a retry hint",
                measured.shed_with_hint / shed,
                1,
                at_least=True,
            )
        self._target("(e)", "elections under 256 clients", float(after - term), 0)

    def _bulk(self, estate: Estate) -> None:
        """See that authentication goes on beside a bulk issue (i)."""
        before = self._codes(estate, 1).measured.p50_ms
        ended = threading.Event()
        thread = threading.Thread(target=_bulk_issue, args=(estate, ended))
        thread.start()
        beside: list[float] = []
        while not ended.is_set() and len(beside) < 3:
            beside.append(self._codes(estate, 1).measured.p50_ms)
        thread.join()
        during = statistics.median(beside)
        self._report.add("p50 beside a bulk issue", without_ms=before, beside_ms=during)
        self._target(
            "(i)", "authentication's p50 beside a bulk issue", during / before, 1.5
        )

    # --- Growth

    def small(self, estate: Estate) -> float:
        """Return the p50 of one client where little is stored."""
        run = self._load(
            f"authenticate, codes, {estate.population.users} users",
            lambda: self._codes(estate, 1),
            clients=1,
        )
        return run.measured.p50_ms

    def large(self, estate: Estate, small_p50_ms: float) -> None:
        """Measure what depends on how much is stored (c, f, g), and failures."""
        users = estate.population.users
        run = self._load(
            f"authenticate, codes, {users} users",
            lambda: self._codes(estate, 1),
            clients=1,
        )
        self._target(
            "(c)",
            f"p50 at {users} users, in that at a thousand",
            run.measured.p50_ms / small_p50_ms,
            1.2,
        )
        self._codes(estate, 64)
        memory = estate.memory_mb()
        self._report.add("memory in MB", **{n: round(mb) for n, mb in memory.items()})
        self._target("(f)", "memory of a node", max(memory.values()), 150, unit=" MB")
        self._restart(estate)
        self._failover(estate)
        self._behind(estate)

    def _restart(self, estate: Estate) -> None:
        """See how long a node takes until it is ready (g)."""
        took = []
        for _ in range(3):
            node = estate.replica()
            node.stop()
            began = time.perf_counter()
            node.start()
            estate.cluster.wait_ready(node, poll_s=0.02)
            took.append(time.perf_counter() - began)
        self._report.add("start to ready in s", median=statistics.median(took))
        self._target("(g)", "start to ready", statistics.median(took), 3, unit=" s")

    def _failover(self, estate: Estate) -> None:
        """Kill the primary under load, three times."""
        gaps = []
        for _ in range(3):
            primary = estate.primary()
            others = [n for n in estate.cluster.nodes if n is not primary]
            timer = threading.Timer(2.0, primary.kill)
            timer.start()
            run = estate.authenticate(clients=8, seconds=6, calls=6000, via=others)
            timer.join()
            gaps.append(run.measured.longest_gap_s)
            primary.start()
            estate.cluster.wait_ready(primary)
        self._report.add(
            "kill -9 of the primary: longest time without an answer, in s",
            each=[round(gap, 2) for gap in gaps],
        )

    def _behind(self, estate: Estate) -> None:
        """Take a snapshot, and have a node install it that was away for too long."""
        node = estate.replica()
        node.stop()
        others = [n for n in estate.cluster.nodes if n is not node]
        needed = estate.commit_index() + 400
        while estate.commit_index() < needed:
            estate.issue(clients=8, seconds=2, count=1, via=others)
        until_snapshots(others, estate)
        began = time.perf_counter()
        node.start()
        estate.cluster.wait_ready(node, poll_s=0.05)
        took = time.perf_counter() - began
        self._report.add(
            "a node that was away for longer than the log: start to ready in s",
            seconds=round(took, 1),
            installed=node.log.read_text().count("snapshot_installed"),
        )


def until_snapshots(nodes: list[LocalNode], estate: Estate) -> None:
    """Return when the nodes have dropped the beginning of their logs."""
    deadline = time.monotonic() + 120
    while not all("log_compacted" in node.log.read_text() for node in nodes):
        if time.monotonic() > deadline:
            raise TimeoutError("the logs are not compacted")
        estate.issue(clients=8, seconds=1, count=1, via=nodes)


@contextmanager
def counting_syncs(estate: Estate) -> Iterator[Callable[[], dict[str, int]]]:
    """Count how often each node syncs its journal, by strace."""
    with tempfile.TemporaryDirectory() as folder:
        traces = {
            node.node_id: Path(folder) / node.node_id for node in estate.cluster.nodes
        }
        processes = [
            subprocess.Popen(
                [
                    *("strace", "-f", "-y", "-e", "trace=fdatasync"),
                    *("-o", str(traces[node.node_id]), "-p", str(node.pid)),
                ],
                stderr=subprocess.PIPE,
            )
            for node in estate.cluster.nodes
        ]
        for process in processes:
            process.stderr.readline()  # It says that it is attached.
        counts: dict[str, int] = {}
        yield lambda: counts
        for process in processes:
            process.terminate()
            process.wait()
        for node, trace in traces.items():
            found = re.findall(r"fdatasync\(\d+<[^>]*raft\.journal>", trace.read_text())
            counts[node] = len(found)


def _bulk_issue(estate: Estate, ended: threading.Event) -> None:
    """Issue many sets, as `sparecode emergency` does from a file."""

    async def issue() -> None:
        population = estate.population
        async with AsyncAdmin(
            [node.admin_address for node in estate.cluster.nodes],
            ca=estate.cluster.members_ca,
        ) as admin:
            await admin.login(ADMINISTRATOR, estate.cluster.password)
            await admin.bulk_issue_tokencodes(
                [
                    BulkIssueRow(serial=population.serial(number % population.users))
                    for number in range(3, 4 * BULK_SETS, 4)
                ]
            )

    try:
        asyncio.run(issue())
    finally:
        ended.set()
