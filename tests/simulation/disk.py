# SPDX-License-Identifier: Apache-2.0
"""A disk that forgets what was not synced, tears it, fails, fills up, and kills."""

import errno
import math
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from sparecode_node.replication.log.storage import AppendFile, MarkFile
from tests.simulation.fault_effects import Effect, Effects

SECTOR = 512
"""A disk writes all bytes of a sector, or none."""

NAMES_FIRST = 3
"""Of this many disks, one fails first when names are synced, after other syncs."""


class Killed(BaseException):
    """The process was killed in the middle of something."""


@dataclass
class StateFault:
    """One call on the files of the state that fails, or that the process dies in."""

    calls: int
    """Calls before it that go well."""
    kills: bool
    checkpoint: bool = False
    """Only calls inside a checkpoint count."""
    sync: bool = False
    """Only syncs count."""
    own: bool = False
    """Only calls that the product makes itself count, and none of SQLite."""

    def is_due(self, *, checkpoint: bool, sync: bool, own: bool) -> bool:
        """Count a call; return whether it is the one."""
        if (self.checkpoint and not checkpoint) or (self.sync and not sync):
            return False
        if self.own and not own:
            return False
        self.calls -= 1
        return self.calls < 0


@dataclass
class File:
    """Bytes as the page cache has them, and as the disk has them."""

    cached: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    in_place: bool = False
    """Written over itself: after a power cut it is the old or the new, or torn."""
    dropped: list[tuple[int, int]] = field(default_factory=list)
    """Ranges that a failed sync has marked as clean: cached, and never written."""
    before: bytes = b""
    """What the disk had before the last sync."""
    synced: int = 0
    """How many bytes the disk had after it."""

    @property
    def is_on_disk(self) -> bool:
        """Whether a power cut would leave it as it is read now."""
        return self.durable == self.cached and not self.dropped

    def drop(self) -> int:
        """Take what is not on disk for clean, after a failure; return how much."""
        start = 0 if self.in_place else len(self.durable)
        end = len(self.cached)
        if start < end and self.cached[start:] != self.durable[start:]:
            self.dropped.append((start, end))
            return end - start
        return 0

    def write_back(self) -> None:
        """Write the cache to the disk, except for the pages it believes clean."""
        written = bytearray(self.cached)
        for start, end in self.dropped:
            old = self.durable[start:end].ljust(end - start, b"\0")
            written[start:end] = old[: max(0, len(written) - start)]
        self.before, self.durable = self.durable, bytes(written)
        self.synced = len(written)

    def overwritten(self) -> list[tuple[int, bytes]]:
        """Return what the sectors had that the last sync has changed, each by its offset."""
        new = self.durable[: self.synced]
        old = self.before[: len(new)].ljust(len(new), b"\0")
        return [
            (at, old[at : at + SECTOR])
            for at in range(0, len(new), SECTOR)
            if old[at : at + SECTOR] != new[at : at + SECTOR]
        ]

    def tear(self) -> None:
        """
        Keep the old or the new of what was written in place, or a part of each.

        The cut is in the middle of the bytes that are new: they were on their way.
        """
        old, new = self.durable.ljust(len(self.cached), b"\0"), bytes(self.cached)
        changed = [at for at in range(len(new)) if old[at] != new[at]] or [0]
        middle = (changed[0] + changed[-1] + 1) // 2
        choice = zlib.crc32(new) % 3
        self.durable = (old, new, new[:middle] + old[middle:])[choice]
        self.cached = bytearray(self.durable)


