# SPDX-License-Identifier: Apache-2.0
"""
The file of a journal that begins again has all that the journal has.

A term or a vote that it lacks does harm only if the process ends before the next one is
written, and there are few such moments. So the file is read when it takes its place.
"""

from typing import TYPE_CHECKING

from sparecode_node.replication.log import format as form
from sparecode_node.replication.log.file import NAME
from sparecode_node.replication.log.format import Entry, RecordKind
from sparecode_node.replication.log.journal import Journal

if TYPE_CHECKING:
    from tests.simulation.disk import Disk


def check_file(journal: Journal, disk: "Disk") -> None:
    """See that the file of a journal says what the journal says; all is written."""
    promise, entries = in_file(bytes(disk.names[NAME].cached))
    if promise != (journal.getCurrentTerm(), journal.getVotedForNodeId()):
        disk.violated("promises are on disk", f"{disk.where(NAME)}: {promise}")
    if entries != journal[1:]:
        disk.violated("promises are on disk", f"{disk.where(NAME)}: other entries")


def in_file(data: bytes) -> tuple[tuple[int, str | None], list[Entry]]:
    """Return the term, the vote, and the entries that no truncation has taken away."""
    promise: tuple[int, str | None] = (0, None)
    entries = list[Entry]()
    for batch in form.read_batches(data, form.read_file_header(data)):
        for kind, value in form.read_records(batch):
            match kind:
                case RecordKind.TERM:
                    promise = value
                case RecordKind.ADD:
                    entries.append(value)
                case RecordKind.TRUNCATE:
                    entries = [entry for entry in entries if entry[1] < value]
    return promise, entries
