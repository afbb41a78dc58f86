# SPDX-License-Identifier: Apache-2.0
"""
The file of a journal that begins again has term, vote, members and entries of the journal.

What it lacks does harm only if the process ends before the same is written once more, and
there are few such moments. So the file is read when it takes its place.
"""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from sparecode_node.replication.log import format as form
from sparecode_node.replication.log.file import NAME
from sparecode_node.replication.log.format import Entry, RecordKind
from sparecode_node.replication.log.journal import Journal
from sparecode_node.replication.members import Configuration

if TYPE_CHECKING:
    from tests.simulation.disk import Disk


@dataclass
class Content:
    """What the file of a journal says."""

    promise: tuple[int, str | None] = (0, None)
    """The term, and the vote in it."""
    members: Configuration = Configuration()  # noqa: RUF009 - immutable.
    """As of the entry with which the file begins."""
    base: tuple[int, int] = (0, 0)
    """The index and the term of that entry."""
    entries: list[Entry] = field(default_factory=list)
    """Those after it that no truncation has taken away."""


def check_file(journal: Journal, disk: "Disk") -> None:
    """See that the file of a journal says what the journal says; all is written."""
    seen = content_of(bytes(disk.names[NAME].cached))
    _, index, term = journal[0]
    wanted = Content(
        (journal.getCurrentTerm(), journal.getVotedForNodeId()),
        journal.configuration_at(index),
        (index, term),
        journal[1:],
    )
    for each in fields(Content):
        there, here = getattr(seen, each.name), getattr(wanted, each.name)
        if there != here:
            what = f"{disk.where(NAME)}: {each.name} {there}, not {here}"
            disk.violated("promises are on disk", what)


def content_of(data: bytes) -> Content:
    """Return what a journal's file says."""
    content = Content()
    for batch in form.read_batches(data, form.read_file_header(data)):
        for kind, value in form.read_records(batch):
            match kind:
                case RecordKind.TERM:
                    content.promise = value
                case RecordKind.CONFIGURATION:
                    content.members = value
                case RecordKind.BASE:
                    content.base = value
                case RecordKind.ADD:
                    content.entries.append(value)
                case RecordKind.TRUNCATE:
                    content.entries = [e for e in content.entries if e[1] < value]
    return content
