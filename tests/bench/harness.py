# SPDX-License-Identifier: Apache-2.0
"""What every part of the benchmark has: a report, the ceilings, and loads median_run."""

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
"""More than a load asks in a second, so that none ends early; else:"""
CALLS_PER_S = 1500
CORES = os.cpu_count() or 1
HASHED_PER_S = 25 * CORES
"""Attempts that all cores hash in a second, with the production hashing, about."""
ROUNDS = 5
"""Of loads that take turns."""


@dataclass
class Bench:
    """Measures, and keeps what comes out in a report."""

    report: Report
    limits: Limits
    seconds: float
    """Of each load."""
    console: Console
    failed: int = 0
    """Parts that did not come to their end."""

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure one thing; that it fails is a result, and the others go on."""
        began = time.monotonic()
        self.console.print(f"{name} ...")
        try:
            yield
        except Exception as error:  # noqa: BLE001 - it is told, below and in the report.
            self.failed += 1
            self.report.add(name, failed=f"{type(error).__name__}: {error}")
            self.console.print(traceback.format_exc(), markup=False)
        self.report.add(f"took: {name}", seconds=round(time.monotonic() - began))
        self.report.write()

    def median_run(self, name: str, run: Callable[[], Run], **values: object) -> Run:
        """Do a load three times; keep the one in the middle."""
        return self._keep(name, [run() for _ in range(3)], values)

    def alternate(
        self, loads: Mapping[str, Callable[[], Run]], **values: object
    ) -> list[list[Measurement]]:
        """
        Do each load, by its name, then each again; return what each has shown.

        How fast a machine is that others share changes by a third within a minute;
        what is held against each other must have seen the same of it.
        """
        runs: dict[str, list[Run]] = {name: [] for name in loads}
        for _ in range(ROUNDS):
            for name, load in loads.items():
                runs[name].append(load())
        for name, those in runs.items():
            self._keep(name, those, values)
        return [[run.measured for run in those] for those in runs.values()]

    def _keep(self, name: str, runs: list[Run], values: dict[str, object]) -> Run:
        """Put the run in the middle into the report."""
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
        """Have clients authenticate with emergency codes."""
        return self._authenticate(
            estate, "code", clients, self.seconds, via, patient=patient
        )

    def tokencodes(
        self, estate: Estate, clients: int, via: list[LocalNode] | None = None
    ) -> Run:
        """Have clients authenticate with TOTP; each code is good for one call."""
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
        """See that nobody is elected meanwhile."""
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
    ) -> None:
        """Hold what was found against what was promised."""
        self.report.targets.append(
            Target(
                name=name,
                words=words,
                value=value,
                target=bound,
                at_least=at_least,
                unit=unit,
            )
        )


def ratio(these: Sequence[float], to_those: Sequence[float]) -> float:
    """Return the median of the ratios of what was measured in turn."""
    return statistics.median(
        this / that for this, that in zip(these, to_those, strict=True)
    )
