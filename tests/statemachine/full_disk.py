# SPDX-License-Identifier: Apache-2.0
"""
Stores a segment, or deletes removed events, while the disk becomes full at each write.

`python -m tests.statemachine.full_disk STATE ORDERS WORK` prints the statement that failed
each time, its error, and whether the first segment counts as stored. It is a process of
its own, so that `full_disk.c` can be preloaded.
"""

import contextlib
import itertools
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sparecode_node.statemachine.sealed_events import SealedEvents, file_of

MOST = 1_000
"""Events that one transaction deletes."""
WORKS: dict[str, Callable[[SealedEvents], object]] = {
    "store": lambda file: file.store_from_state(file.segments()[0], iter),
    "remove": lambda file: file.delete_removed(MOST),
}


def failures(work: str, state: Path, folder: Path) -> list[list[str]]:
    """Do some work in a process of its own until there is room; return what it prints."""
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("there is no C compiler")
    library, orders = folder / "full_disk.so", folder / "orders"
    source = Path(__file__).with_name("full_disk.c")
    command = (compiler, "-shared", "-fPIC", "-o", library, source, "-ldl")
    subprocess.run(command, check=True)
    done = subprocess.run(
        [sys.executable, "-m", __name__, state, orders, work],
        env={**os.environ, "LD_PRELOAD": str(library), "FULL_DISK": str(orders)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [line.split("|") for line in done.stdout.splitlines()]


def run(state: Path, orders: Path, work: Callable[[SealedEvents], object]) -> None:
    """Do the work when there is room at last."""
    statements: list[str] = []
    with contextlib.closing(SealedEvents(state)) as file:
        file._db.execute("PRAGMA cache_size = 1")  # Rows are written before the commit.
        file._db.set_trace_callback(statements.append)
        number = file.segments()[0].number
        for count in itertools.count(1):
            orders.write_text(f"{file_of(state).name} {count}\n")
            try:
                work(file)
            except sqlite3.OperationalError as error:
                orders.unlink()
                failed = [each for each in statements if not each.startswith("ROLL")]
                words = " ".join(failed[-1].split()[:2])
                sys.stdout.write(f"{words}|{error}|{number in file.stored()}\n")
            else:
                return


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), WORKS[sys.argv[3]])
