# SPDX-License-Identifier: Apache-2.0
"""
Measure Sparecode against what this machine can do: `make bench`.

Real processes, mutual TLS, everything durable. The tables are printed, and
written to `var/bench.json`.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from local_cluster.setup import set_up
from rich.console import Console

from tests.bench import indistinguishable
from tests.bench import limits as ceilings
from tests.bench.estate import Estate
from tests.bench.population import Population
from tests.bench.report import Report
from tests.bench.scenarios import SHORT_LOG, Scenarios
from tests.results import ROOT

SMALL_USERS = 1000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument(
        "--users", type=int, default=100_000, help="of the large estate"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench.json")
    wanted = parser.parse_args()
    if not shutil.which("strace"):
        parser.error("strace is not installed (make system-packages)")
    console, report = Console(), Report()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sparecode-bench-") as name:
        folder = Path(name)
        console.print("What this machine can do")
        limits = ceilings.measure(
            set_up(folder / "certificates"), folder, (1, 8, 64, 256), wanted.seconds
        )
        for clients, measured in limits.echo.items():
            report.add_load("echo with mutual TLS", measured, clients=clients)
        report.add(
            "limits",
            sync_ms=limits.sync_ms,
            argon2id_ms=limits.argon2id_ms,
            argon2id_per_s=limits.argon2id_per_s,
            commits_per_s=limits.commits_per_s,
        )
        scenarios = Scenarios(report, limits, seconds=wanted.seconds)
        console.print("With the hashing of production")
        scenarios.production(folder / "production", users=128)
        console.print("One node")
        scenarios.single(folder / "single", users=4000)
        console.print("Three nodes, a thousand users and more")
        population = Population(users=SMALL_USERS * 8, profile="testing")
        with Estate(folder / "three", population) as estate:
            scenarios.three(estate)
            indistinguishable.measure(estate, report)
        with Estate(
            folder / "small", Population(users=SMALL_USERS, profile="testing")
        ) as estate:
            small_ms = scenarios.small(estate)
        console.print(f"Three nodes, {wanted.users} users")
        large = Estate(
            folder / "large",
            Population(users=wanted.users, profile="testing"),
            raft=SHORT_LOG,
        )
        with large:
            scenarios.large(large, small_ms)
    report.write(wanted.out)
    report.show(console)
    console.print(f"{time.monotonic() - began:.0f} s; {wanted.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
