# SPDX-License-Identifier: Apache-2.0
"""
Stores a segment while the disk becomes full, at each write of it in turn.

`python -m tests.statemachine.full_disk STATE ORDERS` prints the statement that failed
each time, its error, and whether the segment counts as stored. It is a process of its own, so that `full_disk.c` can be preloaded.
"""

import contextlib
import itertools
import sqlite3
import sys
from pathlib import Path

from sparecode_node.statemachine.sealed_events import SealedEvents, file_of


def store(state: Path, orders: Path) -> None:
    """Store the first segment when there is room at last."""
    statements: list[str] = []
    with contextlib.closing(SealedEvents(state)) as file:
        file._db.execute("PRAGMA cache_size = 1")  # Inserts write before the commit.
        file._db.set_trace_callback(statements.append)
        segment = file.segments()[0]
        for number in itertools.count(1):
            orders.write_text(f"{file_of(state).name} {number}\n")
            try:
                file.store_from_state(segment, iter)
            except sqlite3.OperationalError as error:
                orders.unlink()
                failed = [each for each in statements if not each.startswith("ROLL")]
                words = " ".join(failed[-1].split()[:2])
                counts = segment.number in file.stored()
                sys.stdout.write(f"{words}|{error}|{counts}\n")
            else:
                return


if __name__ == "__main__":
    store(Path(sys.argv[1]), Path(sys.argv[2]))
