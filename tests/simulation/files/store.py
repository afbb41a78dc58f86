# SPDX-License-Identifier: Apache-2.0
"""The real state machine on simulated files, opened and checkpointed as in production."""

import contextlib
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sparecode_node.domain.ids import KeyId
from sparecode_node.domain.keys import KeysInState
from sparecode_node.replication.errors import Fatal, StartRefusedError
from sparecode_node.statemachine import sealed_events
from sparecode_node.statemachine.checkpoints import CheckpointError, Checkpoints
from sparecode_node.statemachine.commands import Call
from sparecode_node.statemachine.machine import StateMachine
from sparecode_node.statemachine.page_sums import LostWriteError, open_page_sums
from sparecode_node.statemachine.results import Result
from sparecode_node.statemachine.snapshots import write_snapshot
from sparecode_node.statemachine.tables.schema import read_only_uri
from tests.memory import folder_in_memory
from tests.simulation.disk import Disk
from tests.simulation.fault_effects import Effect
from tests.simulation.files.kernel import Folder
from tests.simulation.files.processes import Process, Processes
from tests.simulation.people import Keys
from tests.simulation.sqlite_store import DAMAGED, MachineStore

STATE = "state.db"
LOG = "state.db-wal"

CHECKPOINT_RATE = 0.3
"""After an entry. In production: after a number of pages, or some seconds."""

READER_RATE = 0.2
"""After an entry, a reader begins, as calls do and the copy of a snapshot."""
READER_ENDS_RATE = 0.4
"""After an entry, too. Until then SQLite copies no more than that reader may see."""

BUSY_RATE = 0.3
"""A checkpoint that was asked for has not been run yet."""


