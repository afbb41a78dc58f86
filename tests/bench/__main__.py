# SPDX-License-Identifier: Apache-2.0
"""
Measure Sparecode against the ceilings of this machine: `make bench`.

Uses real processes, mutual TLS and durable writes. Prints the tables, and writes
them to `var/bench.json` after each part and the charts to `var/bench.png`.
"""

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from local_cluster.setup import set_up
from rich.console import Console

from tests.bench import (
    administration,
    authentication,
    hashing,
    overload,
    recovery,
    storage,
)
from tests.bench import limits as ceilings
from tests.bench.bulk import populate_by_rows
from tests.bench.estate import Estate
from tests.bench.harness import CORES, Bench
from tests.bench.limits import Limits
from tests.bench.plot import draw
from tests.bench.population import CODES_EACH, Population
from tests.bench.report import Report
from tests.results import ROOT

SMALL = 1000
"""Users of the estate that the large one is compared with."""
MINUTES_MAX = 45
ALL_LOADS_S, LOADS_OF_ONE_S = 320, 100
"""
Of the loads with codes and production hashing, on three nodes and on one, and some more.

They use no more codes than all cores can hash in this time.
"""
USERS_OF_PRODUCTION = 2400 * max(2, CORES)
CLOCK_MONOTONIC_COARSE = 6
"""It moves with the kernel's tick, after which another session gets a core (time(7))."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument(
        "--users", type=int, default=100_000, help="of the large estate"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench.json")
    arguments = parser.parse_args()
    if arguments.users <= SMALL:
        parser.error(f"--users must be more than {SMALL}, which they are compared with")
    if arguments.seconds <= 0:
        parser.error("--seconds must be more than 0")
    if not shutil.which("strace"):
        parser.error("strace is not installed; run `make system-packages`")
    command = f"make bench USERS={arguments.users} SECONDS={arguments.seconds:g}"
    console, report = Console(), Report(path=arguments.out, command=command)
    report.write()  # Otherwise an interrupted run would leave the previous results.
    with tempfile.TemporaryDirectory(prefix="sparecode-bench-") as name:
        folder = Path(name)
        console.print("Ceilings of this machine ...")
        limits = measure_machine(report, folder, arguments.seconds)
        bench = Bench(report, limits, arguments.seconds, console)
        measure(bench, folder, arguments.users)
    draw(report.results, arguments.out.with_suffix(".png"))
    seconds = report.finish()
    bench.target("(time)", "all of it", seconds / 60, MINUTES_MAX, unit=" min")
    report.write()
    report.show(console)
    console.print(f"{seconds} s; {arguments.out}")
    return bench.report.exit_code()


def measure_machine(report: Report, folder: Path, seconds: float) -> Limits:
    """Measure and report the ceilings."""
    certificates = set_up(folder / "certificates")
    limits = ceilings.measure(certificates, folder, (1, 8, 64, 256), seconds)
    for clients, measured in limits.echo.items():
        report.add_load("echo with mutual TLS", measured, clients=clients)
    report.add(
        "limits",
        sync_ms=limits.sync_ms,
        argon2id_ms=limits.argon2id_ms,
        argon2id_per_s=limits.argon2id_per_s,
        argon2_cffi_ms=limits.argon2_cffi_ms,
        argon2_cffi_per_s=limits.argon2_cffi_per_s,
        commits_per_s=limits.commits_per_s,
        tick_ms=1000 * time.clock_getres(CLOCK_MONOTONIC_COARSE),
    )
    report.write()
    return limits


def measure(bench: Bench, folder: Path, users: int) -> None:
    """Measure every part, each on the estate that it needs."""

    def part(name: str, work: Callable[[], object]) -> None:
        with bench.part(name):
            work()

    with (
        bench.part("Production hashing, three nodes"),
        production(folder / "production-3", 3, most(bench, ALL_LOADS_S)) as estate_3,
    ):
        authentication.production(bench, estate_3)
        part("Either library", lambda: hashing.compare(bench, estate_3))
        with bench.part("Overload"), overload.lateness_of(estate_3) as late:
            part(
                "A crowd for a minute, production hashing",
                lambda: overload.sustained_overload_of_production(
                    bench, estate_3, late
                ),
            )
            part(
                "Busy programs beside a crowd",
                lambda: overload.starved(bench, estate_3, late),
            )
        part("In one session", lambda: authentication.one_session(bench, estate_3))
        part(
            "Bulk issue, production hashing",
            lambda: administration.bulk_of_production(bench, estate_3),
        )
    with (
        bench.part("Production hashing, one node"),
        production(folder / "production-1", 1, most(bench, LOADS_OF_ONE_S)) as estate_1,
    ):
        authentication.one_node_production(bench, estate_1)
    with (
        bench.part("One node"),
        estate(folder / "single", 12_000, nodes=1) as alone,
    ):
        authentication.one_node(bench, alone)
    with bench.part("Three nodes"), estate(folder / "three", 36_000) as three:
        best = authentication.three_nodes(bench, three)
        part("Through one node", lambda: authentication.through_one_node(bench, three))
        part("A crowd", lambda: overload.crowd(bench, three, best))
        part("Syncs", lambda: authentication.syncs(bench, three))
        part("Issuing", lambda: administration.issuing(bench, three))
        part("Reading", lambda: administration.reading(bench, three))
        with bench.part("A crowd for a minute"), overload.lateness_of(three) as late:
            overload.sustained_overload(bench, three, late)
        part("The event loop", lambda: overload.steps(bench, three, folder))
        part("Bulk issue", lambda: administration.bulk(bench, three))
    with bench.part(f"Much in store, users: {users}"):
        small, large = estates = [
            estate(folder / f"growing-{stored}", stored) for stored in (SMALL, users)
        ]
        with bench.part("Growing"), contextlib.ExitStack() as running:
            for each in estates:
                running.enter_context(each)
            authentication.growth(bench, estates)
            administration.growth(bench, estates)
            for each in estates:
                recovery.memory_mb(bench, each, "after one client")
        with bench.part(f"Little in store, users: {SMALL}"), small:
            recovery.growth(bench, small)
        with large:
            part("Memory", lambda: recovery.memory(bench, large))
            part("State", lambda: storage.state(bench, large))
            part("Restart", lambda: recovery.restart(bench, large))
            part("Policies", lambda: administration.policies(bench, large))
            part("kill -9", lambda: recovery.crash(bench, large))
            part("Snapshots", lambda: recovery.snapshots(bench, large))


def most(bench: Bench, seconds: float) -> int:
    """Return how many attempts all cores can hash in this time."""
    return int(seconds * bench.limits.argon2id_per_s / authentication.EVALUATIONS)


def production(directory: Path, nodes: int, codes: int) -> Estate:
    """
    Return a cluster with production hashing, each node in its own session.

    It has no more codes than its loads can use: the build hashes each of them.
    """
    population = Population(
        users=USERS_OF_PRODUCTION,
        profile="production",
        own_token_each=2,
        usable=min(USERS_OF_PRODUCTION, 2 * (codes // CODES_EACH + 1)),
    )
    return Estate(
        directory, population, nodes=nodes, own_sessions=True, build=populate_by_rows
    )


def estate(directory: Path, users: int, *, nodes: int = 3) -> Estate:
    """Return a cluster with cheap hashing and *users* users."""
    population = Population(users=users, profile="testing")
    return Estate(directory, population, nodes=nodes, build=populate_by_rows)


if __name__ == "__main__":
    sys.exit(main())