class Disk:
    """A `Storage`; survives the node that uses it."""

    def __init__(
        self, node_id: str, rng: random.Random, effects: Effects | None = None
    ) -> None:
        self.node_id = node_id
        self.rng = rng
        self.effects = Effects() if effects is None else effects
        self.names: dict[str, File] = {}
        self._names_since: list[dict[str, File]] = [{}]
        """As they are on disk, and after each change since: in that order they go there."""
        self.fuse: int | None = None
        """Operations until the process is killed."""
        self.failing = False
        """Every sync fails from now on."""
        self.names_first = False
        """Whether it fails only from the next sync of names on."""
        self.full = False
        """Every write finds no room."""
        self.overwrites = False
        """Whether files and folders may still change in place: see `fail` and `fill`."""
        self.cut: bool | None = None
        """Whether the process killed at a fault point loses power; None: it was not."""
        self.state_fault: StateFault | None = None
        """The next one, where the state has simulated files (`files`)."""
        self.hurt = False
        """A call on the files of the state has failed in this process."""
        self.unable = False
        """The machine cannot apply the next entry, as if its memory were bad."""
        self.violated: Callable[[str, str], object] = lambda _kind, _seen: None
        """Called with what a process must not do with a disk, and what it has done."""
        self.rotten = False
        """It has lost, or changed, something that it had reported as written."""

    def copy(self) -> "Disk":
        """Return a disk with the same content, as a snapshot of the machine has it."""
        other = type(self)(self.node_id, self.rng, self.effects)
        files: dict[int, File] = {}
        for names in (self.names, *self._names_since):
            for file in names.values():
                if id(file) not in files:
                    cached, dropped = bytearray(file.cached), list(file.dropped)
                    files[id(file)] = replace(file, cached=cached, dropped=dropped)

        def copied_names(names: dict[str, File]) -> dict[str, File]:
            return {name: files[id(file)] for name, file in names.items()}

        other.violated = self.violated
        other.names = copied_names(self.names)
        other._names_since = [copied_names(names) for names in self._names_since]
        return other

    @property
    def broken(self) -> bool:
        """Whether a node may rightly stop because of this disk."""
        return self.failing or self.full or self.hurt or self.rotten

    def check_holds(self, name: str) -> None:
        """See that a file which promises are made from outlasts a power cut now."""
        file = self.names.get(name)
        known = self._names_since[0].get(name)
        if file is None or known is not file or not file.is_on_disk:
            self.violated("promises are on disk", self.where(name))

    def burn(self, effect: Effect = Effect.KILL_IN_FILE_OPERATION) -> None:
        """Come nearer to a kill that is planned."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.fuse = None
                self.effects[effect] += 1
                raise Killed(self.node_id)

    def take_cut(self) -> bool | None:
        """Return `cut`, once."""
        cut, self.cut = self.cut, None
        return cut

    def where(self, name: str) -> str:
        return f"{self.node_id}:{name}"

    def exists(self, name: str) -> bool:
        return name in self.names

    def _existing(self, name: str) -> File:
        if name not in self.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", self.where(name))
        return self.names[name]

    def read(self, name: str) -> bytes:
        return bytes(self._existing(name).cached)

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        return bytes(self._existing(name).cached[offset : offset + size])

    def list_names(self) -> list[str]:
        return sorted(self.names)

    def append_to(self, name: str) -> AppendFile:
        return _Handle(self, self._open(name))

    def mark_in(self, name: str) -> MarkFile:
        file = self._open(name)
        file.in_place = True
        return _Mark(self, file)

    def _open(self, name: str) -> File:
        if name not in self.names:
            self.names[name] = File()
            self._names_changed()
        return self.names[name]

    def _names_changed(self) -> None:
        self._names_since.append(dict(self.names))

    def truncate(self, name: str, size: int) -> None:
        self.burn()
        file = self.names[name]
        del file.cached[size:]
        self.sync(file)

    def rewrite(self, name: str, offset: int) -> None:
        self.burn()
        file = self.names[name]
        file.dropped = [(a, min(b, offset)) for a, b in file.dropped if a < offset]
        self.sync(file)

    def remove(self, name: str) -> None:
        self.burn()
        if self.names.pop(name, None) is not None:
            self._names_changed()

    def rename(self, source: str, target: str) -> None:
        self.burn()
        if not self.names[source].is_on_disk:
            seen = f"{self.where(target)} is a new name of unsynced bytes"
            self.violated("names of synced bytes", seen)
        self.names[target] = self.names.pop(source)
        self._names_changed()
        self.burn()

    def fail(self) -> None:
        """
        Fail from now on, or from the next sync of names on.

        Writes in place reach the page cache, or the file system takes none any more.
        """
        dice = self._chance()
        self.failing, self.names_first = True, dice % NAMES_FIRST == 0
        self.overwrites = dice // NAMES_FIRST % 4 > 0

    def fill(self) -> None:
        """Be full; a file system that overwrites nothing needs room for each change."""
        self.full, self.overwrites = True, self._chance() % 2 > 0

    def _chance(self) -> int:
        """Return a number that depends on the content alone: no other dice change."""
        return zlib.crc32(b"".join(self.names[n].cached for n in sorted(self.names)))

    def sync_directory(self) -> None:
        """Make names durable; after a failure, a later sync may still do so."""
        self.burn()
        finds_room = self.overwrites or not self.full or len(self._names_since) == 1
        if (fails := self.failing) or not finds_room:
            self.names_first = False
            self.effects[Effect.NAMES_SYNC_FAILED] += 1
            raise OSError(errno.EIO if fails else errno.ENOSPC, "names are not synced")
        self._names_since = [dict(self.names)]

    @property
    def fails_to_sync(self) -> bool:
        """Whether a sync of a file fails."""
        return self.failing and not self.names_first

    def write(self, file: File, data: bytes) -> None:
        """Append, all of it or (killed, or without room) a beginning of it."""
        if self.fuse == 0:
            file.cached += data[: self.rng.randint(0, len(data))]
        self.burn()
        if self.full:
            self.effects[Effect.DISK_FULL] += 1
            file.cached += data[: self.rng.randint(0, max(0, len(data) - 1))]
            raise OSError(errno.ENOSPC, "no space left on device")
        file.cached += data
        self.burn()

    def write_in_place(self, file: File, data: bytes) -> None:
        """Replace the content; without room perhaps a beginning of it."""
        fails = self.fails_to_sync
        if self.overwrites or not (fails or self.full):
            file.cached[:] = data
            file.dropped.clear()  # Dirty again.
            return
        self.effects[Effect.IN_PLACE_FAILED] += 1
        if fails:
            raise OSError(errno.EIO, "the disk has failed")
        written = zlib.crc32(data) % len(data)
        file.cached[:written] = data[:written]
        file.dropped.clear()
        raise OSError(errno.ENOSPC, "no space left on device")

    def sync(self, file: File) -> None:
        """
        Write a file back; a failure drops what it was about, as Linux does.

        The pages stay readable and count as clean, so the next sync succeeds
        without having written them.
        """
        self.burn()
        if self.fails_to_sync:
            self.effects[Effect.SYNC_FAILED] += 1
            self.effects[Effect.PAGES_DROPPED] += file.drop()
            raise OSError("the disk has failed")
        file.write_back()
        self.burn()

    def lose_power(self) -> None:
        """
        Keep what is durable, and perhaps some of the rest, perhaps torn.

        Of the names a beginning of their changes: a file system writes them down
        in order. Of a file that was not synced, a beginning, or less.
        """
        rng = self.rng
        late = 2 * rng.random() - 1  # Below 0: nothing since the last sync.
        names = self._names_since[
            max(0, math.ceil(late * (len(self._names_since) - 1)))
        ]
        self.effects[Effect.NAME_LOST] += names != self.names
        for file in names.values():
            if file.in_place:
                file.tear()
                continue
            kept = len(file.durable)
            end = rng.randint(min(kept, len(file.cached)), len(file.cached))
            tail = bytearray(file.cached[kept:end])
            self.effects[Effect.BYTES_LOST] += max(
                0, len(file.cached) - kept - len(tail)
            )
            if tail and rng.random() < 0.3:
                _tear(tail, rng.randrange(len(tail)))
                self.effects[Effect.BYTES_TORN] += 1
            file.cached = bytearray(file.durable) + tail
            file.durable = bytes(file.cached)
            file.dropped.clear()
        self.names, self._names_since = dict(names), [dict(names)]


def _tear(tail: bytearray, at: int) -> None:
    """Damage a place of the disk: wrong bytes, or a sector of zeros."""
    if zlib.crc32(tail) % 2:
        tail[at] ^= 0x55
    else:
        start = at - at % SECTOR
        sector = tail[start : start + SECTOR]
        tail[start : start + SECTOR] = bytes(len(sector))


class _Handle:
    def __init__(self, disk: Disk, file: File) -> None:
        self._disk = disk
        self._file = file

    def append(self, data: bytes) -> None:
        self._disk.write(self._file, data)

    def sync(self) -> None:
        self._disk.sync(self._file)

    def close(self) -> None:
        pass


class _Mark:
    """No kill comes before it or after: either is as good as one at the sync before."""

    def __init__(self, disk: Disk, file: File) -> None:
        self._disk = disk
        self._file = file

    def write(self, data: bytes) -> None:
        self._disk.write_in_place(self._file, data)

    def sync(self) -> None:
        self._disk.sync(self._file)

    def close(self) -> None:
        pass
