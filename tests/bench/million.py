# SPDX-License-Identifier: Apache-2.0
"""
Measure a cluster with a million users and ten million codes: `make bench-million`.

The estate is made by rows (`bulk`). What is compared with a small estate takes turns
with it. Elections and answers are counted while the policy changes, and for ten minutes
of mixed load, while a node joins and the nodes take snapshots (`mixed`).
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from tests.bench import mixed, policy_changes, recovery
from tests.bench.bulk import populate_by_rows
from tests.bench.estate import Estate
from tests.bench.harness import Bench, ratio
from tests.bench.joining import folder_of, kept
from tests.bench.memory_peaks import MemoryPeaks
from tests.bench.page import write_report
from tests.bench.population import CODES_EACH, Population
from tests.bench.report import Report
from tests.results import ROOT

SMALL = 1000
CALLS_PER_S = 1500
LOADS = 60
"""
Loads of all parts, at most, so that the usable users' codes last: 450,000 codes.

The mixed load uses up to 240,000 of them, and the other parts up to 100,000.
"""
MINUTES = 10.0
START_S_MAX = 5
P50_RATIO_MAX = 1.2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.million")
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="of the mixed load"
    )
    parser.add_argument(
        "--folder", type=Path, help="keep the estates here, and use them again"
    )
    parser.add_argument("--page", action="store_true", help="write docs/performance.md")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench-million.json")
    arguments = parser.parse_args()
    command = f"make bench-million MILLION={arguments.users}{kept(arguments.folder)}"
    console, report = Console(), Report(path=arguments.out, command=command)
    bench = Bench(report, None, arguments.seconds, console)  # type: ignore[arg-type]
    with folder_of(arguments.folder, "sparecode-million-") as folder:
        measure(bench, folder, arguments.users, arguments.minutes)
    report.finish()
    report.show(console)
    if arguments.page:
        write_report("million", report)
    return report.exit_code()


def measure(bench: Bench, folder: Path, users: int, minutes: float) -> None:
    """Measure every part on one large estate."""

    def part(name: str, work: Callable[[], object]) -> None:
        with bench.part(name):
            work()

    # Each code is used once. Half of the users or more do not sign in: they are issued
    # codes, after which their own tokens are refused.
    codes = int(LOADS * bench.seconds * CALLS_PER_S)
    usable = min(users // 2, codes // CODES_EACH * 4 // 3 + 8)
    with bench.part("Build"):
        small = Estate(folder / "few", Population(users=SMALL, profile="testing"))
        large = Estate(
            folder / "large",
            Population(users=users, profile="testing", usable=usable),
            build=populate_by_rows,
        )
    with bench.part("All"), large:
        with small:
            part("One client", lambda: compare(bench, small, large))
        part("Memory", lambda: memory(bench, large))
        part("Restart", lambda: restart(bench, large))
        part("Policies", lambda: policy_changes.measure(bench, large))
        part("Mixed load", lambda: mixed.measure(bench, large, 60 * minutes))
        part("Memory at the end", lambda: memory_at_the_end(bench, large))


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
        f"p50 of one client, as a multiple of that with {SMALL:,} users",
        ratio([each.p50_ms for each in many], [each.p50_ms for each in few]),
        P50_RATIO_MAX,
    )


def memory(bench: Bench, estate: Estate) -> None:
    """Measure the memory of the nodes with loads of 64 clients, from their start on."""
    peaks = MemoryPeaks(lambda: estate.cluster.nodes)
    with peaks.watch():
        for _ in range(3):
            bench.codes(estate, 64)
    mixed.report_memory(
        bench, peaks, estate.cluster.nodes, "a node, loads of 64 clients"
    )


def memory_at_the_end(bench: Bench, estate: Estate) -> None:
    """Report what the nodes have left in memory after everything else."""
    bench.report.add(
        "memory of each node after everything else, in MB",
        **{node: round(mb) for node, mb in estate.memory_mb().items()},
    )


def restart(bench: Bench, estate: Estate) -> None:
    """Measure how long a node takes from start to ready."""
    took = recovery.start_s(bench, estate)
    bench.target("(million)", "start to ready", took, START_S_MAX, unit=" s")


if __name__ == "__main__":
    sys.exit(main())
