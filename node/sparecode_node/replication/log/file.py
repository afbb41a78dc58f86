# SPDX-License-Identifier: Apache-2.0
"""
The journal's file: batches of records, each on disk before the next is written.

`journal` defines what the records mean. This module makes them durable, and decides
which files may be relied on.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sparecode_node.fault_points import Point, reach
from sparecode_node.replication.errors import Fatal, StartRefusedError
from sparecode_node.replication.log import format as form
from sparecode_node.replication.log.format import RecordKind
from sparecode_node.replication.log.storage import AppendFile, MarkFile, Storage

log = logging.getLogger(__name__)

NAME = "raft.journal"
SHORTER = "raft.journal.shorter"
"""A shorter journal that is being written beside the journal."""
MARK = "raft.mark"
"""
Names the last batch that was synced. The mark reaches the page cache at once, and the
disk when the kernel writes it. So a synced batch that has rotted since is not mistaken
for a torn tail.
"""


_COMPACTING = "compacting the journal failed"


@dataclass(slots=True)
class Successor:
    """A file that is to take the journal's place."""

    salt: bytes
    name: str = NAME + ".new"
    """Until it does."""
    sequence: int = 0
    """Of its last batch."""
    file: AppendFile | None = None
    """None: it is not on disk yet."""

    def close(self) -> None:
        """Close the file, which does not take the journal's place."""
        if self.file is not None:
            self.file.close()


