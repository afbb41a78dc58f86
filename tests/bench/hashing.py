# SPDX-License-Identifier: Apache-2.0
"""
Compare libsodium with argon2-cffi, the library of release 0.1.0: `make bench-hashing`.

Both hash alone on all cores, and in the nodes of one cluster, in turn.
"""

import os
import statistics
import sys
import tempfile
from pathlib import Path

from local_cluster.cluster import LocalNode
from rich.console import Console

from tests.bench import limits
from tests.bench.authentication import EVALUATIONS
from tests.bench.estate import Estate, Run
from tests.bench.harness import CORES, HASHED_PER_S, Bench, ratio
from tests.bench.limits import Limits
from tests.bench.population import CODES_EACH, Population
from tests.bench.report import Report
from tests.results import ROOT

OLDER = Path(__file__).parent / "argon2_cffi"
"""Nodes with this folder in PYTHONPATH hash by argon2-cffi."""
CLIENTS = 64
ROUNDS = 3
SECONDS = 8.0
FASTER = 1.6
"""The target of authentications with libsodium, as a multiple of those with argon2-cffi."""
SHARE = 0.75
"""The target of authentications, as a share of what all cores hash with libsodium."""


def compare(bench: Bench, estate: Estate, rounds: int = ROUNDS) -> None:
    """Measure three nodes with either library, in turn, and what all cores can hash."""
    seen: dict[str, list[Run]] = {"argon2-cffi": [], "libsodium": []}
    ceilings = []
    estate.share_cores()
    for number in range(rounds):
        for library in [*seen][:: -1 if number % 2 else 1]:
            estate.stop()
            if library == "libsodium":
                ceilings.append(limits.argon2id_per_s() / EVALUATIONS)
            for node in estate.cluster.nodes:
                choose(node, library)
            estate.start()
            seen[library].append(_load(estate, bench.seconds))
    # What is measured next on this estate compares with runs of other days.
    estate.stop()
    estate.take_all_cores()
    estate.start()
    for library, runs in seen.items():
        middle = sorted(runs, key=lambda each: each.measured.per_s)[rounds // 2]
        bench.report.add_load(
            f"authenticate, codes, production hashing by {library}, in turn",
            middle.measured,
            middle.cpu_ms,
            clients=CLIENTS,
        )
    older, newer = ([run.measured.per_s for run in runs] for runs in seen.values())
    bench.report.add(
        "attempts that all cores can hash by libsodium, between these loads",
        attempts_per_s=round(statistics.median(ceilings), 1),
    )
    bench.target(
        "(a)",
        f"{CLIENTS} clients: authentications with libsodium, as a multiple of "
        "argon2-cffi's",
        ratio(newer, older),
        FASTER,
        at_least=True,
    )
    bench.target(
        "(a)",
        f"{CLIENTS} clients: share of what all cores can hash with libsodium",
        ratio(newer, ceilings),
        SHARE,
        at_least=True,
    )


def processor_ms(rounds: int = 5) -> tuple[float, float]:
    """Return the processor time of a hash by argon2-cffi and by libsodium, in turn."""
    libraries = (limits.argon2_cffi, limits.libsodium)
    seen = [[limits.argon2id_cpu_ms(each) for each in libraries] for _ in range(rounds)]
    older, newer = map(statistics.median, zip(*seen, strict=True))
    return older, newer


def choose(node: LocalNode, library: str) -> None:
    """Make a node hash by this library from its next start on."""
    if library == "argon2-cffi":
        node.environment["PYTHONPATH"] = str(OLDER)
    else:
        node.environment.pop("PYTHONPATH", None)


def _load(estate: Estate, seconds: float) -> Run:
    return estate.authenticate(
        clients=CLIENTS,
        seconds=seconds,
        calls=CLIENTS + int(seconds * HASHED_PER_S),
        patient=True,
    )


def users(seconds: float, rounds: int = ROUNDS) -> int:
    """Return the number of users whose codes last for `compare`."""
    calls = 2 * rounds * (CLIENTS + int(seconds * HASHED_PER_S))
    return 2 * (calls // CODES_EACH + 1)  # One of two has codes.


def main() -> int:
    """Compare the libraries alone; return the exit code."""
    report = Report(path=ROOT / "var" / "hashing.json", command="make bench-hashing")
    console = Console()
    load, alone = os.getloadavg()[0], limits.hashing()
    report.add("hashes at 19 MiB and two passes, each library alone", **alone)
    older, newer = processor_ms()
    report.add("processor time of a hash, in ms", libsodium=newer, argon2_cffi=older)
    report.add(
        "libsodium, as a multiple of argon2-cffi",
        one_hash=alone["argon2_cffi_ms"] / alone["argon2id_ms"],
        all_cores=alone["argon2id_per_s"] / alone["argon2_cffi_per_s"],
        processor_time=older / newer,
    )
    report.add("load of the machine, one minute", before=load, after=os.getloadavg()[0])
    none = Limits(echo={}, sync_ms=0, commits_per_s=0, **alone)
    bench = Bench(report, none, SECONDS, console)
    with tempfile.TemporaryDirectory(prefix="sparecode-bench-") as folder:
        population = Population(
            users=users(SECONDS), profile="production", own_token_each=2
        )
        with (
            bench.part(f"Three nodes with either library, cores: {CORES}"),
            Estate(Path(folder) / "hashing", population, own_sessions=True) as estate,
        ):
            compare(bench, estate)
    report.write()
    report.show(console)
    return report.exit_code()


if __name__ == "__main__":
    sys.exit(main())
