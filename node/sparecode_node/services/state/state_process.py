# SPDX-License-Identifier: Apache-2.0
"""
Reads the whole state in separate processes of low priority.

Hashing every row occupies an interpreter for seconds. In a thread of the node, each
answer would wait for it dozens of times (the global interpreter lock). The processes
end with the node, however it ends, so none outlives it. They also end when the node
is told to stop, so it need not wait for them.
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
from sparecode_node.statemachine.segment_chain import RottenSegmentError
from sparecode_node.statemachine.snapshots import (
    SnapshotError,
    SnapshotFacts,
    check_snapshot,
    read_state,
    write_snapshot,
    write_state_alone,
    write_whole,
)

SMALL_BYTES = 8 * 1024 * 1024
"""A smaller state is read faster than a process starts: about 2,000 users."""
NICE = 15
"""As for issuing: answers, heartbeats and passcodes have priority."""
EXIT_REFUSED = 3
"""The process has printed the reason."""
EXIT_ROTTEN = 4
"""The process has printed which segment of the audit log is rotten: JSON."""

WORK: dict[str, Callable[..., SnapshotFacts]] = {
    "write": write_snapshot,
    "write-whole": write_whole,
    "write-state-alone": write_state_alone,
    "check": check_snapshot,
    "look": read_state,
}


class StateProcesses:
    """
    The processes of one node. `close` them when the node stops. Safe in any thread.

    Reading raises `SnapshotError` and `OSError`. It raises `StoppingError` if `close`
    has ended its process or prevents it from starting.
    """

    def __init__(self) -> None:
        # Each process holds one end, and exits when the other end is closed.
        self._ended, self._held = os.pipe()
        self._closed = False
        self._begun_or_closed = threading.Lock()

    def close(self) -> None:
        """End running processes at once, and start no more. May be called again."""
        with self._begun_or_closed:
            if not self._closed:
                self._closed = True
                os.close(self._held)
                os.close(self._ended)

    def write(self, state: Path, target: Path) -> SnapshotFacts:
        """Copy the state into the new file *target*."""
        return self._run("write", state, target)

    def write_whole(self, state: Path, target: Path) -> SnapshotFacts:
        """
        Copy the state into the new file *target*, with all audit events.

        Raises `RottenSegmentError`, too.
        """
        return self._run("write-whole", state, target)

    def write_state_alone(self, state: Path, target: Path) -> SnapshotFacts:
        """Copy the state into the new file *target*, without sealed audit events."""
        return self._run("write-state-alone", state, target)

    def check_snapshot(self, snapshot: Path) -> SnapshotFacts:
        """Read a whole snapshot."""
        return self._run("check", snapshot)

    def look(self, state: Path) -> SnapshotFacts:
        """Return the index and digest of the current state."""
        return self._run("look", state)

    def _run(self, work: str, *paths: Path) -> SnapshotFacts:
        if paths[0].stat().st_size <= SMALL_BYTES:
            return WORK[work](*paths)
        with self._begin(work, *paths) as process:
            output, errors = process.communicate()
        if process.returncode == 0:
            return SnapshotFacts(**json.loads(output))
        if process.returncode == EXIT_REFUSED:
            raise SnapshotError(output.strip())
        if process.returncode == EXIT_ROTTEN:
            raise RottenSegmentError(**json.loads(output))
        if self._closed:
            raise StoppingError
        last = (errors.strip().splitlines() or ["it printed nothing"])[-1]
        raise SnapshotError(
            f"the process that reads the state ended with {process.returncode}: {last}"
        )

    def _begin(self, work: str, *paths: Path) -> subprocess.Popen[str]:
        with self._begun_or_closed:
            if self._closed:
                raise StoppingError
            return subprocess.Popen(
                # -P: modules in the current folder must not be imported.
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
    """Exit when the other end of the pipe is closed."""
    os.read(ended, 1)
    os._exit(1)


def main() -> int:
    """Run the work that the arguments name: a pipe, the work, and its files."""
    ended, work, *paths = sys.argv[1:]
    threading.Thread(target=_end_with_node, args=(int(ended),), daemon=True).start()
    with contextlib.suppress(OSError):  # A sandbox may refuse it; work on without.
        os.nice(NICE)
    try:
        facts = WORK[work](*map(Path, paths))
    except SnapshotError as error:
        sys.stdout.write(f"{error}\n")
        return EXIT_REFUSED
    except RottenSegmentError as error:
        json.dump(
            {"number": error.number, "first": error.first, "last": error.last},
            sys.stdout,
        )
        return EXIT_ROTTEN
    sys.stdout.write(json.dumps(dataclasses.asdict(facts)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
