# SPDX-License-Identifier: Apache-2.0
"""
A state file that entries are applied to, for tests of its checkpoints.

`python -m tests.services.checkpoint_world FOLDER ORDERS` applies entries in a process of
its own, so that a library can be preloaded that makes syncs fail. With `bench` for
ORDERS, it measures entries instead, each after a sync of a journal.
"""

import contextlib
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sparecode_node.replication.errors import Fatal
from sparecode_node.services.ambient import SystemClock, SystemEntropy
from sparecode_node.services.secrets.keyring import KeyRing
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.services.state.state_file import StateFile
from sparecode_node.services.state.state_process import StateProcesses
from sparecode_node.statemachine.results import Applied
from tests.statemachine.world import World

FILES = ("state.db", "state.db-wal", "state.db-pages")
ENTRIES = 100
NOTICED_S = 60
"""While entries arrive, a failed sync is noticed long before this."""


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[World]:
    """Open the state in *folder*; a world applies entries to it, as the engine does."""
    with contextlib.closing(StateProcesses()) as processes:
        file = StateFile(
            folder / "state.db",
            sealing=Sealing(KeyRing.draw(SystemEntropy())),
            clock=SystemClock(),
            processes=processes,
        )
        with file.open() as (machine, _):
            world = World()
            world.db.close()
            world.machine, world.db = machine, machine._db
            world.index = machine.applied_index
            if not world.index:
                world.begin()
            yield world


def create_users(world: World, count: int) -> None:
    """Apply *count* entries; look after each whether the disk has failed."""
    for _ in range(count):
        name = f"user{world.index}"
        request = f"request{world.index}"
        result = world.apply(
            world.call("create-user", {"name": name, "request": request})
        )
        assert isinstance(result, Applied), result
        world.machine.check()


def copy(folder: Path, target: Path) -> Path:
    """Copy what a power cut would leave on an honest disk that has written everything."""
    target.mkdir()
    for name in FILES:
        if (folder / name).exists():
            shutil.copy(folder / name, target)
    return target


def bench(folder: Path) -> None:
    """Print how fast entries are applied, and how much of a processor each takes."""
    count = 20 * ENTRIES
    journal = os.open(folder / "journal", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    with opened(folder) as world:
        began, used = time.perf_counter(), time.process_time()
        for _ in range(count):
            os.write(journal, bytes(400))
            os.fdatasync(journal)
            create_users(world, 1)
        seconds = time.perf_counter() - began
        used = 1000 * (time.process_time() - used) / count
    os.close(journal)
    sys.stdout.write(f"{count / seconds:.0f} entries/s, {used:.2f} ms of CPU each\n")


def main() -> int:
    """Apply entries on a disk that begins to fail, until the state stops."""
    folder, orders = Path(sys.argv[1]), sys.argv[2]
    if orders == "bench":
        bench(folder)
        return 0
    with opened(folder) as world:
        create_users(world, ENTRIES)
    before = 0
    try:
        with opened(folder) as world:
            (folder / "orders").write_text(orders)
            before = world.index
            end_s = time.monotonic() + NOTICED_S
            while time.monotonic() < end_s:
                create_users(world, 1)
    except (Fatal, sqlite3.OperationalError) as error:  # The engine stops for both.
        sys.stdout.write(f"{world.index - before} {error}\n")
        return 70
    return 0


if __name__ == "__main__":
    sys.exit(main())
