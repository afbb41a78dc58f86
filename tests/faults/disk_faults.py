# SPDX-License-Identifier: Apache-2.0
"""Failing and slow system calls on the disk of one node: the other half of `disk_faults.c`."""

import enum
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from local_cluster.cluster import LocalNode

from tests.faults.network import run

SOURCE = Path(__file__).with_name("disk_faults.c")
ALL = -1
_CONTROL = struct.Struct("=iiiiiiq64s")
_CALLS = struct.Struct("=i")
_RESULTS = struct.Struct("=iq")
_RESULTS_AT = 20


class Calls(enum.IntEnum):
    """The system calls to which a fault applies."""

    SYNCS = 1
    """fsync and fdatasync."""
    WRITES = 2
    """pwrite, with which SQLite writes."""
    READS = 3
    """pread, with which it reads."""


@dataclass(frozen=True, slots=True)
class Hits:
    """The calls to which a fault applied so far."""

    count: int
    first_s: float
    """Unix time of the first one."""


def build(directory: Path) -> Path:
    """Return the library, built with gcc. Raises `ToolError`."""
    library = directory / "disk_faults.so"
    run("gcc", "-shared", "-fPIC", "-O2", "-Wall", "-o", str(library), str(SOURCE))
    return library


class DiskFaults:
    """The faults of one node's disk. Make it before the node starts."""

    def __init__(self, node: LocalNode, library: Path, directory: Path) -> None:
        file = directory / f"{node.node_id}.disk"
        file.write_bytes(bytes(_CONTROL.size))
        with file.open("r+b") as opened:
            self._control = mmap.mmap(opened.fileno(), _CONTROL.size)
        node.environment["LD_PRELOAD"] = str(library)
        node.environment["SPARECODE_FAULTS_DISK"] = str(file)

    @contextmanager
    def inject(
        self,
        calls: Calls,
        *,
        error: int = 0,
        before_us: int = 0,
        after_us: int = 0,
        times: int = ALL,
        file: str = "",
    ) -> Iterator["DiskFaults"]:
        """
        Let calls of the node fail with *error*, or take longer, until the end.

        *file*: only calls on files whose path ends like this.
        """
        name = os.fsencode(file)
        self._control[:] = _CONTROL.pack(
            0, error, before_us, after_us, times, 0, 0, name
        )
        self._control[: _CALLS.size] = _CALLS.pack(calls)
        try:
            yield self
        finally:
            self._control[: _CALLS.size] = _CALLS.pack(0)

    def hits(self) -> Hits:
        """Return the calls to which the last fault applied."""
        count, first_ns = _RESULTS.unpack_from(self._control, _RESULTS_AT)
        return Hits(count, first_ns / 1e9)
