# SPDX-License-Identifier: Apache-2.0
"""
Checksums of the pages of the state's database, in a file beside it.

SQLite trusts its disk. A disk that reports a page as written and loses it leaves an
older page in its place: well-formed, and often unnoticed by SQLite's own checks. So
each page that a checkpoint writes into the database gets a checksum here, on disk
before the write-ahead log may be overwritten. A start compares them (`open_page_sums`).

The pages in SQLite's write-ahead log have checksums of its own. But a log that is damaged
ends earlier for SQLite, which then combines older pages of the log with newer ones of the
database, and notices nothing. So a batch also says how far the log was copied: a log
with the same salt that ends before that has lost what was on disk.

The file is a magic number, then batches: the number of pages of the database, the
number of records, the log's salt and the number of its frames that were copied, CRC-32
of these and of the records; each record is a page's number and its CRC-32. A page's last
record counts. A page without a record is not compared: it is unused.
"""

import array
import contextlib
import os
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sparecode_node.durable_files import sync_directory
from sparecode_node.statemachine.tables.schema import read_only_uri

MAGIC = b"SCPAGES2"
_BATCH = struct.Struct("<II8sI")
_CRC = struct.Struct("<I")
_RECORD = struct.Struct("<II")
_UNKNOWN = -1
ADVICE = (
    "Replace the disk, remove this node from the cluster, and add it under a new id."
)
_APPENDED_MAX = 1024 * 1024
"""Bytes of batches after which the file is written again, if it has doubled, too."""

_WAL_HEADER = 32
_SALT = slice(16, 24)
_NO_SALT = bytes(8)
_FRAME = struct.Struct(">II")
"""The beginning of a frame's header: page, and pages of the database. The salt follows."""
_FRAME_HEADER = 24
_FRAMES_READ = 64
_INDEX_FRAMES = struct.Struct("=16xI")
"""The number of valid frames in SQLite's index of the write-ahead log."""


@dataclass(frozen=True, slots=True)
class Copied:
    """How far a write-ahead log has been copied into the database."""

    salt: bytes = _NO_SALT
    """Of the log; it changes when SQLite starts the log over."""
    frames: int = 0


@dataclass(frozen=True, slots=True)
class Frames:
    """
    What frames of a write-ahead log hold, in their order.

    Arrays, because an installed snapshot is one transaction: of a million users it has
    370,000 frames, and a dict of them would take 40 MB.
    """

    salt: bytes
    """Of the log."""
    pages: int
    """Of the database after the last frame."""
    numbers: "array.array[int]"
    """The page that each frame has. A page's last frame counts."""
    sums: "array.array[int]"


@dataclass(frozen=True, slots=True)
class _Log:
    """What SQLite takes from a write-ahead log, once it is opened."""

    intact: Copied
    """The log's salt, and the number of its intact frames."""
    held: frozenset[int] = frozenset()
    """The pages in them."""
    pages: int = 0
    """Of the database after the last one; 0: there is none."""


class LostWriteError(Exception):
    """The database on disk is not the one that was written."""


