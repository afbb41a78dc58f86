# SPDX-License-Identifier: Apache-2.0
"""`sparecode audit write-archive`: an archive of the audit log that no node writes (U2)."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.audit.archive import ArchivedSegment, archived_segments, files_of
from sparecode_client.audit.checkpoints import (
    AuditFileError,
    checkpoint_text,
    read_checkpoint,
    signature_is_right,
)
from sparecode_client.audit.verification import verify_files
from sparecode_client.blocking import Admin
from sparecode_client.cli.terminal.exit_codes import ExitCode, fail, report_errors
from sparecode_client.cli.terminal.new_file import new_file
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import plural
from sparecode_client.values.audit import Checkpoint
from sparecode_client.values.cluster import ClusterStatus
from sparecode_client.values.segments import ranges_in


def write_archive(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the archive, which exists.")
    ],
) -> None:
    """
    Copy sealed segments of the audit log to a folder, as a node does.

    Writes the segments that DIR lacks, each with a checkpoint that the cluster has
    signed, and proves each by it. Nothing in DIR is overwritten or removed. Repeat the
    command to add newer segments, for example every night. Segments that retention has
    removed are left out.

    For retention such a copy counts after `sparecode audit confirm-archive DIR`.
    """
    settings = settings_of(context)
    if not folder.is_dir():
        raise fail(ExitCode.USAGE, f"{folder}: no such folder; create or mount it")
    with settings.admin() as admin:
        status = admin.get_status()
        archive = _Archive(folder, admin)
        written = []
        for number in _copied(status):
            if archive.has(number):
                continue
            with report_errors():
                end = archive.write(number)
            written.append(number)
            if not settings.output.is_json:
                settings.output.say(f"Segment {number}: events up to {end.sequence}.")
    lost = status.lost_segments
    if settings.output.is_json:
        settings.output.json(
            {"segments": written, "folder": str(folder), "lost_segments": lost}
        )
        return
    settings.output.say(
        f"{plural(len(written), 'segment')} written to {folder}."
        if written
        else f"{folder} has every segment of the audit log that the nodes have."
    )
    if lost:
        settings.output.say(f"Left out, because they were declared lost: {lost}.")


def _copied(status: ClusterStatus) -> Iterator[int]:
    """Yield the numbers of the sealed segments that the nodes have, oldest first."""
    retention = status.audit_retention
    removed = "" if retention is None else retention.removed_segments
    gone = (*ranges_in(removed), *ranges_in(status.lost_segments))
    for number in range(1, status.sealed_segments + 1):
        if not any(first <= number <= last for first, last in gone):
            yield number


class _Archive:
    """A folder, and the cluster that its segments come from."""

    def __init__(self, folder: Path, admin: Admin) -> None:
        """Exit with an error if the folder has the log of another cluster."""
        self._folder, self._admin = folder, admin
        self._ends: dict[int, Checkpoint] = {}
        try:
            there = archived_segments(folder, may_be_empty=True)
        except AuditFileError as error:
            raise fail(ExitCode.USAGE, str(error)) from None
        self._there = {each.number: each for each in there}
        if there:
            self._refuse_another_log(there[-1])

    def has(self, number: int) -> bool:
        """Return whether both files of a segment are there."""
        segment = self._there.get(number)
        return segment is not None and segment.checkpoint.exists()

    def write(self, number: int) -> Checkpoint:
        """
        Write the files of a segment, and return the checkpoint of its end.

        The checkpoint is last: a segment whose checkpoint is there is complete.
        Raises `SparecodeError`, `UsageError`, and `typer.Exit` if the events are not those
        that the cluster has signed.
        """
        end = self._end(number)
        files = files_of(self._folder, number, end.head)
        if files.events.exists():
            # It was broken off between the two files.
            self._refuse_other_events(files.events, number, end)
        else:
            self._write_events(files.events, number, end)
        if files.checkpoint.exists():
            self._refuse_other_checkpoint(files.checkpoint, end)
        else:
            with new_file(files.checkpoint) as file:
                file.write(checkpoint_text(end).encode())
        _sync(self._folder)
        return end

    def _write_events(self, path: Path, number: int, end: Checkpoint) -> None:
        # An unfinished file must not look like one of the archive.
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".part-") as part:
            events = Path(part) / path.name
            with new_file(events) as file:
                self._admin.export_audit_events(
                    file.write,
                    after_sequence=self._before(number),
                    up_to_sequence=end.sequence,
                )
            self._refuse_other_events(events, number, end)
            events.rename(path)

    def _refuse_other_events(self, path: Path, number: int, end: Checkpoint) -> None:
        try:
            verdict = verify_files([path], [end])
        except AuditFileError as error:
            raise fail(ExitCode.USAGE, str(error)) from None
        first = self._before(number) + 1
        problem = "" if verdict.problem is None else verdict.problem.words
        if not problem and (verdict.first, verdict.last) != (first, end.sequence):
            problem = f"it has events {verdict.first} to {verdict.last}"
        if problem:
            raise fail(
                ExitCode.REFUSED,
                f"{path.name}: not events {first} to {end.sequence} that the cluster has "
                f"signed: {problem}",
            )

    def _refuse_other_checkpoint(self, path: Path, end: Checkpoint) -> None:
        try:
            there = read_checkpoint(path)
        except AuditFileError as error:
            raise fail(ExitCode.USAGE, str(error)) from None
        if (there.sequence, there.head) != (end.sequence, end.head):
            raise fail(ExitCode.REFUSED, f"{path}: it is of other events")

    def _refuse_another_log(self, segment: ArchivedSegment) -> None:
        if files_of(self._folder, segment.number, self._end(segment.number).head) != (
            segment
        ):
            raise fail(
                ExitCode.REFUSED,
                f"{segment.events}: not of this cluster's log, or of its log before a "
                "restore: name another folder",
            )

    def _before(self, number: int) -> int:
        """Return the number of the last event before a segment."""
        return 0 if number == 1 else self._end(number - 1).sequence

    def _end(self, number: int) -> Checkpoint:
        """Return the checkpoint of the end of a segment."""
        if number in self._ends:
            return self._ends[number]
        end = self._admin.get_checkpoint(segment=number)
        if not signature_is_right(end):
            raise fail(
                ExitCode.REFUSED,
                f"the checkpoint of segment {number} is signed wrongly",
            )
        self._ends[number] = end
        return end


def _sync(folder: Path) -> None:
    """Make the names of new files survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
