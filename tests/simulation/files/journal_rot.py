# SPDX-License-Identifier: Apache-2.0
"""
Rot in the files of a journal, and what a start must notice of it.

What Raft promises is in these files: votes and acknowledged entries. So here a disk may
also lose a whole sync that it has reported, or a sector of it. All checksums are right
then: the file is what it was before.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sparecode_node.replication.log.boots import NOWHERE, Position
from sparecode_node.replication.log.file import MARK, NAME
from sparecode_node.replication.log.format import (
    FormatError,
    RecordKind,
    read_batches,
    read_file_header,
    read_mark,
    read_records,
)
from tests.simulation.disk import Disk, File
from tests.simulation.fault_effects import Effect
from tests.simulation.files.kernel import Rot, Tracked

WHOLE_SYNC = 0.5
"""How often all that a sync has written is lost, and not one sector of it."""
BEFORE_MARK = 0.25
"""How often the last batch rots, before the disk has the mark that names it."""
STATE_AHEAD = 0.01
"""How often that is planned, per step, for when the state on some disk has the batch."""


@dataclass
class JournalRot:
    """Spoils files of a journal whose machine is down."""

    lost: random.Random
    """Dice of their own: what is lost of a sync, and what rots before its mark."""

    def spoil(self, disk: Disk, rng: random.Random) -> str:
        """Let any of the files rot; return what has happened, or nothing."""
        if not disk.names:
            return ""
        name = rng.choice(sorted(disk.names))
        file, kind = disk.names[name], rng.choice(list(Rot))
        changed = self._rot(disk, file, kind, rng)
        return f"{name}: {kind.value}" if changed else ""

    def spoil_last_batch(self, disk: Disk, rng: random.Random) -> str:
        """Let a part of the last batch rot: a torn tail looks the same."""
        file = disk.names.get(NAME)
        if file is None:
            return ""
        try:
            *_, last = read_batches(file.durable, read_file_header(file.durable))
        except (FormatError, ValueError):
            return ""
        kind = rng.choice(list(Rot))
        start = 0 if kind is Rot.LOST_WRITE else last.start
        changed = self._rot(disk, file, kind, rng, start=start, end=last.end)
        disk.effects[Effect.LAST_BATCH_ROTTEN] += changed
        return f"{NAME}, its last batch: {kind.value}" if changed else ""

    def waits_for_state(self) -> bool:
        """Draw whether the next last batch rots that some state has applied durably."""
        return self.lost.random() < STATE_AHEAD

    def is_before_mark(self) -> bool:
        """Draw whether the last batch rots before the disk has its mark."""
        return self.lost.random() < BEFORE_MARK

    def _rot(
        self,
        disk: Disk,
        file: File,
        kind: Rot,
        rng: random.Random,
        *,
        start: int = 0,
        end: int | None = None,
    ) -> bool:
        old = file.durable
        if kind is Rot.LOST_WRITE:
            new = self._without_last_write(file)
            disk.effects[Effect.WRITE_LOST] += new != old
        else:
            part = Tracked(bytearray(old[start:end]))
            if start == 0:
                part.before = file.overwritten()
            part.rot(kind, rng)
            new = old[:start] + bytes(part.durable)
        file.cached, file.durable = bytearray(new), new
        return new != old

    def _without_last_write(self, file: File) -> bytes:
        """Return the content without what the last sync has written, or a sector of it."""
        if self.lost.random() < WHOLE_SYNC:
            return file.before
        content, sectors = bytearray(file.durable), file.overwritten()
        if sectors:
            start, data = self.lost.choice(sectors)
            content[start : start + len(data)] = data
        return bytes(content)


def mark_on(disk: Disk, *, newest: bool) -> bytes:
    """Return the mark that a disk has; *newest*: the kernel has had the time to write it."""
    file = disk.names.get(MARK)
    if file is None:
        return b""
    if newest:
        file.write_back()
    return file.durable


def keep_mark(disk: Disk, mark: bytes) -> None:
    """Let a disk have this mark after a power cut, if it has one at all."""
    if MARK in disk.names:
        disk.names[MARK].cached, disk.names[MARK].durable = bytearray(mark), mark


def lacks_synced_batches(disk: Disk) -> bool:
    """Return whether the journal on a disk ends before a batch that its mark names."""
    try:
        last, marked = _last_and_marked(disk)
    except FormatError:
        return True
    return marked > last


def is_before_mark(disk: Disk) -> bool:
    """Return whether the disk has a batch, and only the mark of an earlier one."""
    try:
        last, marked = _last_and_marked(disk)
    except FormatError:
        return False
    return marked < last


def _last_and_marked(disk: Disk) -> tuple[int, int]:
    """Return the last batch of the journal, and the one that its mark names, or 0."""
    if NAME not in disk.names or MARK not in disk.names:
        return 0, 0
    data = bytes(disk.names[NAME].durable)
    salt = read_file_header(data)
    last = max((batch.sequence for batch in read_batches(data, salt)), default=0)
    return last, read_mark(bytes(disk.names[MARK].durable), salt)


def end_of_journal(disk: Disk) -> Position:
    """Return where the journal on a disk ends, without what rot has taken from its end."""
    if NAME not in disk.names:
        return NOWHERE
    term = entry_term = index = 0
    for kind, value in _records(bytes(disk.names[NAME].durable)):
        if kind is RecordKind.TERM:
            term, _ = value
        elif kind is RecordKind.ADD:
            _, index, entry_term = value
        elif kind is RecordKind.BASE:
            index, entry_term = value
        elif kind is RecordKind.TRUNCATE:
            index = value - 1
    return term, entry_term, index


def _records(data: bytes) -> Iterator[tuple[RecordKind, Any]]:
    """Yield the records until one cannot be read."""
    try:
        for batch in read_batches(data, read_file_header(data)):
            yield from read_records(batch)
    except FormatError:
        return
