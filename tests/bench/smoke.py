# SPDX-License-Identifier: Apache-2.0
"""
Measure the most important loads, in less than 3 minutes: `make bench-smoke`.

Only its duration has a target: a load of two seconds varies too much. `tests.bench.compare` also
runs this file in the tree of an earlier commit, so it uses only what that has.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from local_cluster.setup import set_up
from rich.console import Console

from tests.bench import limits
from tests.bench.estate import Estate, Run
from tests.bench.harness import CORES, Bench
from tests.bench.limits import call_echo, echo_server, sync_ms
from tests.bench.population import CODES_EACH, Population
from tests.bench.report import ALL_OF_IT, Report, failed
from tests.results import ROOT

SECONDS = 2.0
MINUTES_MAX = 3
CLIENTS = (1, 64)
ATTEMPTS_PER_S = 60 * CORES
"""More attempts than all cores hash in a second with production hashing."""
CALLS_PER_S = 1500
"""More calls than any number of clients makes in a second with cheap hashing."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.smoke")
    parser.add_argument("--out", type=Path, default=ROOT / "var" / "bench-smoke.json")
    out = parser.parse_args().out
    report, console = Report(path=out, command="make bench-smoke"), Console()
    began = time.monotonic()
    bench = Bench(report, None, SECONDS, console)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="sparecode-bench-") as name:
        measure(bench, Path(name))
    seconds = round(time.monotonic() - began)
    report.add(ALL_OF_IT, seconds=seconds)
    bench.target("(time)", "all of it", seconds / 60, MINUTES_MAX, unit=" min")
    report.write()
    report.show(console)
    console.print(f"{seconds} s; {out}")
    missed = any(target.holds is False for target in report.targets)
    return 1 if failed(report.results) or missed else 0


def measure(bench: Bench, folder: Path) -> None:
    """Measure ceilings, then three nodes with either hashing."""
    with bench.part("Ceilings of this machine"):
        certificates = set_up(folder / "certificates")
        with echo_server(certificates) as address:
            for clients in CLIENTS:
                echo = call_echo(certificates, address, clients, SECONDS)
                bench.report.add_load("echo with mutual TLS", echo, clients=clients)
        bench.report.add(
            "limits",
            sync_ms=sync_ms(folder),
            argon2id_per_s=limits.argon2id_per_s(),
        )
    attempts = sum(each + int(SECONDS * ATTEMPTS_PER_S) for each in CLIENTS)
    with (
        bench.part("Production hashing, three nodes"),
        Estate(
            folder / "production",
            Population(users=attempts // CODES_EACH * 4 // 3 + 8, profile="production"),
            own_sessions=True,
        ) as hashing,
    ):
        _authenticate(bench, hashing, ", production hashing", ATTEMPTS_PER_S)
    calls = sum(each + int(SECONDS * CALLS_PER_S) for each in CLIENTS)
    with (
        bench.part("Three nodes"),
        Estate(
            folder / "three",
            Population(users=calls // CODES_EACH * 4 // 3 + 8, profile="testing"),
        ) as three,
    ):
        _authenticate(bench, three, "", CALLS_PER_S)
        for clients in CLIENTS:
            _add(
                bench,
                "read a token, linearizable",
                three.read(clients=clients, seconds=SECONDS, stale_ok=False),
                clients,
            )
        _add(
            bench,
            "issue sets of 10",
            three.issue(clients=8, seconds=SECONDS, count=10),
            8,
        )
        bench.report.add("memory, MB", **three.memory_mb())
        three.stop()
        bench.report.add("start to ready", seconds=round(three.start(), 2))


def _authenticate(bench: Bench, estate: Estate, words: str, per_s: int) -> None:
    for clients in CLIENTS:
        run = estate.authenticate(
            clients=clients,
            seconds=SECONDS,
            calls=clients + int(SECONDS * per_s),
            patient=True,
        )
        _add(bench, f"authenticate, codes{words}", run, clients)


def _add(bench: Bench, name: str, run: Run, clients: int) -> None:
    bench.report.add_load(name, run.measured, run.cpu_ms, clients=clients)


if __name__ == "__main__":
    sys.exit(main())
