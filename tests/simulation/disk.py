# SPDX-License-Identifier: Apache-2.0
"""A disk that forgets what was not synced, tears it, fails, and kills in between."""

import random
from dataclasses import dataclass, field

from sparecode_node.replication.storage import AppendFile


class Killed(BaseException):
    """The process was killed in the middle of a file operation."""


@dataclass
class File:
    """Bytes as the page cache has them, and as the disk has them."""

    cached: bytearray = field(default_factory=bytearray)
    durable: bytes = b""


class Disk:
    """A `Storage`; survives the node that uses it."""

    def __init__(self, node_id: str, rng: random.Random) -> None:
        self.node_id = node_id
        self.rng = rng
        self.names: dict[str, File] = {}
        self.durable_names: dict[str, File] = {}
        self.fuse: int | None = None
        """So many file operations until the process is killed."""
        self.failing = False
        """Every sync fails from now on."""

    def burn(self) -> None:
        """Come nearer to a kill that is planned."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise Killed(self.node_id)

    def where(self, name: str) -> str:
        return f"{self.node_id}:{name}"

    def exists(self, name: str) -> bool:
        return name in self.names

    def read(self, name: str) -> bytes:
        return bytes(self.names[name].cached)

    def append_to(self, name: str) -> AppendFile:
        return _Handle(self, self.names.setdefault(name, File()))

    def truncate(self, name: str, size: int) -> None:
        self.burn()
        file = self.names[name]
        del file.cached[size:]
        file.durable = bytes(file.cached)

    def remove(self, name: str) -> None:
        self.burn()
        self.names.pop(name, None)

    def rename(self, source: str, target: str) -> None:
        self.burn()
        self.names[target] = self.names.pop(source)
        self.burn()

    def sync_directory(self) -> None:
        self.burn()
        self.durable_names = dict(self.names)

    def lose_power(self) -> None:
        """Keep what is durable, and perhaps some of the rest, perhaps torn."""
        rng = self.rng
        names = self.durable_names if rng.random() < 0.5 else self.names
        for file in names.values():
            kept = len(file.durable)
            if bytes(file.cached[:kept]) != file.durable:
                raise AssertionError("only appended files are simulated")
            tail = bytearray(file.cached[kept : rng.randint(kept, len(file.cached))])
            if tail and rng.random() < 0.3:
                tail[rng.randrange(len(tail))] ^= 0x55
            file.cached = bytearray(file.durable) + tail
            file.durable = bytes(file.cached)
        self.names, self.durable_names = dict(names), dict(names)


class _Handle:
    def __init__(self, disk: Disk, file: File) -> None:
        self._disk = disk
        self._file = file

    def append(self, data: bytes) -> None:
        disk = self._disk
        if disk.fuse == 0:  # Killed inside the write: a prefix only.
            self._file.cached += data[: disk.rng.randint(0, len(data))]
        disk.burn()
        self._file.cached += data
        disk.burn()

    def sync(self) -> None:
        self._disk.burn()
        if self._disk.failing:
            raise OSError("the disk has failed")
        self._file.durable = bytes(self._file.cached)
        self._disk.burn()

    def close(self) -> None:
        pass