class JournalFile:
    """One file that only grows, or is replaced as a whole by another file."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._file: AppendFile | None = None
        self._mark: MarkFile | None = None
        self._salt = b""
        self._sequence = 0
        self._poisoned = ""

    @property
    def where(self) -> str:
        """Its path, for messages to people."""
        return self._storage.where(NAME)

    def exists(self) -> bool:
        """Return whether there is a journal."""
        return self._storage.exists(NAME)

    def existed(self) -> bool:
        """Return whether there was a journal: only an open journal leaves a mark."""
        return self._storage.exists(MARK)

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._mark is not None:
            self._mark.close()
            self._mark = None

    # --- Growing

    def check_usable(self) -> None:
        """Raise `Fatal` if a write has failed: what reached the disk is then not known."""
        if self._poisoned:
            raise Fatal(self._poisoned)

    def append(self, records: bytes) -> None:
        """Write *records* as one batch; return when they are on disk. Raises `Fatal`."""
        if self._file is None:
            raise Fatal("the journal is closed")
        self._sequence += 1
        data = form.batch(self._salt, self._sequence, records)
        try:
            reach(Point.JOURNAL_WRITE)
            self._file.append(data)
            reach(Point.JOURNAL_SYNC)
            self._file.sync()
            reach(Point.JOURNAL_SYNCED)
            self._note()  # Not before the sync: the mark must be true.
        except OSError as error:
            # After a failed sync the kernel may drop the pages and report success
            # the next time: never try again.
            self._poisoned = f"{self.where}: writing the journal failed: {error}"
            raise Fatal(self._poisoned) from error

    def _note(self) -> None:
        """Mark the last batch as on disk."""
        if self._mark is not None:
            self._mark.write(form.mark(self._salt, self._sequence))

    # --- Replacing

    def create(self, records: bytes, salt: bytes) -> None:
        """Write a file under another name, and rename it when it is complete."""
        new = NAME + ".new"
        try:
            self._storage.remove(new)
            file = self._storage.append_to(new)
            file.append(form.file_header(salt) + form.batch(salt, 1, records))
            file.sync()
            file.close()
            reach(Point.JOURNAL_RENAME)
            self._storage.rename(new, NAME)
            reach(Point.JOURNAL_RENAMED)
            self._storage.sync_directory()
        except OSError as error:
            raise StartRefusedError(
                f"{self.where}: the journal cannot be created: {error}"
            ) from error

    def replace(self, records: Iterable[bytes]) -> None:
        """Replace this file by one with these records, in one step. Raises `Fatal`."""
        self.check_usable()
        successor = Successor(self.next_salt())
        self.write_beside(successor, records)
        self.take(successor, [])

    def next_salt(self) -> bytes:
        """Return the salt of the file that replaces this one as it is now."""
        return form.next_salt(self._salt, self._sequence)

    def write_beside(self, successor: Successor, records: Iterable[bytes]) -> None:
        """
        Write another file under another name; return when it is on disk.

        May run in another thread, while this file grows. Raises `Fatal`.
        """
        try:
            self._storage.remove(successor.name)
            file = self._storage.append_to(successor.name)
            file.append(form.file_header(successor.salt))
            for data in form.joined(records):
                successor.sequence += 1
                file.append(form.batch(successor.salt, successor.sequence, data))
            reach(Point.JOURNAL_SHORTER_SYNC)
            file.sync()
        except OSError as error:
            self._poisoned = f"{self.where}: {_COMPACTING}: {error}"
            raise Fatal(self._poisoned) from error
        successor.file = file
        reach(Point.JOURNAL_SHORTER_WRITTEN)

    def take(self, successor: Successor, more: Sequence[bytes]) -> None:
        """Let another file take this one's place, with *more* records. Raises `Fatal`."""
        self.check_usable()
        file = successor.file
        if file is None:
            raise Fatal(f"{self.where}: the new journal is not written")
        try:
            for data in form.joined(more):
                successor.sequence += 1
                file.append(form.batch(successor.salt, successor.sequence, data))
            if more:
                file.sync()
            reach(Point.JOURNAL_RENAME)
            self._storage.rename(successor.name, NAME)
            reach(Point.JOURNAL_RENAMED)
            self._storage.sync_directory()
        except OSError as error:
            self._poisoned = f"{self.where}: {_COMPACTING}: {error}"
            raise Fatal(self._poisoned) from error
        if self._file is not None:
            self._file.close()
        self._file, self._salt = file, successor.salt
        self._sequence = successor.sequence
        try:
            self._note()
        except OSError as error:
            self._poisoned = f"{self.where}: writing the mark failed: {error}"
            raise Fatal(self._poisoned) from error

    # --- Opening

    def load(self) -> Iterator[tuple[RecordKind, Any, int]]:
        """
        Yield each record's kind, value and offset; then open the file for appending.

        Raises `FormatError`, and `OSError`.
        """
        data = self._storage.read(NAME)
        self._salt = form.read_file_header(data)
        start = end = form.FILE_HEADER_BYTES
        for batch in form.read_batches(data, self._salt):
            for kind, value in form.read_records(batch):
                yield kind, value, batch.start
            self._sequence, start, end = batch.sequence, batch.start, batch.end
        if self._sequence == 0:
            # No crash tears the first batch: the file got its name when it was synced.
            raise form.FormatError(end, "the first batch is damaged")
        self._check_mark(end)
        if end < len(data):
            log.warning(
                "journal_tail_cut",
                extra={"file": self.where, "offset": end, "bytes": len(data) - end},
            )
            self._storage.truncate(NAME, end)
            reach(Point.JOURNAL_TAIL_CUT)
        # A killed process may have left names and bytes that are not on disk yet. The
        # record of this start (`boots`) makes the names durable. Make the bytes
        # durable, too, before this node relies on them. If a failed sync
        # stopped the process, the kernel counts the pages of the last batch as
        # clean: a sync alone would report success, and write nothing.
        self._storage.rewrite(NAME, start)
        self._file = self._storage.append_to(NAME)
        self._mark = self._storage.mark_in(MARK)
        self._note()
        self._mark.sync()

    def _check_mark(self, end: int) -> None:
        """Refuse a journal that lacks a batch that was on disk: no crash removes that."""
        marked = 0
        if self._storage.exists(MARK):
            marked = form.read_mark(self._storage.read(MARK), self._salt)
        if marked > self._sequence:
            raise form.FormatError(
                end,
                f"batch {self._sequence + 1} is damaged or missing, and batch {marked}"
                " was on disk",
            )
