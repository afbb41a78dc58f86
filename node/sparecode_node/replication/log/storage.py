# SPDX-License-Identifier: Apache-2.0
"""
The file operations of journal and snapshots, so that a test can replace the disk.

A power cut may lose or tear an `append` until `sync` has returned, and a rename until
`sync_directory` has returned.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeAlias

from sparecode_node.durable_files import sync_directory
from sparecode_node.replication.errors import StartRefusedError

Beside: TypeAlias = Callable[[Callable[[], object], Callable[[], object]], object]
"""Runs the first call in any thread, and then the second one in the engine's."""


def at_once(work: Callable[[], object], then: Callable[[], object]) -> None:
    """Run both now: a `Beside` for tests and the simulation."""
    work()
    then()


class AppendFile(Protocol):
    """A file that only grows. Every method may raise `OSError`."""

    def append(self, data: bytes) -> None:
        """Write all of *data* at the end."""

    def sync(self) -> None:
        """Return when everything appended is on disk."""

    def close(self) -> None:
        """Close the file."""


class MarkFile(Protocol):
    """A short file of fixed length. Every method may raise `OSError`."""

    def write(self, data: bytes) -> None:
        """Replace the content by *data*, which reaches the disk at some later time."""

    def sync(self) -> None:
        """Return when it is on disk."""

    def close(self) -> None:
        """Close the file."""


class Storage(Protocol):
    """One directory. Every method may raise `OSError`."""

    def where(self, name: str) -> str:
        """Return the path of a file, for messages to people."""

    def exists(self, name: str) -> bool:
        """Return whether the file exists."""

    def read(self, name: str) -> bytes:
        """Return the whole file."""

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        """Return *size* bytes of a file from *offset* on, fewer at its end."""

    def list_names(self) -> list[str]:
        """Return the names of all files."""

    def append_to(self, name: str) -> AppendFile:
        """Open a file for appending; create it if it is missing."""

    def mark_in(self, name: str) -> MarkFile:
        """Open a file for a mark; create it if it is missing."""

    def truncate(self, name: str, size: int) -> None:
        """Shorten a file; return when that is on disk."""

    def rewrite(self, name: str, offset: int) -> None:
        """Write the bytes from *offset* on again; return when they are on disk."""

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""

    def rename(self, source: str, target: str) -> None:
        """Rename *source* to *target*, replacing a file of that name."""

    def sync_directory(self) -> None:
        """Return when the names of the files are on disk."""


class _File:
    """An `AppendFile` of the operating system."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)

    def append(self, data: bytes) -> None:
        # One write: a full file system stops in the middle, which leaves a torn
        # tail.
        if os.write(self._fd, data) != len(data):
            raise OSError("the file system wrote only a part")

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class _Mark:
    """A `MarkFile` of the operating system. Writing in place takes no space and no sync."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o600)

    def write(self, data: bytes) -> None:
        if os.pwrite(self._fd, data, 0) != len(data):
            raise OSError("the file system wrote only a part")

    def sync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class DirectoryStorage:
    """A directory of the operating system, for one process at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(directory.parent)  # Its files are only as durable as its name.
        self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._fd)
            raise StartRefusedError(
                f"{directory}: another process is using this directory"
            ) from error

    def close(self) -> None:
        """Release the directory for other processes."""
        os.close(self._fd)

    def where(self, name: str) -> str:
        """Return the path."""
        return str(self._directory / name)

    def exists(self, name: str) -> bool:
        """Return whether the file exists."""
        return (self._directory / name).exists()

    def read(self, name: str) -> bytes:
        """Return the whole file."""
        return (self._directory / name).read_bytes()

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        """Return a part of a file."""
        with (self._directory / name).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def list_names(self) -> list[str]:
        """Return the names of all files, in order."""
        return sorted(path.name for path in self._directory.iterdir())

    def append_to(self, name: str) -> AppendFile:
        """Open a file for appending."""
        return _File(self._directory / name)

    def mark_in(self, name: str) -> MarkFile:
        """Open a file for a mark."""
        return _Mark(self._directory / name)

    def truncate(self, name: str, size: int) -> None:
        """Shorten a file durably."""
        with (self._directory / name).open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())

    def rewrite(self, name: str, offset: int) -> None:
        """Write the end of a file over itself, durably."""
        with (self._directory / name).open("r+b", buffering=0) as file:
            file.seek(offset)
            data = file.read()
            if os.pwrite(file.fileno(), data, offset) != len(data):
                raise OSError("the file system wrote only a part")
            os.fsync(file.fileno())

    def remove(self, name: str) -> None:
        """Remove a file if it exists."""
        (self._directory / name).unlink(missing_ok=True)

    def rename(self, source: str, target: str) -> None:
        """Rename a file over another."""
        (self._directory / source).replace(self._directory / target)

    def sync_directory(self) -> None:
        """Make names durable."""
        os.fsync(self._fd)
