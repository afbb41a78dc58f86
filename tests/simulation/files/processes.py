# SPDX-License-Identifier: Apache-2.0
"""
What one process does to its state folder: each call may fail, or be its last.

SQLite makes such calls, and so does the product itself, of the same files. Only questions
whether a file is there, for its size and for its locks never fail.
"""

import contextlib
import errno
import io
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.simulation.disk import Disk, Killed
from tests.simulation.fault_effects import Effect
from tests.simulation.files import sqlite_vfs
from tests.simulation.files.kernel import VOLATILE, Folder
from tests.simulation.files.sqlite_vfs import OK, SimulatedVfs


class Process:
    """A process with an open state. A new one begins with each start."""

    def __init__(self, folder: Folder, disk: Disk, rng: random.Random) -> None:
        self.folder = folder
        self.disk = disk
        self.rng = rng
        self.dead = False
        """No call of it does anything any more."""
        self.quiet = 0
        """The simulation itself is reading: nothing goes wrong."""
        self.in_checkpoint = False
        self.in_own_call = False
        """The product makes a call of the operating system itself, without SQLite."""

    @contextlib.contextmanager
    def looked_at(self) -> Iterator[None]:
        """Let no call fail."""
        self.quiet += 1
        try:
            yield
        finally:
            self.quiet -= 1

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Raise `Killed` in the end if the process was killed inside a call."""
        try:
            yield
        except BaseException as error:
            if self.dead:
                raise Killed(self.disk.node_id) from error
            raise
        if self.dead:
            raise Killed(self.disk.node_id)

    def enter(self, error: int, *, sync: bool = False) -> int:
        """Begin a call; return what becomes of it. May be the process's last."""
        if self.dead:
            return error
        if self.quiet:
            return OK
        fault = self.disk.state_fault
        if fault is None or not fault.is_due(
            checkpoint=self.in_checkpoint, sync=sync, own=self.in_own_call
        ):
            return OK
        self.disk.state_fault = None
        if fault.kills:
            self.dead = True
            self.disk.effects[Effect.KILL_IN_STATE_CALL] += 1
            self.disk.effects[Effect.KILL_IN_CHECKPOINT] += self.in_checkpoint
        else:
            self.disk.hurt = True
            self.disk.effects[Effect.STATE_CALL_FAILED] += 1
        return error

    # --- Calls of SQLite

    def opens(self, name: str) -> int:
        return self.enter(sqlite_vfs.CANTOPEN)

    def created(self, name: str) -> None:
        if not name.endswith(VOLATILE):
            self.folder.tracked(name)

    def names_synced(self) -> None:
        self.folder.names_synced()

    def reads(self, name: str) -> int:
        return self.enter(sqlite_vfs.IOERR_READ)

    def writes(self, name: str, at: int, data: bytes) -> tuple[int, int]:
        was_dead = self.dead
        if error := self.enter(sqlite_vfs.IOERR_WRITE):
            part = 0 if was_dead else self.rng.randrange(len(data) + 1)
            return error, part
        if self.disk.full and not self.quiet:
            self.disk.effects[Effect.DISK_FULL] += 1
            return sqlite_vfs.FULL, self.rng.randrange(len(data))
        return OK, len(data)

    def wrote(self, name: str, at: int, data: bytes) -> None:
        if not name.endswith(VOLATILE):
            self.folder.wrote(name, at, data)

    def truncates(self, name: str, size: int) -> int:
        return self.enter(sqlite_vfs.IOERR_TRUNCATE)

    def truncated(self, name: str, size: int) -> None:
        self.folder.truncated(name, size)

    def syncs(self, name: str) -> int:
        was_dead = self.dead
        writes = bool(self.folder.tracked(name).pending)  # Else it is hardly a sync.
        error = self.enter(sqlite_vfs.IOERR_FSYNC, sync=writes)
        if not error and self.disk.fails_to_sync and not self.quiet:
            error = sqlite_vfs.IOERR_FSYNC
            self.disk.effects[Effect.SYNC_FAILED] += 1
        if not error:
            self.folder.synced(name)
        elif not self.dead and not was_dead:
            dropped = self.folder.sync_failed(name)
            self.disk.effects[Effect.STATE_PAGES_DROPPED] += dropped
        return error

    def deletes(self, name: str) -> int:
        return self.enter(sqlite_vfs.IOERR_DELETE)

    def deleted(self, name: str) -> None:
        self.folder.removed(name)

    # --- Calls of the product's own code

    @contextlib.contextmanager
    def own_call(self) -> Iterator[None]:
        """Let a call count as one of the product."""
        self.in_own_call = True
        try:
            yield
        finally:
            self.in_own_call = False

    def check_opened(self, name: str) -> None:
        """Raise what the product sees if it cannot open a file, or its folder."""
        with self.own_call():
            self.check(self.opens(name))

    def check_read(self, name: str) -> None:
        """Raise what the product sees if it cannot read a file."""
        with self.own_call():
            error = self.reads(name)
        self.disk.effects[Effect.OWN_READ_FAILED] += bool(error) and not self.dead
        self.check(error)

    def check(self, error: int) -> None:
        """Raise what a call of an operating system raises."""
        if not error:
            return
        if self.dead:
            raise Killed(self.disk.node_id)
        code = errno.ENOSPC if error == sqlite_vfs.FULL else errno.EIO
        raise OSError(code, os.strerror(code))