class FileStore(MachineStore):
    """
    A state folder of one machine, and the process that has it open, if one does.

    What `StateFile` does with threads is done here in steps; the order is the same.
    """

    def __init__(self, processes: Processes, rng: random.Random) -> None:
        self._processes = processes
        self._rng = rng
        self.folder = Folder(new_folder())
        self._process: Process | None = None
        self._open = contextlib.ExitStack()
        self._is_open = False

    @property
    def path(self) -> Path:
        return self.folder.path / STATE

    @property
    def durable_index(self) -> int:
        """What it has applied, and no power cut takes back."""
        return self._checkpoints.durable_index

    @property
    def process(self) -> Process:
        assert self._process is not None
        return self._process

    def start(self, disk: Disk) -> None:
        self._kill()
        self._process = Process(self.folder, disk, self._rng)
        self._processes.run(self._process)
        with self._process.acting():
            self._start()

    def _start(self) -> None:
        try:
            sums = open_page_sums(self.path)
            self._open.callback(sums.close)
            sealed_events.create(self.path)
        except (LostWriteError, OSError, sqlite3.Error) as error:
            raise StartRefusedError(f"{self.path}: {error}") from error
        self.db = sqlite3.connect(self.path)
        self._open.callback(self.db.close)
        self.machine = StateMachine(self.db)
        try:
            self._checkpoints = Checkpoints(self.path, sums)
        except (OSError, sqlite3.Error) as error:
            raise StartRefusedError(f"{self.path}: {error}") from error
        self._open.callback(self._checkpoints.close)
        self._open.callback(self.db.close)
        uri = read_only_uri(self.path)
        self._reader = sqlite3.connect(uri, uri=True, isolation_level=None)
        self._open.callback(self._reader.close)
        try:
            self.run_checkpoint()
        except CheckpointError as error:
            raise StartRefusedError(str(error)) from error
        self._is_open = True

    def _kill(self) -> None:
        """Let the process end without another call on its files."""
        self._is_open = False
        if self._process is not None:
            self._process.dead = True
        with contextlib.suppress(sqlite3.Error):
            self._open.close()

    def die(self) -> None:
        self.process.dead = True

    def run_checkpoint(self) -> None:
        """Run one; what it calls durable must be so. Raises `CheckpointError`."""
        process, before = self.process, self._checkpoints.durable_index
        process.in_checkpoint = True
        try:
            self._checkpoints.run()
            if self._checkpoints.durable_index > before and not process.dead:
                check_log(process.folder, process.disk)
            process.disk.effects[Effect.CHECKPOINT] += 1
            done = self._checkpoints
            held_back = done.durable_index > 0 and not done._complete_at
            process.disk.effects[Effect.CHECKPOINT_HELD_BACK] += held_back
        finally:
            process.in_checkpoint = False

    def apply(self, index: int, calls: Sequence[Call]) -> tuple[Result, ...]:
        with self.process.acting():
            results = self.machine.apply(index, calls)
            if self._rng.random() < CHECKPOINT_RATE:
                self._checkpoint_or_stop()
            self._read_for_some_entries()
        return results

    def _read_for_some_entries(self) -> None:
        """Begin or end what a call reads: SQLite keeps its log for that long."""
        begins = not self._reader.in_transaction
        if self._rng.random() < (READER_RATE if begins else READER_ENDS_RATE):
            with self._looked_at():
                self._reader.execute("BEGIN" if begins else "ROLLBACK")
                if begins:  # It sees what there is at its first read.
                    self._reader.execute("SELECT * FROM sqlite_schema").fetchone()

    def _checkpoint_or_stop(self) -> None:
        try:
            self.run_checkpoint()
        except CheckpointError as error:
            raise Fatal(str(error)) from error

    def checkpoint(self) -> int:
        durable = self._checkpoints.durable_index
        if durable < self.applied_index and self._rng.random() >= BUSY_RATE:
            with self.process.acting():
                self._checkpoint_or_stop()
        return durable

    def serialize(self) -> bytes:
        with self._looked_at(), tempfile.TemporaryDirectory() as folder:
            write_snapshot(self.path, target := Path(folder) / "snapshot")
            return target.read_bytes()

    def install(self, body: bytes) -> None:
        with (
            self.process.acting(),
            tempfile.NamedTemporaryFile() as file,
        ):
            file.write(body)
            file.flush()
            self.machine.install(file.name)

    def reload(self) -> None:
        with self.process.acting():
            self.machine.reload()

    def lose_power(self, rng: random.Random) -> None:
        self._kill()
        lost, kept, names = self.folder.lose_power(self._rng)
        if self._process is not None:
            effects = self._process.disk.effects
            effects[Effect.STATE_SECTORS_LOST] += lost
            effects[Effect.STATE_SECTORS_KEPT] += kept
            effects[Effect.STATE_NAME_LOST] += names

    def applied(self) -> dict[str, int]:
        if not self._is_open:
            return {}  # A node that is down in the end is a finding already.
        with self._looked_at():
            return super().applied()

    def digest(self) -> str:
        if not self._is_open:
            return DAMAGED
        with self._looked_at():
            return super().digest()

    def auth_version(self, user: str) -> int:
        with self._looked_at():
            return super().auth_version(user)

    def keys(self) -> KeysInState:
        with self._looked_at():
            return super().keys()

    def keys_for(self, user: str, set_id: str) -> Keys:
        with self._looked_at():
            return super().keys_for(user, set_id)

    def password_key(self) -> KeyId:
        with self._looked_at():
            return super().password_key()

    def copy(self) -> "FileStore":
        other = FileStore(self._processes, self._rng)
        other.folder = self.folder.copy(other.folder.path)
        return other

    def close(self) -> None:
        self._kill()
        if self._process is not None:
            self._processes.end(self._process)
        shutil.rmtree(self.folder.path)

    @contextlib.contextmanager
    def _looked_at(self) -> Iterator[None]:
        with self.process.looked_at():
            yield


def check_log(folder: Folder, disk: Disk) -> None:
    """
    See that the write-ahead log outlasts a power cut when entries count as durable.

    What it has copied into the database counts too: a log that lacks it is refused.
    """
    if not folder.tracked(LOG).is_on_disk:
        disk.violated("promises are on disk", disk.where(LOG))


def new_folder() -> Path:
    """Return a folder in memory, if there is such a file system here."""
    return Path(tempfile.mkdtemp(prefix="sparecode-simulated-", dir=folder_in_memory()))
