# SPDX-License-Identifier: Apache-2.0
"""
The archive of the audit log: a folder with a file of events for each sealed segment (U2).

Beside each is the checkpoint of its last event. Nodes write both (`[audit] archive` in
`node.toml`), or `sparecode audit write-archive`, and verification needs nothing else.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparecode_client.audit.checkpoints import AuditFileError

_NAME = re.compile(r"([0-9]{8,18})-[0-9a-f]{16}\.jsonl")
_HASH_DIGITS = 16
_CHECKPOINT = ".checkpoint.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedSegment:
    """The files of one segment."""

    number: int
    events: Path
    checkpoint: Path


def files_of(folder: Path, number: int, head: bytes) -> ArchivedSegment:
    """Return the files of a segment; *head* is the hash of its last event."""
    events = folder / f"{number:08}-{head.hex()[:_HASH_DIGITS]}.jsonl"
    return ArchivedSegment(
        number=number, events=events, checkpoint=events.with_suffix(_CHECKPOINT)
    )


def archived_segments(
    folder: Path, *, may_be_empty: bool = False
) -> tuple[ArchivedSegment, ...]:
    """
    Return the segments of an archive, oldest first.

    Files of other names are left out: unfinished and damaged ones.

    Raises:
        AuditFileError: The folder cannot be read, or has two segments of a number, or
            none unless it *may_be_empty*, or no file at a file's name: reading a device
            or a pipe might never end.
    """
    try:
        names = sorted(each.name for each in folder.iterdir())
    except OSError as error:
        raise AuditFileError(f"{folder}: {error.strerror}") from error
    found: dict[int, ArchivedSegment] = {}
    for name in names:
        if (match := _NAME.fullmatch(name)) is None:
            continue
        number, events = int(match[1]), folder / name
        if number in found:
            raise AuditFileError(
                f"{events}: segment {number} is there twice: a restored cluster has "
                "written its own; give each its own folder"
            )
        checkpoint = events.with_suffix(_CHECKPOINT)
        for each in (events, checkpoint):
            if each.exists() and not each.is_file():
                raise AuditFileError(f"{each}: not a regular file")
        found[number] = ArchivedSegment(
            number=number, events=events, checkpoint=checkpoint
        )
    if not found and not may_be_empty:
        raise AuditFileError(f"{folder}: holds no segment of an audit log")
    return tuple(found[number] for number in sorted(found))


def without_unfinished(
    segments: Sequence[ArchivedSegment],
) -> tuple[tuple[ArchivedSegment, ...], int | None]:
    """
    Return the segments without one that a node is about to finish, and its number.

    A node writes the checkpoint after the events: only the newest one may lack it.

    Raises:
        AuditFileError: It is the only one.
    """
    if not segments or segments[-1].checkpoint.exists():
        return tuple(segments), None
    if len(segments) == 1:
        raise AuditFileError(
            f"{segments[0].events}: the only segment has no checkpoint yet"
        )
    return tuple(segments[:-1]), segments[-1].number
