# SPDX-License-Identifier: Apache-2.0
"""
Measure a cluster with a million users and ten million codes: `make bench-million`.

The estate is made by rows (`bulk`). What is compared with a small estate takes turns
with it. Elections and answers are counted while the policy changes, and for ten minutes
of mixed load, while a node joins and the nodes take snapshots (`mixed`).

Hashing is cheap there, so that it hides nothing else. `--profile production` measures the
memory of the nodes with the default one, in the same loads.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from sparecode_node.services.secrets.kdf import PROFILES
from tests.bench import mixed, policy_changes, recovery
from tests.bench.bulk import populate_by_rows
from tests.bench.estate import Estate
from tests.bench.harness import Bench, ratio
from tests.bench.joining import folder_of, kept
from tests.bench.memory_peaks import MemoryPeaks
from tests.bench.page import write_report
from tests.bench.population import CODES_EACH, Population
from tests.bench.report import Report
from tests.bench.smoke import ATTEMPTS_PER_S
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
    parser.add_argument(
        "--profile",
        choices=sorted(PROFILES),
        default="testing",
        help="of hashing; with production, only memory and the mixed load",
    )
    parser.add_argument("--page", action="store_true", help="write docs/performance.md")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench-million.json")
    arguments = parser.parse_args()
    hashes = arguments.profile == "production"
    options = kept(arguments.folder, *(["--profile production"] if hashes else []))
    command = f"make bench-million MILLION={arguments.users}{options}"
    console, report = Console(), Report(path=arguments.out, command=command)
    bench = Bench(report, None, arguments.seconds, console)  # type: ignore[arg-type]
    measured = memory_while_hashing if hashes else measure
    with folder_of(arguments.folder, "sparecode-million-") as folder:
        measured(bench, folder, arguments.users, arguments.minutes)
    report.finish()
    report.show(console)
    if arguments.page:
        write_report("million hashing" if hashes else "million", report)
    return report.exit_code()


def measure(bench: Bench, folder: Path, users: int, minutes: float) -> None:
    """Measure every part on one large estate, with cheap hashing."""
    with bench.part("Build"):
        small = Estate(folder / "few", Population(users=SMALL, profile="testing"))
        large = large_estate(bench, folder / "large", users, "testing", CALLS_PER_S)
    with bench.part("All"), large:
        with small, bench.part("One client"):
            compare(bench, small, large)
        with bench.part("Memory"):
            memory(bench, large)
        with bench.part("Restart"):
            restart(bench, large)
        with bench.part("Policies"):
            policy_changes.measure(bench, large)
        mixed_load(bench, large, minutes)


def memory_while_hashing(
    bench: Bench, folder: Path, users: int, minutes: float
) -> None:
    """Measure what needs memory, with the default hashing."""
    with bench.part("Build"):
        large = large_estate(
            bench, folder / "hashing", users, "production", ATTEMPTS_PER_S
        )
        large.share_cores()
    with bench.part("All"), large:
        with bench.part("Memory"):
            memory(bench, large)
        mixed_load(bench, large, minutes)


def large_estate(
    bench: Bench, folder: Path, users: int, profile: str, calls_per_s: int
) -> Estate:
    """Build an estate with codes for this many calls a second."""
    # Each code is used once. Half of the users or more do not sign in: they are issued
    # codes, after which their own tokens are refused.
    codes = int(LOADS * bench.seconds * calls_per_s)
    usable = min(users // 2, codes // CODES_EACH * 4 // 3 + 8)
    return Estate(
        folder,
        Population(users=users, profile=profile, usable=usable),
        build=populate_by_rows,
    )


def mixed_load(bench: Bench, estate: Estate, minutes: float) -> None:
    """Measure the mixed load, and the memory after everything else."""
    with bench.part("Mixed load"):
        mixed.measure(bench, estate, 60 * minutes)
    with bench.part("Memory at the end"):
        memory_at_the_end(bench, estate)


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
            bench.codes(estate, 64, patient=True)
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
