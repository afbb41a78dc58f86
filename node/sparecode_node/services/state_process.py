# SPDX-License-Identifier: Apache-2.0
"""
Reads the whole state in a process of its own, of low priority.

To hash every row takes an interpreter for seconds: in a thread of the node's own,
each answer would wait for it dozens of times (the global interpreter lock). The
process ends with the node, however that ends, so that no later one meets it.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from sparecode_node.statemachine.snapshots import (
    SnapshotError,
    SnapshotFacts,
    read_facts,
    read_state,
    write_snapshot,
)

SMALL_BYTES = 8 * 1024 * 1024
"""A state that is read sooner than a process has started: some 2,000 users."""
NICE = 15
"""As for issuing: answers, heartbeats and passcodes go before."""
EXIT_REFUSED = 3
"""It has said why."""

WORK: dict[str, Callable[..., SnapshotFacts]] = {
    "write": write_snapshot,
    "read": read_facts,
    "look": read_state,
}


def write(state: Path, target: Path) -> SnapshotFacts:
    """Copy the state into the new file *target*. Raises as `write_snapshot`, and `OSError`."""
    return _done("write", state, target)


def read(snapshot: Path) -> SnapshotFacts:
    """Read a whole snapshot. Raises `SnapshotError` and `OSError`."""
    return _done("read", snapshot)


def look(state: Path) -> SnapshotFacts:
    """Return of what the state is now. Raises `SnapshotError` and `OSError`."""
    return _done("look", state)


def _done(work: str, *paths: Path) -> SnapshotFacts:
    if paths[0].stat().st_size <= SMALL_BYTES:
        return WORK[work](*paths)
    ended, held = os.pipe()
    try:
        done = subprocess.run(
            # -P: what lies in the current folder is no module of ours.
            [sys.executable, "-P", "-m", __name__, str(ended), work, *map(str, paths)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            pass_fds=(ended,),
            check=False,
        )
    finally:
        os.close(ended)
        os.close(held)
    if done.returncode == 0:
        return SnapshotFacts(**json.loads(done.stdout))
    if done.returncode == EXIT_REFUSED:
        raise SnapshotError(done.stdout.strip())
    last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    raise SnapshotError(
        f"the process that reads the state ended with {done.returncode}: {last}"
    )


def _end_with_node(ended: int) -> None:
    """Wait until nobody holds the other end of the pipe any more."""
    os.read(ended, 1)
    os._exit(1)


def main() -> int:
    """Do what the arguments say: a pipe, what to do, and with which files."""
    ended, work, *paths = sys.argv[1:]
    threading.Thread(target=_end_with_node, args=(int(ended),), daemon=True).start()
    with contextlib.suppress(OSError):  # Where a sandbox refuses it, it gets done too.
        os.nice(NICE)
    try:
        facts = WORK[work](*map(Path, paths))
    except SnapshotError as error:
        sys.stdout.write(f"{error}\n")
        return EXIT_REFUSED
    sys.stdout.write(json.dumps(dataclasses.asdict(facts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
