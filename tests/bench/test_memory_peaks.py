# SPDX-License-Identifier: Apache-2.0
"""A peak of memory counts that is over when the benchmark looks, also of a child."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from tests.bench import mixed
from tests.bench.harness import Bench
from tests.bench.memory_peaks import MemoryPeaks, Peak, descendants, peak_mb
from tests.bench.report import Report
from tests.system.machines import until

LARGE = "held = b'x' * 80_000_000; del held"
NODE = f"""
import os, subprocess, sys, threading
answer = lambda: print("done", flush=True)
for line in sys.stdin:
    match line.strip():
        case "large":
            exec({LARGE!r}); answer()
        case "child":
            command = [sys.executable, "-c", {LARGE!r} + "; input()"]
            def start():
                global child
                child = subprocess.Popen(command, stdin=subprocess.PIPE)
            thread = threading.Thread(target=start); thread.start(); thread.join()
            answer()
        case "fork":
            if os.fork() == 0:
                sys.stdin.read(); os._exit(0)
            answer()
        case "end":
            child.communicate(); answer()
"""


class Process:
    """A process that does what it is told."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", NODE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid

    def do(self, work: str) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(work + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    try:
        yield process
    finally:
        process.end()


def peaks_of(process: Process) -> MemoryPeaks:
    node: Any = SimpleNamespace(node_id="n1", pid=process.pid)
    return MemoryPeaks(lambda: [node])


def test_memory_that_a_node_no_longer_has_counts(process: Process) -> None:
    peaks = peaks_of(process)
    process.do("large")
    peaks.look()
    assert 80 < peaks.seen["n1"].own < 120
    assert peaks.seen["n1"].processes == 0
    assert peak_mb(process.pid) < 60


def test_peaks_of_different_moments_are_not_added(process: Process) -> None:
    peaks = peaks_of(process)
    process.do("large")
    peaks.look()
    process.do("child")
    until(lambda: sum(map(peak_mb, descendants(process.pid))) > 80)
    peaks.look()
    peak = peaks.seen["n1"]
    assert 80 < peak.own < 120
    assert 80 < peak.processes < 120
    assert peak.processes < peak.all < 160


def test_memory_of_a_process_that_has_ended_counts(process: Process) -> None:
    """Such as one that took a snapshot, which another thread had started."""
    peaks = peaks_of(process)
    process.do("child")
    with peaks.watch():
        # It takes a moment until the process has a program, and then memory.
        until(lambda: sum(map(peak_mb, descendants(process.pid))) > 80)
        (child,) = descendants(process.pid)
        peaks.look()
        process.do("end")
    peak = peaks.seen["n1"]
    assert descendants(process.pid) == []
    assert peak_mb(child) == 0
    assert peak.own < 60
    assert 80 < peak.processes < 120
    assert peak.processes < peak.all <= peak.own + peak.processes
    (words,) = peaks.words().values()
    assert words.endswith(f", together {peak.all:.0f}")


def test_a_process_without_a_program_of_its_own_counts_once(process: Process) -> None:
    """It has the memory of the node that starts it."""
    process.do("fork")
    assert descendants(process.pid) == []


def test_a_node_misses_the_bound_by_its_processes() -> None:
    report = Report(path=Path("/nonexistent"))
    measuring = Bench(report, None, 1, Console())  # type: ignore[arg-type]
    peaks = MemoryPeaks(list)
    peaks.seen = {
        "n1": Peak(own=240, processes=9, all=249),
        "n2": Peak(own=200, processes=51, all=251),
    }
    nodes: list[Any] = [SimpleNamespace(node_id=name) for name in peaks.seen]
    for each in (nodes[:1], nodes[1:], nodes):
        mixed.report_memory(measuring, peaks, each, "a node")
    assert [target.value for target in report.targets] == [249, 251, 251]
    assert [target.holds for target in report.targets] == [True, False, False]
    assert "without them it was 240 MB" in report.targets[2].words
