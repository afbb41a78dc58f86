# SPDX-License-Identifier: Apache-2.0
"""A benchmark of its own, on three nodes with production hashing in sessions of their own."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from tests.bench.estate import Estate
from tests.bench.harness import CORES, Bench
from tests.bench.population import Population
from tests.bench.report import Report


def measure_alone(
    report: Report,
    seconds: float,
    users: int,
    words: str,
    measure: Callable[[Bench, Estate], object],
) -> int:
    """
    Start nodes with this many users, measure, and show the report; return the exit code.

    One of two users has codes. *seconds*: of each load.
    """
    load = os.getloadavg()[0]
    bench = Bench(report, None, seconds, Console())  # type: ignore[arg-type]
    population = Population(users=users, profile="production", own_token_each=2)
    with (
        tempfile.TemporaryDirectory(prefix="sparecode-bench-") as folder,
        bench.part(f"{words}, cores: {CORES}"),
        Estate(Path(folder) / "alone", population, own_sessions=True) as estate,
    ):
        measure(bench, estate)
    report.add("load of the machine, one minute", before=load, after=os.getloadavg()[0])
    report.write()
    report.show(bench.console)
    return report.exit_code()
