# SPDX-License-Identifier: Apache-2.0
"""
The whole audit log, from an archive and the export of a node (U2, U4).

Retention has removed the beginning from the nodes. Each archive alone must have all
sealed segments, once and proved by checkpoints that the cluster has signed, and must
agree with what the node still has.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from sparecode_client.audit.archive import ArchivedSegment, archived_segments
from sparecode_client.audit.checkpoints import (
    AuditFileError,
    read_checkpoint,
    signature_is_right,
)
from sparecode_client.audit.verification import verify_files
from tests.faults.site import SEGMENT_EVENTS


class ArchiveError(Exception):
    """An archive is not as it must be; the message says how."""


def join(archive: Path, export: Path, whole: Path, *, sealed: int) -> None:
    """
    Write the archived events before an export, and those of the export, to *whole*.

    *sealed*: how many segments there are. Raises `ArchiveError`.
    """
    try:
        segments = archived_segments(archive)
        _check(segments, sealed)
    except AuditFileError as error:
        raise ArchiveError(str(error)) from error
    archived = _lines(segments)
    with whole.open("wb") as file, export.open("rb") as exported:
        for line in exported:
            sequence = sequence_of(line)
            for earlier in archived:
                if sequence_of(earlier) == sequence:
                    if earlier != line:
                        raise ArchiveError(f"event {sequence} differs in the archive")
                    break
                file.write(earlier)
            file.write(line)


def _check(segments: tuple[ArchivedSegment, ...], sealed: int) -> None:
    numbers = [each.number for each in segments]
    if numbers[:sealed] != list(range(1, sealed + 1)):
        missing = sorted({*range(1, sealed + 1)} - {*numbers})
        raise ArchiveError(f"segments {missing} of {sealed} are not in the archive")
    checkpoints = [read_checkpoint(each.checkpoint) for each in segments]
    for checkpoint, segment in zip(checkpoints, segments, strict=True):
        if not signature_is_right(checkpoint):
            raise ArchiveError(f"{segment.checkpoint}: the signature is wrong")
    verdict = verify_files([each.events for each in segments], checkpoints)
    if verdict.problem is not None:
        raise ArchiveError(verdict.problem.words)
    last = len(segments) * SEGMENT_EVENTS
    if (verdict.first, verdict.last, verdict.proved_up_to) != (1, last, last):
        raise ArchiveError(
            f"it is proved from {verdict.first} to {verdict.proved_up_to}, not from 1 "
            f"to {last}"
        )


def _lines(segments: tuple[ArchivedSegment, ...]) -> Iterator[bytes]:
    for segment in segments:
        with segment.events.open("rb") as file:
            yield from file


def sequence_of(line: bytes) -> int:
    """Return the number of an event in a line of an export."""
    return int(json.loads(line)["sequence"])
