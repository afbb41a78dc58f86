# SPDX-License-Identifier: Apache-2.0
"""
A separate file system for every node, whose power can be cut.

It is a file, mounted through a loop device. Shutting it down (with the ioctl that ext4
and XFS have for tests) drops all unsynced data, as a power cut does. The next mount
finds what had reached the disk.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.faults.network import run
from tests.faults.receivers import FOLDER

FILESYSTEMS = ("ext4", "xfs")
SIZE = "1G"
"""Sparse. XFS needs at least 300 MB, and logs grow until they are compacted."""

_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
}
_BALLAST = "ballast"
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Lost:
    """Bytes lost in a power cut: written by the node, but not on disk."""

    journal: int
    told: int
    """Bytes of the file of events, which is not synced for each event."""
    store: int
    """Bytes of SQLite's database and write-ahead log, which are not synced at once."""

    @property
    def total(self) -> int:
        """All lost bytes but those of the file of events."""
        return self.journal + self.store


class Disk:
    """The file system of one node's data folder."""

    def __init__(
        self, image: Path, mountpoint: Path, filesystem: str, size: str = SIZE
    ) -> None:
        self.image = image
        self.mountpoint = mountpoint
        self.filesystem = filesystem
        self._size = size
        self._before: dict[str, bytes] = {}

    def make(self) -> None:
        """Create and mount an empty file system."""
        self.image.unlink(missing_ok=True)
        run("truncate", "-s", self._size, str(self.image))
        run(*_MAKE[self.filesystem], str(self.image))
        self.mountpoint.mkdir(parents=True, exist_ok=True)
        self.mount()
        if (self.mountpoint / "lost+found").exists():
            (self.mountpoint / "lost+found").rmdir()

    def mount(self) -> None:
        """Mount the file system, which replays its journal."""
        run("mount", "-o", "loop", str(self.image), str(self.mountpoint))

    def unmount(self) -> None:
        """Unmount the file system; no process may use it."""
        run("umount", str(self.mountpoint))

    def cut_power(self) -> None:
        """Drop all unsynced data. The node must be paused or dead."""
        self._before = self._contents()
        run("xfs_io", "-x", "-c", "shutdown", str(self.mountpoint))

    def restore_power(self) -> Lost:
        """Mount it again; return the lost bytes. The node must be dead."""
        self.unmount()
        self.mount()
        after = self._contents()
        lost = {
            name: _missing(before, after.get(name, b""))
            for name, before in self._before.items()
        }
        journal = sum(size for name, size in lost.items() if "journal" in name)
        told = sum(size for name, size in lost.items() if name.startswith(FOLDER))
        store = sum(lost.values()) - journal - told
        return Lost(journal=journal, told=told, store=store)

    def _contents(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.mountpoint)): path.read_bytes()
            for path in self.mountpoint.rglob("*")
            if path.is_file() and not path.name.endswith("-shm")
        }

    def fill(self) -> None:
        """Fill the file system to the last byte."""
        with self.ballast.open("wb", buffering=0) as file:
            size = 1 << 30
            while size >= _BLOCK:  # Reserves blocks without writing them.
                end = os.fstat(file.fileno()).st_size
                try:
                    os.posix_fallocate(file.fileno(), end, size)
                except OSError:
                    size //= 2
            file.seek(0, os.SEEK_END)
            size = _BLOCK
            while size:
                try:
                    file.write(bytes(size))
                except OSError:
                    size //= 2

    def free(self) -> None:
        """Free the space again."""
        self.ballast.unlink(missing_ok=True)

    @property
    def ballast(self) -> Path:
        """The file that fills the file system."""
        return self.mountpoint / _BALLAST


def _missing(before: bytes, after: bytes) -> int:
    """Return how many bytes of *before* are missing in *after* at the same offset."""
    common = before[: len(after)]
    if after.startswith(common):
        return len(before) - len(common)
    pages = range(0, len(before), _BLOCK)
    return sum(
        len(before[page : page + _BLOCK])
        for page in pages
        if before[page : page + _BLOCK] != after[page : page + _BLOCK]
    )


def remove_leftovers(directory: Path) -> None:
    """Unmount and remove everything that a crashed campaign left in *directory*."""
    mounted = [
        line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()
    ]
    for mountpoint in sorted(mounted, reverse=True):
        if Path(mountpoint).is_relative_to(directory):
            run("umount", "-l", mountpoint)
    shutil.rmtree(directory, ignore_errors=True)
