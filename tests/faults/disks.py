# SPDX-License-Identifier: Apache-2.0
"""
A file system of its own for every node, whose power can be cut.

It lies in a file, mounted by a loop device. Shutting it down (the ioctl that ext4
and XFS have for tests) forgets all that was not synced, as a power cut does; the
next mount finds what had reached the disk.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.faults.network import run

FILESYSTEMS = ("ext4", "xfs")
SIZE = "1G"
"""Sparse. XFS has none below 300 MB, and logs grow while there is no compaction."""

_MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
}
_BALLAST = "ballast"
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Lost:
    """What a power cut took: bytes that the node had written and the disk had not."""

    journal: int
    store: int
    """Of SQLite's database and its write-ahead log, which are not synced at once."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.journal + self.store


class Disk:
    """The file system under one node's data."""

    def __init__(
        self, image: Path, mountpoint: Path, filesystem: str, size: str = SIZE
    ) -> None:
        self.image = image
        self.mountpoint = mountpoint
        self.filesystem = filesystem
        self._size = size
        self._before: dict[str, bytes] = {}

    def make(self) -> None:
        """Make and mount it, empty."""
        self.image.unlink(missing_ok=True)
        run("truncate", "-s", self._size, str(self.image))
        run(*_MAKE[self.filesystem], str(self.image))
        self.mountpoint.mkdir(parents=True, exist_ok=True)
        self.mount()
        if (self.mountpoint / "lost+found").exists():
            (self.mountpoint / "lost+found").rmdir()

    def mount(self) -> None:
        """Mount it; a journaling file system repairs itself by that."""
        run("mount", "-o", "loop", str(self.image), str(self.mountpoint))

    def unmount(self) -> None:
        """Unmount it; nothing may use it any more."""
        run("umount", str(self.mountpoint))

    def cut_power(self) -> None:
        """Lose everything that is not on disk. The node must stand still or be dead."""
        self._before = self._contents()
        run("xfs_io", "-x", "-c", "shutdown", str(self.mountpoint))

    def restore_power(self) -> Lost:
        """Mount it again; return what is gone. The node must be dead."""
        self.unmount()
        self.mount()
        after = self._contents()
        lost = {
            name: _missing(before, after.get(name, b""))
            for name, before in self._before.items()
        }
        journal = sum(size for name, size in lost.items() if "journal" in name)
        return Lost(journal, sum(lost.values()) - journal)

    def _contents(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.mountpoint)): path.read_bytes()
            for path in self.mountpoint.rglob("*")
            if path.is_file() and not path.name.endswith("-shm")
        }

    def fill(self) -> None:
        """Leave no byte free."""
        with self.ballast.open("wb", buffering=0) as file:
            size = 1 << 30
            while size >= _BLOCK:  # Taken without being written.
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
        """Give the space back."""
        self.ballast.unlink(missing_ok=True)

    @property
    def ballast(self) -> Path:
        """What fills it."""
        return self.mountpoint / _BALLAST


def _missing(before: bytes, after: bytes) -> int:
    """Return how many bytes of *before* are not in their places in *after*."""
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
    """Unmount what a campaign that crashed has left below *directory*, and remove it."""
    mounted = [
        line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()
    ]
    for mountpoint in sorted(mounted, reverse=True):
        if Path(mountpoint).is_relative_to(directory):
            run("umount", "-l", mountpoint)
    shutil.rmtree(directory, ignore_errors=True)
