# SPDX-License-Identifier: Apache-2.0
"""
Measure a cluster with a million users and ten million codes: `make bench-million`.

The estate is made by rows (`bulk`). What is compared with a small estate takes turns
with it. Elections and answers are counted while the policy changes, while a node joins
by a snapshot, and while the nodes take snapshots.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local_cluster.cluster import LocalNode
from rich.console import Console

from tests.bench import administration, recovery
from tests.bench.bulk import populate_by_rows
from tests.bench.estate import Estate
from tests.bench.harness import Bench, ratio
from tests.bench.page import write_part
from tests.bench.population import CODES_EACH, Population
from tests.bench.report import ALL_OF_IT, Report
from tests.results import ROOT, row

SMALL = 1000
CALLS_PER_S = 1500
LOADS = 60
"""Loads of all parts, at most, so that the usable users' codes last."""
MEMORY_MB_MAX = 250
START_S_MAX = 5
HELD_MS_MAX = 50
P50_RATIO_MAX = 1.2
QUIET_S = 600.0
POLICY_ROUNDS = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.million")
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--page", action="store_true", help="write docs/performance.md")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench-million.json")
    arguments = parser.parse_args()
    command = f"make bench-million MILLION={arguments.users}"
    console, report = Console(), Report(path=arguments.out, command=command)
    began = time.monotonic()
    bench = Bench(report, None, arguments.seconds, console)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="sparecode-million-") as name:
        measure(bench, Path(name), arguments.users)
    report.add(ALL_OF_IT, seconds=round(time.monotonic() - began))
    report.write()
    report.show(console)
    if arguments.page:
        write_part("million", table(report))
    return 1 if bench.failed else 0


def measure(bench: Bench, folder: Path, users: int) -> None:
    """Measure every part on one large estate."""

    def part(name: str, work: Callable[[], object]) -> None:
        with bench.part(name):
            work()

    # Each code is used once.
    codes = int(LOADS * bench.seconds * CALLS_PER_S)
    usable = min(users, codes // CODES_EACH * 4 // 3 + 8)
    with bench.part("Build"):
        small = Estate(
            folder / "small", Population(users=max(SMALL, 2000), profile="testing")
        )
        large = Estate(
            folder / "large",
            Population(users=users, profile="testing", usable=usable),
            build=populate_by_rows,
        )
    with bench.part("All"):
        with large, small:
            part("One client", lambda: compare(bench, small, large))
        with large:
            part("Memory", lambda: memory(bench, large))
            part("Restart", lambda: restart(bench, large))
            part("Policies", lambda: policies(bench, large))
            part("Snapshots and a node that was away", lambda: away(bench, large))


def compare(bench: Bench, small: Estate, large: Estate) -> None:
    """Compare the p50 of a single client on both estates."""
    few, many = bench.alternate(
        {
            f"authenticate, codes, {each.population.users} users": (
                lambda each=each: bench.codes(each, 1)
            )
            for each in (small, large)
        },
        clients=1,
    )
    bench.target(
        "(million)",
        "p50 of one client, as a multiple of that with few users",
        ratio([each.p50_ms for each in many], [each.p50_ms for each in few]),
        P50_RATIO_MAX,
    )


def memory(bench: Bench, estate: Estate) -> None:
    """Measure the memory of the nodes after loads of 64 clients."""
    highest = 0.0
    for _ in range(3):
        bench.codes(estate, 64)
        highest = max(highest, *estate.memory_mb().values())
    bench.target("(million)", "memory of a node", highest, MEMORY_MB_MAX, unit=" MB")


def restart(bench: Bench, estate: Estate) -> None:
    """Measure how long a node takes from start to ready."""
    took = recovery.start_s(bench, estate)
    bench.target("(million)", "start to ready", took, START_S_MAX, unit=" s")


def policies(bench: Bench, estate: Estate) -> None:
    """Measure how long a change of the policy holds answers, and count elections."""
    gaps: dict[str, list[float]] = {
        administration.COUNTING: [],
        administration.OTHER: [],
    }
    taken: dict[str, list[float]] = {field: [] for field in gaps}
    with bench.no_election(estate, "elections while the policy changes"):
        for _ in range(POLICY_ROUNDS):
            for field, each in gaps.items():
                each.append(
                    1000
                    * longest_gap_during(
                        bench,
                        estate,
                        lambda field=field: taken[field].append(
                            administration.policy_change_ms(estate, field)
                        ),
                    )
                )
    for words, field in (
        ("that weighs live codes", administration.COUNTING),
        ("of another kind", administration.OTHER),
    ):
        bench.report.add(
            f"a policy change {words}, in ms",
            answered_after=[round(each) for each in taken[field]],
            longest_time_without_an_answer=[round(each) for each in gaps[field]],
        )
    counting, other = gaps.values()
    bench.target(
        "(million)",
        "longest time without an answer, 8 clients: ms more during a change that weighs "
        "live codes than during another change",
        max(0.0, min(counting) - min(other)),
        HELD_MS_MAX,
        unit=" ms",
    )


def longest_gap_during(
    bench: Bench,
    estate: Estate,
    work: Callable[[], object],
    via: list[LocalNode] | None = None,
) -> float:
    """Return the longest time in s without an answer for 8 clients during some work."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        longest = 0.0
        while True:
            over = done.done()
            run = estate.authenticate(
                clients=8,
                seconds=bench.seconds,
                calls=int(bench.seconds * 800),
                via=via,
            )
            longest = max(longest, run.measured.longest_gap_s)
            if over:
                done.result()
                return longest


def away(bench: Bench, estate: Estate) -> None:
    """
    Let a node that was away fetch a snapshot under load, while the others take theirs.

    That is what a node does that joins. Its log is short, so that it needs one.
    """
    recovery.shorten_logs(estate)
    node = estate.replica()
    node.stop()
    others = [each for each in estate.cluster.nodes if each is not node]
    with bench.no_election(
        estate, "elections during snapshots and the return of a node"
    ):
        recovery.leave_behind(estate, others, timeout_s=QUIET_S)
        ready_s: list[float] = []
        longest = longest_gap_during(
            bench,
            estate,
            lambda: ready_s.append(recovery.ready_s(estate, node, timeout_s=QUIET_S)),
            via=others,
        )
    bench.report.add(
        "a node that was away",
        ready_s=[round(each, 1) for each in ready_s],
        longest_time_without_an_answer_s=round(longest, 2),
        snapshots_taken_s={
            each.node_id: round(estate.snapshot_s(each, "take"), 1) for each in others
        },
    )


def table(report: Report) -> list[str]:
    """Return the lines of the results page."""
    here = report.machine
    lines = [
        f"Measured {here['date']} by `{report.command}`, commit {here['commit']},",
        f"{here['machine']}; {here['hardware']}.",
        "",
        row("", "measured", "bound", "met"),
        row("---", "---:", "---:", "---"),
    ]
    for each in report.targets:
        value = "-" if each.value is None else f"{each.value:.2f}{each.unit}"
        met = {True: "yes", False: "**no**", None: "nothing to measure"}[each.holds]
        lines.append(row(each.words, value, f"at most {each.target:g}{each.unit}", met))
    return lines


if __name__ == "__main__":
    sys.exit(main())
