# SPDX-License-Identifier: Apache-2.0
"""The thread that runs the checkpoints of the state, so that no answer waits for them."""

import threading

from sparecode_node.replication.errors import Fatal
from sparecode_node.statemachine.checkpoints import CheckpointError, Checkpoints

ENTRY_PAGES = 8
CALL_PAGES = 4
"""Pages that an entry and each of its calls write, roughly."""

PAGES = 1000
"""After this many pages a checkpoint is run, as by SQLite itself."""

INTERVAL_S = 5.0
"""After this time, a checkpoint is run for fewer pages."""

LOG_PAGES_MAX = 4096
"""
16 MiB. While entries arrive, the log is always a little longer than what a checkpoint
has copied, so SQLite never starts it over. If it is longer than this, the engine's
thread runs the next checkpoint, which is short, and the other thread waits for it.
"""


class Checkpointer:
    """Runs checkpoints. Its methods belong to the engine's thread."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        """Run the first checkpoint here. Raises `CheckpointError`."""
        self._checkpoints = checkpoints
        self._pages = 0
        self._due = threading.Event()
        self._stopping = False
        self._failed: CheckpointError | None = None
        self._too_long = False
        self._running = threading.Lock()
        checkpoints.run()
        self._thread = threading.Thread(
            target=self._run, name="checkpoints", daemon=True
        )
        self._thread.start()

    @property
    def durable_index(self) -> int:
        """No power cut takes the state back before this entry."""
        return self._checkpoints.durable_index

    def request(self) -> None:
        """Let a checkpoint begin soon."""
        self._pages += 1
        self._due.set()

    def applied(self, calls: int) -> None:
        """Take an entry into account."""
        self._pages += ENTRY_PAGES + CALL_PAGES * calls
        if self._pages >= PAGES:
            self._due.set()

    def check(self) -> None:
        """Raise `Fatal` if a checkpoint has failed. Run one if the log is too long."""
        if self._failed is not None:
            raise Fatal(str(self._failed)) from self._failed
        if self._too_long and self._running.acquire(blocking=False):
            self._too_long = False
            try:
                self._checkpoints.run()
            except CheckpointError as error:
                raise Fatal(str(error)) from error
            finally:
                self._running.release()

    def end(self) -> None:
        """End the thread after the checkpoint in progress. May be called again."""
        self._stopping = True
        self._due.set()
        self._thread.join()

    def finish(self) -> None:
        """End the thread, and run the last checkpoint here. Raises `Fatal`."""
        self.end()
        self.check()
        try:
            self._checkpoints.run(last=True)
        except CheckpointError as error:
            raise Fatal(str(error)) from error

    def _run(self) -> None:
        while True:
            self._due.wait(INTERVAL_S)
            self._due.clear()
            if self._stopping:
                return
            if not self._pages or self._too_long:
                continue
            self._pages = 0
            try:
                with self._running:
                    self._checkpoints.run()
            except CheckpointError as error:
                self._failed = error
                return
            self._too_long = self._checkpoints.frames > LOG_PAGES_MAX
