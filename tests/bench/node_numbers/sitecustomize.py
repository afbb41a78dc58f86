# SPDX-License-Identifier: Apache-2.0
"""
Count in a node what only the node knows: with this folder in PYTHONPATH.

Python imports it before the node's other modules. The numbers go into a file that the
benchmark reads at any time (`tests.bench.numbers`). No node reads this elsewhere.
"""

import gc
import importlib
import mmap
import os
import time
from pathlib import Path

TO, WHAT = "SPARECODE_BENCH_NUMBERS", "SPARECODE_BENCH_COUNTED"
"""Environment variables: the file, and what is counted."""
COLLECTOR, LATENESS, MOMENTS = "collector", "lateness", "moments"
FIELDS = (
    *("collections", "full_collections", "collecting_s", "longest_collection_s"),
    *("tick_s", "beat_s", "sync_s", "silence_s"),
    *("entry_s", "policy_entry_s", "policy_cpu_s", "policy_at_s"),
)
"""
Each is a float in the file; those of lateness are the longest of their kind.

`policy_at_s` is when the node began to apply the last entry that changes the policy, by
the monotonic clock, which all processes share on Linux.
"""


class Numbers:
    """The numbers in a file, which the node and the benchmark share."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8 * len(FIELDS))
        self._values = memoryview(self._memory).cast("d")

    def __getitem__(self, name: str) -> float:
        return self._values[FIELDS.index(name)]

    def __setitem__(self, name: str, value: float) -> None:
        self._values[FIELDS.index(name)] = value

    def raise_to(self, name: str, value: float) -> None:
        """Keep the largest value."""
        self[name] = max(self[name], value)

    def all(self) -> dict[str, float]:
        """Return all numbers by name."""
        return dict(zip(FIELDS, self._values, strict=True))

    def clear(self) -> None:
        """Set all numbers to 0."""
        for name in FIELDS:
            self[name] = 0.0


def count_collections(numbers: Numbers) -> None:
    """Count the runs of the garbage collector, and their processor time."""
    began_s = 0.0

    def seen(phase: str, about: dict[str, int]) -> None:
        nonlocal began_s
        if phase == "start":
            began_s = time.thread_time()
            return
        took_s = time.thread_time() - began_s
        numbers["collections"] += 1
        numbers["full_collections"] += about["generation"] == 2
        numbers["collecting_s"] += took_s
        numbers.raise_to("longest_collection_s", took_s)

    gc.callbacks.append(seen)


def measure_lateness(numbers: Numbers) -> None:
    """Record the longest waits of a node."""
    # As the node does before it imports gRPC, which reads it then.
    os.environ.pop("GRPC_VERBOSITY", None)
    importlib.import_module("lateness").measure(numbers)


def note_moments(path: Path) -> None:
    """Write down in which moments a node was late, campaigned and led."""
    os.environ.pop("GRPC_VERBOSITY", None)
    importlib.import_module("moments").write_to(path)


if TO in os.environ:
    # Taken out of the environment: processes that the node starts are not counted.
    _WHAT, _PATH = os.environ.pop(WHAT), Path(os.environ.pop(TO))
    if _WHAT == COLLECTOR:
        count_collections(Numbers(_PATH))
    elif _WHAT == LATENESS:
        measure_lateness(Numbers(_PATH))
    elif _WHAT == MOMENTS:
        note_moments(_PATH)
