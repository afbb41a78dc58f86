# SPDX-License-Identifier: Apache-2.0
"""Run the prober, and judge what it saw."""

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Self

from local_cluster.cluster import AGENT, LocalCluster

from tests.faults.network import ToolError
from tests.faults.prober import INTERVAL_S, NO_CODE

GAP_MAX_S = 5.0
"""No longer time without an answer, while a majority of the nodes is up and connected."""
CALLS_MIN = 0.8
"""The least part of the intended calls: a slow machine opens some too late."""
ACCEPTED = "accepted"
STARTED_S = 60
ENDED_S = 60
"""How long the calls in progress may take to end."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that has ended."""

    opened_ns: int
    ended_ns: int
    result: str
    """`accepted`, another decision, or the reason of an error."""
    words: str = ""
    """What the client says about each node after an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """What the prober saw while the cluster was under attack."""

    calls: int
    accepted: int
    others: tuple[str, ...]
    """Decisions other than accepted, which must not be."""
    failed: int
    """Calls that no node answered in time."""
    gap_s: float
    """The longest time without an answer while a quorum existed."""
    slowest_s: float
    """The longest time that an answer took."""


def judge(
    calls: Iterable[Call],
    begin_ns: int,
    end_ns: int,
    no_quorum: Sequence[tuple[int, int]],
) -> Probes:
    """
    Return what the calls between two moments show.

    *no_quorum*: beginning and end of each time in which no majority was up and
    connected, in order. A gap does not reach into such a time.
    """
    within = [
        each
        for each in calls
        if begin_ns <= each.opened_ns <= end_ns and each.result != NO_CODE
    ]
    accepted = [each for each in within if each.result == ACCEPTED]
    others = [each.result for each in within if each.result.islower()]
    answers = sorted(each.ended_ns for each in accepted)
    gap_ns, at_ns = 0, begin_ns
    for stop_ns, again_ns in (*no_quorum, (end_ns, end_ns)):
        moments = [at_ns, *(a for a in answers if at_ns < a < stop_ns), stop_ns]
        gaps = (later - earlier for earlier, later in pairwise(moments))
        gap_ns = max(gap_ns, *gaps)
        at_ns = again_ns
    return Probes(
        calls=len(within),
        accepted=len(accepted),
        others=tuple(each for each in others if each != ACCEPTED),
        failed=len(within) - len(others),
        gap_s=gap_ns / 1e9,
        slowest_s=max((a.ended_ns - a.opened_ns for a in accepted), default=0) / 1e9,
    )


def failures(probes: Probes, seconds: float) -> list[str]:
    """Return why the prober's calls show too much or too little."""
    why = []
    if probes.gap_s > GAP_MAX_S:
        why.append(
            f"the prober got no answer for {probes.gap_s:.1f} s while a quorum existed"
        )
    if probes.others:
        why.append(
            f"{len(probes.others)} valid codes of the prober were not accepted:"
            f" {', '.join(sorted({*probes.others}))}"
        )
    if probes.calls < CALLS_MIN * seconds / INTERVAL_S:
        why.append(f"the prober opened only {probes.calls} calls")
    return why


class Prober:
    """The program, as a context manager that ends it."""

    def __init__(self, cluster: LocalCluster, session: str, output: Path) -> None:
        self._output = output
        output.unlink(missing_ok=True)
        files = cluster.certificates
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.faults.prober"),
                *(str(output), str(cluster.members_ca)),
                *(str(files / f"{AGENT}.pem"), str(files / f"{AGENT}.key")),
                *(f"{n.agents_address}/{n.admin_address}" for n in cluster.nodes),
            ],
            stdin=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(session + "\n")
        self._process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=ENDED_S)  # Closes its input, which ends it.

    def wait(self) -> None:
        """Return when its first call has ended."""
        deadline = time.monotonic() + STARTED_S
        while not (self._output.exists() and self._output.stat().st_size):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise ToolError("the prober made no call")
            time.sleep(0.1)

    def calls(self) -> list[Call]:
        """Return the calls that have ended, once the program has."""
        lines = self._output.read_text().splitlines()
        return [Call(**json.loads(line)) for line in lines]
