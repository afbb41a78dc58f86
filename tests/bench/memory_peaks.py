# SPDX-License-Identifier: Apache-2.0
"""
The highest memory of nodes, and of the processes that they start.

A node hashes in threads, but snapshots and files are read by processes of their own. The
kernel keeps the peak of each process (`VmHWM`, proc_pid_status(5)), so no peak of a node is
missed between two looks. Each look begins a new peak (`clear_refs`, proc_pid_clear_refs(5)),
so the peaks that are added are of the same quarter of a second. Processes that have ended
since the last look are missed, and so is what they gained after it.
"""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from local_cluster.cluster import LocalNode

from tests.bench.estate import memory_mb

LOOK_S = 0.25


@dataclass
class Peak:
    """The highest memory of a node, in MB."""

    own: float = 0.0
    """Of its process, since that has started."""
    processes: float = 0.0
    """Of the processes that it has started: the sum of their peaks between two looks."""
    all: float = 0.0
    """
    Of all together, between two looks: rather too high.

    Pages that processes share, such as those of Python itself, count for each of them.
    """

    def add(self, own: float, processes: float) -> None:
        """Count the peaks since the last look."""
        self.own = max(self.own, own)
        self.processes = max(self.processes, processes)
        self.all = max(self.all, own + processes)


@dataclass
class MemoryPeaks:
    """Looks at nodes, from another thread."""

    nodes: Callable[[], Iterable[LocalNode]]
    """Returns those to look at. A node that joins comes later."""
    seen: dict[str, Peak] = field(default_factory=dict)
    """Node -> its peak."""

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """Look at the nodes again and again, and once more at the end."""
        ends = threading.Event()

        def repeat() -> None:
            while not ends.wait(LOOK_S):
                self.look()

        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            yield
        finally:
            ends.set()
            thread.join()
            self.look()

    def look(self) -> None:
        """Look at each node that runs."""
        for node in list(self.nodes()):
            pid = node.pid
            if pid is None:
                continue
            own, processes = take_peak_mb(pid), sum(map(take_peak_mb, descendants(pid)))
            self.seen.setdefault(node.node_id, Peak()).add(own, processes)

    def highest(self, nodes: Iterable[LocalNode]) -> float:
        """Return the highest memory of these nodes, each with its processes."""
        return max(self.seen[node.node_id].all for node in nodes)

    def words(self) -> dict[str, str]:
        """Return the peaks of each node for people."""
        return {
            node: f"{peak.own:.0f} and {peak.processes:.0f}, together {peak.all:.0f}"
            for node, peak in self.seen.items()
        }


def peak_mb(pid: int) -> float:
    """Return the highest memory of a process since it was taken, 0 if it is gone."""
    return memory_mb(pid, "VmHWM") or 0.0


def take_peak_mb(pid: int) -> float:
    """Return the highest memory of a process since the last time, and begin again."""
    peak = peak_mb(pid)
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak


def descendants(pid: int) -> list[int]:
    """
    Return the processes that a process has started, and those that these have.

    Not those that have not begun their own program yet: until then they share the memory
    of the process that starts them (vfork(2)).
    """
    result = []
    for child in _children(pid):
        # Read before its memory: so that is not the memory of its parent.
        if _command(child) not in ("", _command(pid)):
            result += [child, *descendants(child)]
    return result


def _children(pid: int) -> list[int]:
    """Return the children of all threads of a process."""
    children: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            # A thread may have ended since.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                text = (thread / "children").read_text()
                children += map(int, text.split())
    return children


def _command(pid: int) -> str:
    """Return the command line of a process, empty if it is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text()
    return ""
