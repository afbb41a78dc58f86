# SPDX-License-Identifier: Apache-2.0
"""
The journal's file: batches of records, each on disk before the next is written.

`journal` says what the records mean; here is how they become durable, and what
a file must look like to be believed.
"""

import logging
from collections.abc import Iterator
from typing import Any

from sparecode_node.replication.errors import Fatal, StartRefusedError
from sparecode_node.replication.log import format as form
from sparecode_node.replication.log.format import RecordKind
from sparecode_node.replication.log.storage import AppendFile, MarkFile, Storage

log = logging.getLogger(__name__)

NAME = "raft.journal"
MARK = "raft.mark"
"""
Says which batch was on disk, in the page cache at once, on disk when the kernel
likes. So a batch that this node had relied upon is not taken for a torn tail when it
has rotted since.
"""


class JournalFile:
    """One file that only grows, or is replaced by another as a whole."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._file: AppendFile | None = None
        self._mark: MarkFile | None = None
        self._salt = b""
        self._sequence = 0
        self._poisoned = ""

    @property
    def where(self) -> str:
        """What to call it in a message to a person."""
        return self._storage.where(NAME)

    def exists(self) -> bool:
        """Say whether there is one."""
        return self._storage.exists(NAME)

    def existed(self) -> bool:
        """Say whether there was one: only an open journal leaves a mark."""
        return self._storage.exists(MARK)

    def close(self) -> None:
        """Write nothing more."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._mark is not None:
            self._mark.close()
            self._mark = None

    # --- Growing

    def check_usable(self) -> None:
        """Raise `Fatal` if writing has failed once: what was written is not known."""
        if self._poisoned:
            raise Fatal(self._poisoned)

    def append(self, records: bytes) -> None:
        """Return when *records* are on disk, as one batch. Raises `Fatal`."""
        if self._file is None:
            raise Fatal("the journal is closed")
        self._sequence += 1
        data = form.batch(self._salt, self._sequence, records)
        try:
            self._file.append(data)
            self._file.sync()
            self._note()  # Never before: what it says must be so.
        except OSError as error:
            # What the kernel has dropped after a failed sync it will call
            # synced the next time: never try again.
            self._poisoned = f"{self.where}: writing the journal failed: {error}"
            raise Fatal(self._poisoned) from error

    def _note(self) -> None:
        """Note that the last batch is on disk."""
        if self._mark is not None:
            self._mark.write(form.mark(self._salt, self._sequence))

    # --- Beginning anew

    def create(self, records: bytes, salt: bytes) -> None:
        """Write a file under another name, and rename it when it is complete."""
        new = NAME + ".new"
        try:
            self._storage.remove(new)
            file = self._storage.append_to(new)
            file.append(form.file_header(salt) + form.batch(salt, 1, records))
            file.sync()
            file.close()
            self._storage.rename(new, NAME)
            self._storage.sync_directory()
        except OSError as error:
            raise StartRefusedError(
                f"{self.where}: the journal cannot be created: {error}"
            ) from error

    def replace(self, records: list[bytes]) -> None:
        """Have a file of these records take the place of this one, at once."""
        self.check_usable()
        salt = form.next_salt(self._salt, self._sequence)
        sequence, file = self._write_new(salt, records)
        if self._file is not None:
            self._file.close()
        self._file, self._salt, self._sequence = file, salt, sequence
        try:
            self._note()
        except OSError as error:
            self._poisoned = f"{self.where}: writing the mark failed: {error}"
            raise Fatal(self._poisoned) from error

    def _write_new(self, salt: bytes, records: list[bytes]) -> tuple[int, AppendFile]:
        new, sequence = NAME + ".new", 0
        try:
            self._storage.remove(new)
            file = self._storage.append_to(new)
            file.append(form.file_header(salt))
            for data in form.joined(records):
                sequence += 1
                file.append(form.batch(salt, sequence, data))
            file.sync()
            self._storage.rename(new, NAME)
            self._storage.sync_directory()
        except OSError as error:
            self._poisoned = f"{self.where}: compacting the journal failed: {error}"
            raise Fatal(self._poisoned) from error
        return sequence, file

    # --- Opening

    def load(self) -> Iterator[tuple[RecordKind, Any, int]]:
        """
        Yield what the records say, and at which offset; then be open.

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
            # No crash can tear the first batch.
            raise form.FormatError(end, "the first batch is damaged")
        self._check_mark(end)
        if end < len(data):
            log.warning(
                "journal_tail_cut",
                extra={"file": self.where, "offset": end, "bytes": len(data) - end},
            )
            self._storage.truncate(NAME, end)
        # A process that was killed may have left bytes and names that are not
        # on disk yet: make them durable before anybody relies on them. If a
        # failed sync stopped it, the kernel counts the pages of the last batch
        # as clean: a sync alone would call them durable, and write nothing.
        self._storage.rewrite(NAME, start)
        self._file = self._storage.append_to(NAME)
        self._mark = self._storage.mark_in(MARK)
        self._note()
        self._mark.sync()
        self._storage.sync_directory()

    def _check_mark(self, end: int) -> None:
        """Refuse a journal without what was on disk: no crash takes that away."""
        marked = 0
        if self._storage.exists(MARK):
            marked = form.read_mark(self._storage.read(MARK), self._salt)
        if marked > self._sequence:
            raise form.FormatError(
                end,
                f"batch {self._sequence + 1} is damaged or missing, and batch {marked}"
                " was on disk",
            )
