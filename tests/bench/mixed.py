# SPDX-License-Identifier: Apache-2.0
"""
Minutes of mixed load on a large estate: nodes may neither elect nor starve.

Users sign in with emergency codes and with tokencodes, administrators sign in, read
tokens, issue codes and change the policy, all nodes take snapshots, and a node joins by
a ticket.
"""

import contextlib
import itertools
import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from local_cluster.cluster import LocalNode

from sparecode_node.replication.settings import RaftSettings
from tests.bench import administration, recovery, snapshot_turns
from tests.bench.estate import Estate, Run
from tests.bench.harness import Bench
from tests.bench.joining import EstateSite, Join, join, remove
from tests.bench.memory_peaks import MemoryPeaks
from tests.bench.snapshot_turns import Course

CODE_CLIENTS = 4
CODES_PER_S = 400
"""More codes than these clients use in a second."""
TOKEN_CLIENTS = 2
TOKENS_PER_S = 150
TOKEN_SLICE_S = 5.0
"""Tokencodes are made before a load, and are accepted for half a minute."""
READ_CLIENTS = 2
ISSUES_PER_S = 200
BOUND_CLIENTS = {
    "codes": CODE_CLIENTS,
    "tokencodes": TOKEN_CLIENTS,
    "reads": READ_CLIENTS,
}
"""Loads that must not starve. Issues may: hashes of new codes wait for those of passcodes."""
SLICES = 10
"""Loads of each kind, one after another, in the planned time."""
SLICE_MIN_S = 5.0
CHANGES = 20
"""Changes of the policy in the planned time."""
CHANGE_REPEATS = 60
"""Of one change: a count of ten million codes takes long beside these loads."""
JOINS_AFTER = 0.2
"""The part of the time after which the node joins: the loads run by then."""
FULL_S = 600.0
"""Shorter runs have shorter logs, so that snapshots fall into them."""
JOIN_READY_S, JOIN_VOTES_S = 1200.0, 300.0
VOTES_S_MAX = 600.0
"""Until it votes, a cluster of three that replaces a lost node has no node to spare."""
MEMORY_MB_MAX = 250
GAP_S_MAX = 1.0
"""
A primary's death holds answers for half a second to a second. What an operator plans, such
as a join, must not hold them for longer than that.
"""


class Streams:
    """Loads of several kinds, each again and again in a thread of its own."""

    def __init__(self) -> None:
        self._ends = threading.Event()
        self.runs: dict[str, list[Run]] = {}
        self.changes: list[tuple[str, float]] = []
        """The fields of the policy that were changed, and how long each took in ms."""

    def run(
        self,
        loads: Mapping[str, Callable[[], Run]],
        change: Callable[[str], float],
        *,
        seconds: float,
        pause_s: float,
        beside: Callable[[], Join],
    ) -> tuple[Join, float, float]:
        """
        Run all loads for these seconds, or until the node that joins *beside* them votes.

        Returns the join *beside* them, and when it began and the node voted. Raises what
        a load raises.
        """
        self.runs = {name: [] for name in loads}
        ends_at = time.perf_counter() + seconds
        with ThreadPoolExecutor(len(loads) + 1) as pool:
            try:
                futures = [
                    pool.submit(self._repeat, name, load)
                    for name, load in loads.items()
                ]
                futures.append(pool.submit(self._change, change, pause_s))
                ended_early, _ = wait(futures, JOINS_AFTER * seconds, "FIRST_COMPLETED")
                for future in ended_early:
                    future.result()  # It has failed: loads do not end by themselves.
                began = time.perf_counter()
                result = beside()
                result.votes.result()
                ended = time.perf_counter()
                wait(futures, max(0.0, ends_at - ended), "FIRST_COMPLETED")
            finally:
                self._ends.set()
            for future in futures:
                future.result()
        return result, began, ended

    def _repeat(self, name: str, load: Callable[[], Run]) -> None:
        while not self._ends.is_set():
            self.runs[name].append(load())

    def _change(self, change: Callable[[str], float], pause_s: float) -> None:
        for field in itertools.cycle((administration.COUNTING, administration.OTHER)):
            if self._ends.is_set():
                return
            self.changes.append((field, change(field)))
            self._ends.wait(pause_s)


def longest_gap_s(runs: Sequence[Run], began: float, ended: float) -> float:
    """Return the longest time without an answer of the runs that fall into a time."""
    return max(
        (
            run.measured.longest_gap_s
            for run in runs
            if run.measured.began < ended
            and run.measured.began + run.measured.lasted_s > began
        ),
        default=math.inf,
    )


