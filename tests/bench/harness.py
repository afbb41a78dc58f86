# SPDX-License-Identifier: Apache-2.0
"""The harness of every part of the benchmark: report, ceilings, repeated loads."""

import contextlib
import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from local_cluster.cluster import LocalNode
from rich.console import Console

from tests.bench.estate import Estate, Run
from tests.bench.limits import Limits
from tests.bench.load import Measurement
from tests.bench.report import Report, Target

CLIENTS = (1, 8, 64)
MANY = 256
CALLS_PER_S_MAX = {1: 300, 8: 800}
"""More calls than this many clients make in a second, so that no load ends early."""
CALLS_PER_S = 1500
"""The same for any other number of clients."""
CORES = os.cpu_count() or 1
HASHED_PER_S = 45 * CORES
"""Attempts that all cores hash in a second with production hashing, roughly."""
ROUNDS = 5
"""Rounds of loads that take turns."""


@dataclass
class Bench:
    """Measures, and keeps the results in a report."""

    report: Report
    limits: Limits
    seconds: float
    """Duration of each load."""
    console: Console

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure one part. A failure is reported, and the other parts continue."""
        began = time.monotonic()
        self.console.print(f"{name} ...")
        try:
            yield
        except Exception as error:  # noqa: BLE001 - printed below and in the report.
            self.report.add(name, failed=f"{type(error).__name__}: {error}")
            self.console.print(traceback.format_exc(), markup=False)
        self.report.add(f"took: {name}", seconds=round(time.monotonic() - began))
        self.report.write()

    def median_run(self, name: str, run: Callable[[], Run], **values: object) -> Run:
        """Run a load three times; report the one with the median throughput."""
        return self._keep(name, [run() for _ in range(3)], values)

    def alternate(
        self,
        loads: Mapping[str, Callable[[], Run]],
        *,
        rounds: int = ROUNDS,
        **values: object,
    ) -> list[list[Measurement]]:
        """
        Run the named loads in turn, several rounds; return the measurements of each.

        A shared machine changes its speed by a third within a minute, so loads that
        are compared must run under the same conditions.
        """
        runs: dict[str, list[Run]] = {name: [] for name in loads}
        for number in range(rounds):
            # Every second round in reverse: what runs first may have an advantage.
            for name in [*loads][:: -1 if number % 2 else 1]:
                runs[name].append(loads[name]())
        for name, each in runs.items():
            self._keep(name, each, values)
        return [[run.measured for run in each] for each in runs.values()]

    def _keep(self, name: str, runs: list[Run], values: dict[str, object]) -> Run:
        """Report the run with the median throughput, and return it."""
        middle = sorted(runs, key=lambda each: each.measured.per_s)[len(runs) // 2]
        self.report.add_load(name, middle.measured, middle.cpu_ms, **values)
        return middle

    def codes(
        self,
        estate: Estate,
        clients: int,
        via: list[LocalNode] | None = None,
        *,
        patient: bool = False,
    ) -> Run:
        """Let clients authenticate with emergency codes."""
        return self._authenticate(
            estate, "code", clients, self.seconds, via, patient=patient
        )

    def tokencodes(
        self, estate: Estate, clients: int, via: list[LocalNode] | None = None
    ) -> Run:
        """Let clients authenticate with TOTP; each tokencode is accepted once."""
        seconds = min(1.5, self.seconds)
        return self._authenticate(estate, "token", clients, seconds, via)

    def _authenticate(
        self,
        estate: Estate,
        kind: str,
        clients: int,
        seconds: float,
        via: list[LocalNode] | None = None,
        *,
        patient: bool = False,
    ) -> Run:
        per_s = CALLS_PER_S_MAX.get(clients, CALLS_PER_S)
        return estate.authenticate(
            kind=kind,
            clients=clients,
            seconds=seconds,
            calls=max(clients * 2, int(seconds * per_s)),
            via=via,
            patient=patient,
        )

    @contextlib.contextmanager
    def no_election(
        self, estate: Estate, words: str, *, name: str = "(4)"
    ) -> Iterator[None]:
        """Count elections meanwhile; the target is none."""
        before = estate.term()
        yield
        elected = float(estate.term() - before)
        self.target(name, words, elected, 0)

    def target(
        self,
        name: str,
        words: str,
        value: float | None,
        bound: float,
        *,
        at_least: bool = False,
        unit: str = "",
        interval: tuple[float, float] | None = None,
        needed: bool = False,
    ) -> None:
        """
        Compare a measured value with its bound, and report both.

        *needed*: without a value, the bound is missed.
        """
        self.report.targets.append(
            Target(
                name=name,
                words=words,
                value=value,
                target=bound,
                at_least=at_least,
                unit=unit,
                interval=interval,
                needed=needed,
            )
        )


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """Return the median of the ratios of alternating measurements."""
    return statistics.median(
        one / other for one, other in zip(numerators, denominators, strict=True)
    )