class _Reads(io.FileIO):
    """A file that the product has opened itself: each read of it may fail."""

    def __init__(self, path: str, mode: str, process: Process, name: str) -> None:
        self._process, self._file_name = process, name
        process.check_opened(name)
        super().__init__(path, mode)

    def read(self, size: int | None = -1) -> bytes | Any:
        self._process.check_read(self._file_name)
        return super().read(-1 if size is None else size)

    def readall(self) -> bytes | Any:
        self._process.check_read(self._file_name)
        return super().readall()

    def readinto(self, target: Any) -> int | Any:
        self._process.check_read(self._file_name)
        return super().readinto(target)


class Processes:
    """All simulated processes: which of them a path belongs to, and Python's own calls."""

    def __init__(self, rng: random.Random) -> None:
        self._of: dict[str, Process] = {}
        self._vfs = SimulatedVfs(self.find, rng.randbytes)

    def run(self, process: Process) -> None:
        """Let a process own its folder from now on."""
        self._of[str(process.folder.path)] = process

    def end(self, process: Process) -> None:
        """Forget a process: from now on the simulation alone works in its folder."""
        self._of.pop(str(process.folder.path), None)

    def find(self, path: str) -> tuple[Process, str] | None:
        """Return whose file a path is, and its name, which is empty for the folder."""
        if path in self._of:
            return self._of[path], ""
        folder, _, name = path.rpartition("/")
        process = self._of.get(folder)
        return None if process is None else (process, name)

    @contextlib.contextmanager
    def simulated(self) -> Iterator[None]:
        """Put SQLite and the calls of Python that matter under the simulation."""
        replaced = {
            "open": self._open_descriptor,
            "pread": self._pread,
            "write": self._write,
            "pwrite": self._pwrite,
            "fsync": self._sync,
            "fdatasync": self._sync,
            "rename": self._rename,
            "replace": self._rename,
            "unlink": self._unlink,
        }
        self._real = {name: getattr(os, name) for name in replaced}
        self._open_really = io.open
        with self._vfs.registered():
            try:
                for name, call in replaced.items():
                    setattr(os, name, call)
                # `Path.open` calls it, and so does `read_bytes`.
                io.open = self._open  # type: ignore[assignment]
                yield
            finally:
                io.open = self._open_really
                for name, call in self._real.items():
                    setattr(os, name, call)

    def _open(
        self, file: Any, mode: str = "r", buffering: int = -1, *more: Any, **named: Any
    ) -> Any:
        found = None if isinstance(file, int) else self.find(os.fspath(file))
        if found is None or mode not in {"rb", "r+b"}:
            return self._open_really(file, mode, buffering, *more, **named)
        opened = _Reads(os.fspath(file), mode, *found)
        return opened if buffering == 0 else io.BufferedReader(opened)

    def _open_descriptor(self, path: Any, flags: int, *more: Any, **named: Any) -> int:
        found = self.find(os.fspath(path))
        if found is not None:
            found[0].check_opened(found[1])
        descriptor: int = self._real["open"](path, flags, *more, **named)
        return descriptor

    def _pread(self, fd: int, size: int, at: int) -> bytes:
        found = self._find_open(fd)
        if found is not None:
            found[0].check_read(found[1])
        data: bytes = self._real["pread"](fd, size, at)
        return data

    def _find_open(self, fd: int) -> tuple[Process, str] | None:
        return self.find(str(Path(f"/proc/self/fd/{fd}").readlink()))

    def _write(self, fd: int, data: bytes) -> int:
        return self._pwrite(fd, data, None)

    def _pwrite(self, fd: int, data: bytes, at: int | None) -> int:
        found = self._find_open(fd)
        real: Any = self._real
        if found is None:
            written: int = (
                real["write"](fd, data) if at is None else real["pwrite"](fd, data, at)
            )
            return written
        process, name = found
        if at is None:  # All files that are written so are opened for appending.
            at = os.fstat(fd).st_size
            written_by = real["write"]
        else:
            written_by = lambda fd, part: real["pwrite"](fd, part, at)  # noqa: E731
        with process.own_call():
            error, size = process.writes(name, at, data)
        if size:
            written_by(fd, data[:size])
            process.wrote(name, at, data[:size])
        process.check(error)
        return len(data)

    def _sync(self, fd: int) -> None:
        found = self._find_open(fd)
        if found is None:
            self._real["fsync"](fd)
            return
        process, name = found
        with process.own_call():
            if name:
                process.check(process.syncs(name))
            else:
                process.check(process.enter(sqlite_vfs.IOERR_FSYNC, sync=True))
                process.folder.names_synced()

    def _rename(self, source: Any, target: Any, **more: Any) -> None:
        found = self.find(os.fspath(source))
        if found is not None:
            with found[0].own_call():
                found[0].check(found[0].enter(sqlite_vfs.IOERR))
        self._real["replace"](source, target, **more)
        if found is not None:
            found[0].folder.tracked(found[1])
            found[0].folder.renamed(found[1], Path(target).name)

    def _unlink(self, path: Any, **more: Any) -> None:
        found = self.find(os.fspath(path))
        if found is not None:
            with found[0].own_call():
                found[0].check(found[0].deletes(found[1]))
        self._real["unlink"](path, **more)
        if found is not None:
            found[0].deleted(found[1])
