# SPDX-License-Identifier: Apache-2.0
"""Probes inside a node: its disk syncs, and the long steps of its event loop."""

import asyncio
import functools
import gc
import json
import os
import re
import runpy
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from local_cluster.cluster import LocalNode

JOURNAL = r"fdatasync\(\d+<[^>]*raft\.journal>"
SYNC = r"\b(?:fdatasync|fsync)\(\d+<"

NOTE_MS = 2.0
"""Steps of the loop that compute for this long are recorded."""
TO = "SPARECODE_BENCH_STEPS"
"""The environment variable with the file that the steps are written to."""


@dataclass(frozen=True, slots=True)
class Syncs:
    """The number of syncs per node id; known when counting ends."""

    journal: dict[str, int] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    """
    Of all other files: the state's database, when SQLite checkpoints its write-ahead
    log, and snapshots.
    """


@contextmanager
def count_syncs(nodes: list[LocalNode]) -> Iterator[Syncs]:
    """Count the syncs of each node, of its journal and of other files, with strace."""
    counts = Syncs()
    with tempfile.TemporaryDirectory() as folder:
        traces = {node.node_id: Path(folder) / node.node_id for node in nodes}
        processes = [
            subprocess.Popen(
                [
                    *("strace", "-f", "-y", "-e", "trace=fdatasync,fsync"),
                    *("-o", str(traces[node.node_id]), "-p", str(node.pid)),
                ],
                stderr=subprocess.PIPE,
            )
            for node in nodes
        ]
        try:
            for process in processes:
                process.stderr.readline()  # strace reports that it is attached.
            yield counts
        finally:
            for process in processes:
                process.terminate()
                process.wait()
        for node, trace in traces.items():
            counts.journal[node], counts.others[node] = syncs_in(trace.read_text())


def syncs_in(trace: str) -> tuple[int, int]:
    """Return the syncs of a node's journal, and of other files, in a trace."""
    journal = len(re.findall(JOURNAL, trace))
    return journal, len(re.findall(SYNC, trace)) - journal


def watch_steps(node: LocalNode, to: Path) -> None:
    """Make a node record the long steps of its event loop from its next start on."""
    node.environment = {**node.environment, TO: str(to)}
    node.launcher = (sys.executable, "-m", "tests.bench.probes")


def steps_of(path: Path) -> list[tuple[float, str]]:
    """Return the long steps of a node in CPU ms, longest first."""
    if not path.exists():
        return []
    return sorted((tuple(json.loads(line)) for line in path.open()), reverse=True)


def run_watched() -> None:
    """
    Run a node and record the CPU time of each step of its event loop.

    Wall-clock time would show the other processes of a busy machine.
    """
    notes = Path(os.environ[TO]).open("a", buffering=1)  # noqa: SIM115 - open until the end.
    run: Callable[[asyncio.Handle], None] = asyncio.Handle._run
    looks: Counter[int] = Counter()

    def looked_for_garbage(phase: str, _: object) -> None:
        looks[threading.get_ident()] += phase == "stop"

    @functools.wraps(run)
    def watched(handle: asyncio.Handle) -> None:
        began, before = time.thread_time(), looks[threading.get_ident()]
        run(handle)
        took_ms = (time.thread_time() - began) * 1000
        if took_ms >= NOTE_MS:
            garbage = looks[threading.get_ident()] > before
            name = _name(handle) + ", with garbage" * garbage
            notes.write(json.dumps([round(took_ms, 2), name]) + "\n")

    gc.callbacks.append(looked_for_garbage)
    asyncio.Handle._run = watched  # type: ignore[method-assign]
    # uvloop does not run its steps in Python, so they cannot be observed.
    uvloop.new_event_loop = asyncio.new_event_loop
    # `LocalNode` put this module before the command of the node: remove it.
    sys.argv = ["sparecode-node", *sys.argv[sys.argv.index("--config") :]]
    runpy.run_module("sparecode_node", run_name="__main__", alter_sys=True)


def _name(handle: asyncio.Handle) -> str:
    callback = getattr(handle, "_callback", None)
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        return f"{task.get_name()}: {getattr(task.get_coro(), '__qualname__', '')}"
    return str(getattr(callback, "__qualname__", callback))[:120]


if __name__ == "__main__":
    run_watched()
