# SPDX-License-Identifier: Apache-2.0
"""
A state folder as the page cache has it, and as the disk has it.

The files are real: SQLite needs its locks and its shared memory. What was written since
the last sync is recorded in order, so that a power cut can take away what it likes.
"""

import enum
import math
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
PAGE = 4096
"""The kernel writes back, and drops after a failure, whole pages."""

VOLATILE = "-shm"
"""SQLite's index of its log is shared memory: no sync is ever relied on."""


class Cut(enum.Enum):
    """What a power cut leaves of the writes since the last sync of a file."""

    NONE = "none of them"
    ALL = "all of them"
    FIRST = "the first ones, the last of those torn"
    SOME = "any sectors of any of them"


class Rot(enum.Enum):
    """What a disk does to bytes that it has reported as written."""

    BIT = "a bit flips"
    ZEROS = "a sector becomes zeros"
    MISDIRECTED = "a sector has what belongs into another one"
    LOST_WRITE = "a sector has what it had before the last sync"
    CUT = "the file ends earlier"


@dataclass(frozen=True, slots=True)
class _Write:
    at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Truncation:
    size: int


@dataclass
class Tracked:
    """One file, whatever its name is."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[_Write | _Truncation] = field(default_factory=list)
    """Since the last sync, in order."""
    dropped: set[int] = field(default_factory=set)
    """Pages that a failed sync has marked as clean: readable, and on no disk."""
    before: list[tuple[int, bytes]] = field(default_factory=list)
    """What the last sync has overwritten, by sectors."""

    @property
    def is_on_disk(self) -> bool:
        """Whether a power cut would leave it as it is read now."""
        return not (self.pending or self.dropped)

    def copy(self) -> "Tracked":
        """Return one with the same content."""
        return Tracked(bytearray(self.durable), list(self.pending), set(self.dropped))

    def sync(self) -> None:
        """Write back what is pending; pages that count as clean are left out."""
        if self.pending:
            self.before = [
                (start, bytes(self.durable[start : start + len(data)]))
                for change in self.pending
                if isinstance(change, _Write)
                for start, data in _sectors(change)
            ]
        for change in self.pending:
            _apply(self.durable, change)
        self.pending.clear()

    def drop(self) -> int:
        """Mark what is pending as clean, after a failure; return how many bytes."""
        writes = [change for change in self.pending if isinstance(change, _Write)]
        for write in writes:
            self.dropped.update(_pages(write.at, len(write.data)))
        self.pending.clear()
        return sum(len(write.data) for write in writes)

    def rot(self, kind: "Rot", rng: random.Random) -> bool:
        """Let the disk have other bytes than those that were synced; return if it has."""
        content, old = self.durable, bytes(self.durable)
        if not content:
            return False
        sectors = range(0, len(content), SECTOR)
        at = rng.choice(sectors)
        match kind:
            case Rot.BIT:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            case Rot.ZEROS:
                content[at : at + SECTOR] = bytes(len(content[at : at + SECTOR]))
            case Rot.MISDIRECTED:
                other = rng.choice(sectors)
                size = min(SECTOR, len(content) - max(at, other))
                content[at : at + size] = old[other : other + size]
                for start, data in self.before:  # There it has not been written.
                    if start // SECTOR == other // SECTOR != at // SECTOR:
                        content[start : start + len(data)] = data
            case Rot.LOST_WRITE if self.before:
                start, data = rng.choice(self.before)
                if start + len(data) <= len(content):
                    content[start : start + len(data)] = data
            case Rot.CUT:
                del content[at:]
        return bytes(content) != old

    def lose_power(self, cut: Cut, rng: random.Random) -> tuple[int, int]:
        """Keep what *cut* says; return how many sectors were lost, and how many kept."""
        kept = lost = 0
        whole = {Cut.NONE: 0, Cut.ALL: len(self.pending)}.get(cut)
        first = rng.randint(0, len(self.pending)) if whole is None else whole
        for number, change in enumerate(self.pending):
            if isinstance(change, _Truncation):
                if number < first or (cut is Cut.SOME and rng.random() < 0.5):
                    _apply(self.durable, change)
                continue
            torn = cut is Cut.FIRST and number == first
            for start, data in _sectors(change):
                keep = number < first
                if cut is Cut.SOME or torn:
                    keep = rng.random() < 0.5
                kept, lost = kept + keep, lost + (not keep)
                if keep:
                    _apply(self.durable, _Write(start, data))
        self.pending.clear()
        self.dropped.clear()
        return lost, kept


@dataclass
class Folder:
    """The files of one machine's state, which survive its processes."""

    path: Path
    names: dict[str, Tracked] = field(default_factory=dict)
    _names_since: list[dict[str, Tracked]] = field(default_factory=lambda: [{}])
    """As they are on disk, and after each change since: in that order they go there."""

    def copy(self, path: Path) -> "Folder":
        """Return another folder with the same content, as a snapshot of the machine has it."""
        copies: dict[int, Tracked] = {}
        for names in (self.names, *self._names_since):
            for file in names.values():
                copies.setdefault(id(file), file.copy())

        def copied(names: dict[str, Tracked]) -> dict[str, Tracked]:
            return {name: copies[id(file)] for name, file in names.items()}

        other = Folder(path, copied(self.names), [copied(n) for n in self._names_since])
        if not path.is_dir():
            return other
        for name in self.names:
            if (self.path / name).exists():
                (path / name).write_bytes(read_unwatched(self.path / name))
        return other

    def tracked(self, name: str) -> Tracked:
        """Return a file, a new one if there is none of the name."""
        if name not in self.names:
            self.names[name] = Tracked()
            self._names_changed()
        return self.names[name]

    def wrote(self, name: str, at: int, data: bytes) -> None:
        """Record what the page cache got. The real file has it already."""
        file = self.tracked(name)
        again = file.dropped & set(_pages(at, len(data)))
        file.pending.append(_Write(at, data))
        content = read_unwatched(self.path / name) if again else b""
        for page in sorted(again):  # Dirty again: all of it is written back.
            file.dropped.discard(page)
            there = content[page * PAGE : (page + 1) * PAGE]
            file.pending.append(_Write(page * PAGE, there))

    def truncated(self, name: str, size: int) -> None:
        """Record that a file was cut."""
        file = self.tracked(name)
        file.dropped = {page for page in file.dropped if page * PAGE < size}
        file.pending.append(_Truncation(size))

    def synced(self, name: str) -> None:
        """Make a file durable. Its name is durable with the directory."""
        self.tracked(name).sync()

    def sync_failed(self, name: str) -> int:
        """Drop what was not written, as Linux does; return how many bytes."""
        return self.tracked(name).drop()

    def renamed(self, source: str, target: str) -> None:
        """Record that a file has another name."""
        self.names[target] = self.names.pop(source)
        self._names_changed()

    def removed(self, name: str) -> None:
        """Record that a name is gone."""
        if self.names.pop(name, None) is not None:
            self._names_changed()

    def names_synced(self) -> None:
        """Make the names durable."""
        self._names_since = [dict(self.names)]

    def _names_changed(self) -> None:
        self._names_since.append(dict(self.names))

    def _cut(self, rng: random.Random) -> dict[str, Tracked]:
        """Return the names that a power cut leaves: those of the disk, or some later."""
        late = 2 * rng.random() - 1  # Below 0: none since the last sync.
        return self._names_since[max(0, math.ceil(late * (len(self._names_since) - 1)))]

    def put_back(self, older: "Folder", rng: random.Random) -> None:
        """Become what an older copy has on its disk."""
        names = older._cut(rng)
        for file in names.values():
            file.lose_power(rng.choice(list(Cut)), rng)
        self.names, self._names_since = dict(names), [dict(names)]
        self.write_out()

    def lose_power(self, rng: random.Random) -> tuple[int, int, int]:
        """
        Become what the disk has, and perhaps some of the rest.

        Return the sectors lost, those kept of what was not synced, and whether a name
        was lost.
        """
        names = self._cut(rng)
        lost_name = names.keys() != self.names.keys() or any(
            names[name] is not file for name, file in self.names.items()
        )
        lost = kept = 0
        cut = rng.choice(list(Cut))
        for name in sorted(names):
            if rng.random() < 0.3:
                cut = rng.choice(list(Cut))
            lost_here, kept_here = names[name].lose_power(cut, rng)
            lost, kept = lost + lost_here, kept + kept_here
        self.names, self._names_since = dict(names), [dict(names)]
        self.write_out()
        return lost, kept, int(lost_name)

    def write_out(self) -> None:
        """Let the real files be what the disk has."""
        for real in self.path.iterdir():
            if real.name not in self.names:
                os.remove(real)  # noqa: PTH107 - `unlink` is what the simulation watches.
        for name, file in self.names.items():
            (self.path / name).write_bytes(file.durable)


def read_unwatched(path: Path) -> bytes:
    """Read a file as the simulation, and not as a process of it."""
    with open(path, "rb") as file:  # noqa: PTH123 - `Path.open` is what is watched.
        return file.read()


def _pages(at: int, size: int) -> range:
    return range(at // PAGE, -(-(at + size) // PAGE))


def _sectors(write: _Write) -> list[tuple[int, bytes]]:
    """Cut a write at the borders of sectors."""
    end = write.at + len(write.data)
    starts = [write.at, *range(write.at - write.at % SECTOR + SECTOR, end, SECTOR)]
    return [
        (start, write.data[start - write.at : stop - write.at])
        for start, stop in zip(starts, [*starts[1:], end], strict=True)
    ]


def _apply(content: bytearray, change: _Write | _Truncation) -> None:
    if isinstance(change, _Truncation):
        del content[change.size :]
        content.extend(bytes(change.size - len(content)))
        return
    if len(content) < change.at:
        content.extend(bytes(change.at - len(content)))
    content[change.at : change.at + len(change.data)] = change.data
