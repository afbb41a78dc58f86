# SPDX-License-Identifier: Apache-2.0
"""
A node's folder of state and sealed events, and a process that ends in any of its calls.

The files and SQLite are real, seen by the simulation's model of a disk: a process may be
killed in a call or at a fault point, and a power cut takes what was not synced.
"""

import contextlib
import functools
import itertools
import random
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sparecode_node import fault_points
from sparecode_node.fault_points import Point
from tests.fault_points.strikes import Action, Arm
from tests.simulation.disk import Disk, Killed, StateFault
from tests.simulation.files.kernel import VOLATILE, Folder, Tracked
from tests.simulation.files.processes import Process, Processes
from tests.simulation.files.sqlite_vfs import library

STATE = "state.db"


def hides_sqlite() -> bool:
    """Return whether no VFS can join the SQLite of this Python."""
    try:
        library()
    except RuntimeError:
        return True
    return False


WATCHED = pytest.mark.skipif(
    hides_sqlite(), reason="this Python's SQLite is linked so that no VFS can join it"
)


class SegmentFolder:
    """
    The folder of one node, a copy of a prepared one that is all on its disk.

    What is written outside its processes is not seen: a later power cut may take it.
    """

    def __init__(
        self, source: Path, path: Path, processes: Processes, dice: random.Random
    ) -> None:
        shutil.copytree(source, path, ignore=shutil.ignore_patterns(f"*{VOLATILE}"))
        self._dice = dice
        self._disk = Disk("n1", dice)
        self._processes = processes
        self._folder = Folder(
            path,
            {each.name: Tracked(bytearray(each.read_bytes())) for each in _files(path)},
        )
        self._folder.names_synced()
        self.state = path / STATE

    def run(
        self, work: Callable[[Path], object], *, calls: int = -1, kills: bool = True
    ) -> bool:
        """
        Do some work on the state in a process of its own; return whether a call went wrong.

        After this many calls on files, the next one is the last of the process, or fails
        alone; below 0: none.
        """
        with (
            self.process(calls, kills=kills),
            contextlib.suppress(sqlite3.Error, OSError),
        ):
            work(self.state)
        return calls >= 0 and self._disk.state_fault is None

    def strike(
        self, point: Point, action: Action, work: Callable[[Path], object]
    ) -> None:
        """Do some work on the state in a process that is struck, as `struck`."""
        with self.struck(point, action):
            work(self.state)

    @contextlib.contextmanager
    def struck(self, point: Point, action: Action, passes: int = 0) -> Iterator[None]:
        """
        Let what is done inside be killed, or lose its power, at a point that it reaches.

        *passes*: how often it reaches the point before, and nothing happens.
        """
        arm = Arm(point, action, passes)
        with self.process() as process:

            def hook(reached: Point) -> None:
                if arm.is_due(reached):
                    process.dead = True
                    raise Killed(point.name)

            before = fault_points.install(hook)
            try:
                yield
            finally:
                fault_points.install(before)
            raise AssertionError(f"{point.name} was not reached")
        if action is Action.POWER:
            self.lose_power()

    @contextlib.contextmanager
    def process(self, calls: int = -1, *, kills: bool = True) -> Iterator[Process]:
        """Let a process own the folder; a death ends what is done inside."""
        process = Process(self._folder, self._disk, self._dice)
        self._disk.state_fault = None
        if calls >= 0:
            self._disk.state_fault = StateFault(calls, kills=kills)
        self._processes.run(process)
        try:
            with process.acting():
                yield process
        except Killed:
            return
        finally:
            process.dead = True
            self._processes.end(process)

    def fail_after(self, calls: int, *, kills: bool) -> None:
        """Let a later call of the running process be its last, or fail alone."""
        self._disk.state_fault = StateFault(calls, kills=kills)

    @property
    def has_failed(self) -> bool:
        """Return whether the call has come."""
        return self._disk.state_fault is None

    def fill(self, is_full: object) -> None:
        """Let the disk have no room while this is true."""
        self._disk.full = is_full  # type: ignore[assignment]

    def lose_power(self) -> None:
        """Become what the disk has, and perhaps some of the rest."""
        self._folder.lose_power(self._dice)


@contextlib.contextmanager
def copies_of(source: Path, path: Path) -> Iterator[Iterator[SegmentFolder]]:
    """Yield copies of a folder, one after the other, each gone when the next one comes."""

    def each() -> Iterator[SegmentFolder]:
        for number in itertools.count(1):
            shutil.rmtree(path, ignore_errors=True)
            yield SegmentFolder(source, path, _processes(), random.Random(number))

    with _processes().simulated():
        yield each()


@functools.cache
def _processes() -> Processes:
    """Return the same for all tests: a connection may be closed after its test only."""
    return Processes(random.Random(1))


def _files(path: Path) -> list[Path]:
    return [each for each in path.iterdir() if each.is_file()]