class PageSums:
    """The checksums of one database. Methods may raise `OSError`."""

    def __init__(self, path: Path) -> None:
        """Store the arguments; `load` reads the file."""
        self._path = path
        self._sums: array.array[int] = array.array("q")
        self._fd = -1
        self._size = self._written = 0
        self.copied = Copied()

    def __len__(self) -> int:
        """Return the number of pages, known or not."""
        return len(self._sums)

    def get(self, page: int) -> int | None:
        """Return the checksum of a page; pages count from 1."""
        if not 0 < page <= len(self._sums) or self._sums[page - 1] == _UNKNOWN:
            return None
        return self._sums[page - 1]

    def load(self) -> bool:
        """
        Read the file up to its first damaged batch: that one was never relied on.

        Return whether there is a file of this format.
        """
        if not self._path.exists():
            return False
        data = memoryview(self._path.read_bytes())
        if data[: len(MAGIC)] != MAGIC:
            return False
        at = len(MAGIC)
        while len(data) - at >= _BATCH.size + _CRC.size:
            pages, count, salt, frames = _BATCH.unpack_from(data, at)
            end = at + _BATCH.size + count * _RECORD.size
            if len(data) < end + _CRC.size:
                break
            if zlib.crc32(data[at:end]) != _CRC.unpack_from(data, end)[0]:
                break
            records = data[at + _BATCH.size : end]
            self._take(pages, _RECORD.iter_unpack(records))
            self.copied = Copied(salt, frames)
            at = end + _CRC.size
        return True

    def add(self, frames: Frames, copied: Copied) -> None:
        """
        Record the checksums of frames; return when they are on disk.

        *copied*: the log that they are from, up to them.
        """
        self._take(frames.pages, zip(frames.numbers, frames.sums, strict=True))
        self.copied = copied
        if self._fd < 0 or self._size > max(_APPENDED_MAX, 2 * self._written):
            self.rewrite()
            return
        changed, noted = array.array("I"), bytearray(len(self._sums))
        for page in frames.numbers:
            if page <= len(noted) and not noted[page - 1]:
                noted[page - 1] = True
                changed.append(page)
        records = ((page, self._sums[page - 1]) for page in changed)
        batch = _batch(frames.pages, len(changed), records, copied)
        _write(self._fd, batch)
        os.fdatasync(self._fd)
        self._size += len(batch)

    def rewrite(self) -> None:
        """Write the whole file again, under another name first; return when it is on disk."""
        pages = len(self._sums)
        known = (each for each in enumerate(self._sums, start=1) if each[1] != _UNKNOWN)
        count = pages - self._sums.count(_UNKNOWN)
        data = MAGIC + _batch(pages, count, known, self.copied)
        new = self._path.with_name(f"{self._path.name}.new")
        new.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self.close()
        self._fd = os.open(new, flags, 0o600)
        _write(self._fd, data)
        os.fsync(self._fd)
        new.replace(self._path)
        sync_directory(self._path.parent)
        self._size = self._written = len(data)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def compute(self, database: Path) -> None:
        """Take those of a database as it is."""
        self._sums = array.array("q", _page_sums(database))

    def _take(self, pages: int, sums: Iterable[tuple[int, int]]) -> None:
        # A large database has 300,000 pages or more: a dict of them would take 40 MB.
        del self._sums[pages:]
        more = pages - len(self._sums)
        self._sums.extend(array.array("q", [_UNKNOWN]) * more)
        for page, value in sums:
            if page <= pages:  # A later commit in the same batch has dropped it.
                self._sums[page - 1] = value


def open_page_sums(database: Path) -> PageSums:
    """
    Compare a database that is not open with its checksums; return them.

    Also write its write-ahead log again, over itself: after a failed sync it may be
    readable and on no disk. Raises `LostWriteError`, `OSError` and `sqlite3.Error`.

    There is nothing to compare with if the file of checksums is missing or of another
    format, or if the write-ahead log is missing: a node never removes its log, so another
    program has written.
    """
    sums = PageSums(database.with_name(f"{database.name}-pages"))
    log = database.with_name(f"{database.name}-wal")
    if not database.exists():
        sums.rewrite()
        return sums
    found = _read_log(database, log) if log.exists() else None
    if log.exists():
        write_again(log)
    if found is not None and sums.load():
        intact = found.intact
        is_same = intact.salt == sums.copied.salt
        # Without any intact frame, nothing of the log is used.
        if is_same and 0 < intact.frames < sums.copied.frames:
            raise LostWriteError(
                f"frame {intact.frames + 1} of the write-ahead log is damaged or missing,"
                f" and {sums.copied.frames} were on disk. {ADVICE}"
            )
        _compare(database, sums, found)
        if not intact.frames:  # SQLite may begin the log again, with the same salt.
            sums.copied = Copied()
    else:
        sums.compute(database)
    sums.rewrite()
    return sums