def loads_of(estate: Estate, seconds: float) -> dict[str, Callable[[], Run]]:
    """Return the loads that run at the same time, each for these seconds."""
    population = estate.population
    # Of those who do not sign in: an issue would refuse their own tokens.
    owners = itertools.cycle(
        number
        for number in range(len(population.signing_in), population.users)
        if not population.has_codes(number)
    )
    return {
        "codes": lambda: estate.authenticate(
            clients=CODE_CLIENTS,
            seconds=seconds,
            calls=int(seconds * CODES_PER_S),
        ),
        "tokencodes": lambda: estate.authenticate(
            kind="token",
            clients=TOKEN_CLIENTS,
            seconds=min(seconds, TOKEN_SLICE_S),
            calls=int(min(seconds, TOKEN_SLICE_S) * TOKENS_PER_S),
        ),
        "reads": lambda: estate.read(
            clients=READ_CLIENTS, seconds=seconds, stale_ok=False
        ),
        "issues": lambda: estate.issue(
            clients=1,
            seconds=seconds,
            count=10,
            numbers=list(itertools.islice(owners, int(seconds * ISSUES_PER_S))),
        ),
    }


def measure(bench: Bench, estate: Estate, seconds: float) -> None:
    """Measure all of it for these seconds; the first fifth is before the join."""
    settings, is_short = RaftSettings(), seconds < FULL_S
    if is_short:
        entries = int(settings.log_entries_max * seconds / FULL_S)
        settings = recovery.shorten_logs(estate, max(recovery.SHORT_LOG, entries))
    copied_s = snapshot_turns.alone_s(estate)
    site, streams, since = EstateSite(estate), Streams(), time.time()
    index = estate.commit_index()
    # The site has the node that joins, too, from before its start on.
    peaks = MemoryPeaks(site.machines.values)
    with contextlib.ExitStack() as stack:

        def joining() -> Join:
            joined = join(
                site,
                estate.cluster,
                "joiner",
                ready_s=JOIN_READY_S,
                votes_s=JOIN_VOTES_S,
            )
            stack.callback(remove, site, joined.node)
            return joined

        with (
            peaks.watch(),
            bench.no_election(
                estate, "elections during the mixed load", name="(million)"
            ),
        ):
            joined, began, ended = streams.run(
                loads_of(estate, max(SLICE_MIN_S, seconds / SLICES)),
                lambda field: administration.policy_change_ms(
                    estate, field, repeats=CHANGE_REPEATS
                ),
                seconds=seconds,
                pause_s=seconds / CHANGES,
                beside=joining,
            )
        lasted = time.time() - since
        entries_per_s = (estate.commit_index() - index) / lasted
        _report_streams(bench, streams, lasted)
        _report_join(bench, joined, streams.runs["codes"], began, ended)
        bench.report.add(
            "highest memory during the mixed load, in MB: a node and its processes",
            **peaks.words(),
        )
        members, new = estate.cluster.nodes, [joined.node]
        report_memory(bench, peaks, members, "a node, mixed load")
        report_memory(bench, peaks, new, "the node that joins, mixed load")
        course = Course(
            since=since,
            entries_per_s=entries_per_s,
            settings=settings,
            alone_s=copied_s,
            are_turns_short=is_short,
        )
        snapshot_turns.report(bench, [*estate.cluster.nodes, joined.node], course)


def _report_streams(bench: Bench, streams: Streams, lasted_s: float) -> None:
    for name, runs in streams.runs.items():
        measured = [run.measured for run in runs]
        calls = sum(sum(each.codes.values()) for each in measured)
        answered = sum(each.answered for each in measured)
        bench.report.add(
            f"mixed load, {name}",
            answered_a_second=round(
                answered / sum(each.seconds for each in measured), 1
            ),
            p50_ms=round(statistics.median(each.p50_ms for each in measured), 1),
            highest_p99_ms=round(max(each.p99_ms for each in measured), 1),
            not_answered=calls - answered,
            longest_time_without_an_answer_s=round(
                max(each.longest_gap_s for each in measured), 2
            ),
        )
    bench.report.add(
        "mixed load, all of it",
        minutes=round(lasted_s / 60, 1),
        changes_of_the_policy=len(streams.changes),
        longest_change_ms=round(max(took for _, took in streams.changes)),
    )
    for name, clients in BOUND_CLIENTS.items():
        bench.target(
            "(million)",
            f"mixed load with snapshots and a join: longest time without an answer to "
            f"{clients} clients, {name}",
            max(run.measured.longest_gap_s for run in streams.runs[name]),
            GAP_S_MAX,
            unit=" s",
        )


def report_memory(
    bench: Bench, peaks: MemoryPeaks, nodes: Sequence[LocalNode], words: str
) -> None:
    """Compare the highest memory of these nodes with the bound."""
    own = max(peaks.seen[node.node_id].own for node in nodes)
    bench.target(
        "(million)",
        f"highest memory of {words}, with the processes that it starts; without them it "
        f"was {own:.0f} MB",
        peaks.highest(nodes),
        MEMORY_MB_MAX,
        unit=" MB",
    )


def _report_join(
    bench: Bench, joined: Join, runs: Sequence[Run], began: float, ended: float
) -> None:
    votes_s = joined.votes.result().seconds
    bench.report.add(
        "a node that joined under this load",
        serves_after_s=round(joined.serves.seconds, 1),
        votes_after_s=round(votes_s, 1),
        longest_time_without_an_answer_meanwhile_s=round(
            longest_gap_s(runs, began, ended), 2
        ),
    )
    bench.target(
        "(million)",
        "a join under load: from the start of the node until it votes",
        votes_s,
        VOTES_S_MAX,
        unit=" s",
    )
