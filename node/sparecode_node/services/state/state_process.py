# SPDX-License-Identifier: Apache-2.0
"""
Reads the whole state in processes of their own, of low priority.

To hash every row takes an interpreter for seconds: in a thread of the node's own,
each answer would wait for it dozens of times (the global interpreter lock). The
processes end with the node, however that ends, so that no later one meets them; and
when it is told to stop, which then need not wait for them.
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

from sparecode_node.replication.errors import StoppingError
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


class StateProcesses:
    """
    The processes of one node; `close` them when it is told to stop. For any thread.

    Reading raises `SnapshotError` and `OSError`, and `StoppingError` once it takes a
    process that `close` has ended, or does not let begin.
    """

    def __init__(self) -> None:
        # Each process has the one end, and ends when nobody has the other any more.
        self._ended, self._held = os.pipe()
        self._closed = False
        self._begun_or_closed = threading.Lock()

    def close(self) -> None:
        """End what is under way at once, and begin no other. May be called again."""
        with self._begun_or_closed:
            if not self._closed:
                self._closed = True
                os.close(self._held)
                os.close(self._ended)

    def write(self, state: Path, target: Path) -> SnapshotFacts:
        """Copy the state into the new file *target*."""
        return self._done("write", state, target)

    def read(self, snapshot: Path) -> SnapshotFacts:
        """Read a whole snapshot."""
        return self._done("read", snapshot)

    def look(self, state: Path) -> SnapshotFacts:
        """Return of what the state is now."""
        return self._done("look", state)

    def _done(self, work: str, *paths: Path) -> SnapshotFacts:
        if paths[0].stat().st_size <= SMALL_BYTES:
            return WORK[work](*paths)
        with self._begin(work, *paths) as process:
            told, warned = process.communicate()
        if process.returncode == 0:
            return SnapshotFacts(**json.loads(told))
        if process.returncode == EXIT_REFUSED:
            raise SnapshotError(told.strip())
        if self._closed:
            raise StoppingError
        last = (warned.strip().splitlines() or ["it said nothing"])[-1]
        raise SnapshotError(
            f"the process that reads the state ended with {process.returncode}: {last}"
        )

    def _begin(self, work: str, *paths: Path) -> subprocess.Popen[str]:
        with self._begun_or_closed:
            if self._closed:
                raise StoppingError
            return subprocess.Popen(
                # -P: what lies in the current folder is no module of ours.
                [
                    *(sys.executable, "-P", "-m", __name__),
                    *(str(self._ended), work, *map(str, paths)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                pass_fds=(self._ended,),
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