def sums_in_log(log: int, first: int, last: int) -> Frames:
    """
    Return what frames of a write-ahead log hold, both ends included.

    *log* is a file descriptor. The caller prevents SQLite from overwriting the log.
    Raises `LostWriteError` if a frame is not of this log.
    """
    header = os.pread(log, _WAL_HEADER, 0)
    (page_size,) = struct.unpack_from(">I", header, 8)
    salt, pages = header[_SALT], 0
    numbers, sums = array.array("I"), array.array("I")
    step = _FRAME_HEADER + page_size
    for start in range(first, last + 1, _FRAMES_READ):
        count = min(_FRAMES_READ, last + 1 - start)
        data = os.pread(log, count * step, _WAL_HEADER + (start - 1) * step)
        view = memoryview(data)
        for at in range(0, count * step, step):
            if len(data) < at + step or data[at + 8 : at + 16] != salt:
                raise LostWriteError("a frame of the write-ahead log is missing")
            page, size = _FRAME.unpack_from(data, at)
            pages = size or pages
            numbers.append(page)
            sums.append(zlib.crc32(view[at + _FRAME_HEADER : at + step]))
    return Frames(salt, pages, numbers, sums)


def _read_log(database: Path, log: Path) -> _Log:
    """Return what SQLite takes from the write-ahead log, once it is opened."""
    uri = read_only_uri(database)
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as db:
        # SQLite checks the log when it is first read. A reader changes neither file.
        db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    index = database.with_name(f"{database.name}-shm")
    (frames,) = (
        _INDEX_FRAMES.unpack_from(index.read_bytes()) if index.exists() else (0,)
    )
    with log.open("rb") as file:
        if not frames:
            return _Log(Copied(file.read(_WAL_HEADER)[_SALT]))
        held = sums_in_log(file.fileno(), 1, frames)
        return _Log(Copied(held.salt, frames), frozenset(held.numbers), held.pages)


def _compare(database: Path, sums: PageSums, log: _Log) -> None:
    # A checkpoint that makes the database shorter cuts the file before the checksums
    # are recorded. The log says then how long it is.
    end = log.pages or len(sums)
    number = 0
    for number, value in enumerate(_page_sums(database), start=1):
        expected = sums.get(number) if number <= end else None
        if expected not in (None, value) and number not in log.held:
            raise _lost(number)
    for missing in range(number + 1, min(end, len(sums)) + 1):
        if sums.get(missing) is not None and missing not in log.held:
            raise _lost(missing)


def _lost(page: int) -> LostWriteError:
    return LostWriteError(
        f"page {page} is not the one that was written: the disk has lost a"
        f" write that it had reported as done. {ADVICE}"
    )


def _page_sums(database: Path) -> Iterator[int]:
    """Yield the checksum of each page."""
    with database.open("rb") as file:
        (size,) = struct.unpack(">H", file.read(18)[16:].ljust(2, b"\0"))
        page_size = 65536 if size == 1 else size or 4096
        file.seek(0)
        while block := file.read(256 * page_size):
            view = memoryview(block)
            for at in range(0, len(block), page_size):
                yield zlib.crc32(view[at : at + page_size])


def write_again(path: Path) -> None:
    """Write a file over itself, durably."""
    with path.open("r+b", buffering=0) as file:
        at = 0
        while data := file.read(1024 * 1024):
            os.pwrite(file.fileno(), data, at)
            at += len(data)
        os.fsync(file.fileno())


def _batch(
    pages: int, count: int, sums: Iterable[tuple[int, int]], copied: Copied
) -> bytearray:
    """Return a batch with *count* checksums, each with its page."""
    data = bytearray(_BATCH.size + count * _RECORD.size)
    _BATCH.pack_into(data, 0, pages, count, copied.salt, copied.frames)
    for at, (page, value) in zip(
        range(_BATCH.size, len(data), _RECORD.size), sums, strict=True
    ):
        _RECORD.pack_into(data, at, page, value)
    data += _CRC.pack(zlib.crc32(data))
    return data


def _write(fd: int, data: bytes | bytearray) -> None:
    if os.write(fd, data) != len(data):
        raise OSError("the file system wrote only a part")
