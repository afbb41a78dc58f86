# SPDX-License-Identifier: Apache-2.0
"""The results, as tables on the terminal and as a JSON file."""

import dataclasses
import json
import os
import platform
import re
import sqlite3
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sparecode_node.tool.doctor.hashing import HUGE_PAGES, chosen
from tests.bench.load import Measurement
from tests.results import now_and_here

SHED = "RESOURCE_EXHAUSTED"
ALL_OF_IT = "took: all of it"
"""The last result of a complete run. Without it, the run was interrupted."""
LIBRARIES = (
    *("grpcio", "protobuf", "uvloop", "cryptography", "pynacl"),
    "argon2-cffi-bindings",
)


def here() -> dict[str, str]:
    """Return date, commit, hardware and libraries of this run."""
    processor = re.search(
        r"^model name\s*: (.*)$", _text("/proc/cpuinfo"), re.MULTILINE
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    parts = (
        processor[1] if processor else platform.machine(),
        f"{memory:.0f} GiB",
        f"Linux {platform.release().partition('-')[0]}",
        f"{_filesystem()} below the nodes",
        # They decide what a hash costs.
        f"transparent huge pages: {chosen(HUGE_PAGES / 'enabled') or 'none'}",
    )
    versions = [f"{name} {metadata.version(name)}" for name in LIBRARIES]
    versions.append(f"SQLite {sqlite3.sqlite_version}")
    return {
        **now_and_here(),
        "hardware": ", ".join(parts),
        "libraries": ", ".join(versions),
    }


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def _filesystem() -> str:
    """Return the type of the file system that holds the estates."""
    command = ("df", "--output=fstype", tempfile.gettempdir())
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split()[-1]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A promised bound, and whether the measured value is within it."""

    name: str
    words: str
    value: float | None
    """None: there was nothing to measure, for example no shed call."""
    target: float
    at_least: bool
    """If false, the target is an upper bound."""
    unit: str = ""
    interval: tuple[float, float] | None = None
    """
    Where the true value is, with a confidence of 95 %. None: the value is exact enough.

    The bound is met or missed only if all of it is on one side: otherwise the machine
    was too noisy to tell.
    """
    needed: bool = False
    """Whether the bound is missed without a value: then the load has not shown anything."""

    @property
    def holds(self) -> bool | None:
        """Whether the value is within the bound; None without a value, or too noisy."""
        if self.value is None:
            return False if self.needed else None
        if self.interval is not None:
            low, high = self.interval
            if self.at_least:
                return (
                    True
                    if low >= self.target
                    else None
                    if high >= self.target
                    else False
                )
            return (
                True if high <= self.target else None if low <= self.target else False
            )
        return self.value >= self.target if self.at_least else self.value <= self.target


@dataclass
class Report:
    """All results and targets, in the order in which they were measured."""

    path: Path
    """The file that is rewritten after each part."""
    command: str = "make bench"
    """The command of this run, with its arguments."""
    machine: dict[str, str] = field(default_factory=here)
    """Date, machine and libraries at the start."""
    began: float = field(default_factory=time.monotonic)
    results: list[dict[str, Any]] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def add(self, name: str, **values: Any) -> None:
        """Add a result."""
        self.results.append({"name": name, **values})

    def add_load(
        self,
        name: str,
        measured: Measurement,
        cpu_ms: dict[str, float] | None = None,
        **values: Any,
    ) -> None:
        """Add the result of a load."""
        figures = {
            "per_s": round(measured.per_s, 1),
            "p50_ms": round(measured.p50_ms, 2),
            "p95_ms": round(measured.p95_ms, 2),
            "p99_ms": round(measured.p99_ms, 2),
            "codes": measured.codes,
        }
        if cpu_ms is not None:
            figures["cpu_ms"] = {node: round(ms, 3) for node, ms in cpu_ms.items()}
        self.add(name, **values, **figures)

    def content(self) -> dict[str, Any]:
        """Return everything, in the form of the file."""
        return {
            "command": self.command,
            "machine": self.machine,
            "results": self.results,
            "targets": [
                {**dataclasses.asdict(target), "holds": target.holds}
                for target in self.targets
            ],
        }

    def write(self) -> None:
        """Write the results so far, as JSON."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.content(), indent=1) + "\n")

    def finish(self) -> float:
        """Record that the run is complete; return how many seconds it took."""
        seconds = round(time.monotonic() - self.began)
        self.add(ALL_OF_IT, seconds=seconds)
        self.write()
        return seconds

    def unmet(self) -> list[Target]:
        """Return the targets that are missed, or too noisy to tell."""
        return [
            target
            for target in self.targets
            if target.holds is False
            or (target.holds is None and target.value is not None)
        ]

    def exit_code(self) -> int:
        """Return 0 if every part has finished and every measured bound is met, else 1."""
        return 1 if failed(self.results) or self.unmet() else 0

    def show(self, console: Console) -> None:
        """Print loads, other results, failures and targets."""
        loads = Table(
            *("load", "clients", "a second", "p50 ms", "p99 ms", "CPU ms"),
            "not answered",
        )
        for result in self.results:
            if "per_s" in result:
                cpu = result.get("cpu_ms")
                loads.add_row(
                    escape(result["name"]),
                    str(result.get("clients", "")),
                    f"{result['per_s']:.0f}",
                    f"{result['p50_ms']:.1f}",
                    f"{result['p99_ms']:.1f}",
                    f"{sum(cpu.values()):.2f}" if cpu else "",
                    not_answered(result),
                )
        console.print(loads)
        for result in self.results:
            if "per_s" not in result:
                name, *values = result.items()
                words = ", ".join(f"{key} {_short(value)}" for key, value in values)
                console.print(f"{name[1]}: {words}", markup=False)
        for name, why in failed(self.results):
            console.print(f"FAILED: {name}: {why}", style="bold red", markup=False)
        table = Table("target", "bound", "measured", "met")
        for target in self.targets:
            sign = "at least" if target.at_least else "at most"
            value = "-" if target.value is None else f"{target.value:.2f}{target.unit}"
            if target.interval is not None:
                value += " ({:.2f} to {:.2f})".format(*target.interval)
            unknown = "?" if target.interval is None else "[yellow]too noisy[/]"
            verdict = {True: "[green]yes[/]", False: "[red]no[/]", None: unknown}
            table.add_row(
                escape(f"{target.name} {target.words}"),
                f"{sign} {target.target:g}{target.unit}",
                value,
                verdict[target.holds],
            )
        console.print(table)
        if unmet := self.unmet():
            words = f"NOT MET: {len(unmet)} of {len(self.targets)} bounds"
            console.print(words, style="bold red", highlight=False)


def failed(results: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the parts that did not finish, each with its error in one line."""
    return [
        (result["name"], " ".join(result["failed"].split()))
        for result in results
        if "failed" in result
    ]


def not_answered(result: dict[str, Any]) -> str:
    """Return which calls of a load failed, as text; empty if none did."""
    codes: dict[str, int] = result["codes"]
    total = sum(codes.values())
    return ", ".join(
        f"{count / total:.0%} shed" if code == SHED else f"{count} {code}"
        for code, count in sorted(codes.items())
        if code != "OK"
    )


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
