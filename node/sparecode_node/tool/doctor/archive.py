# SPDX-License-Identifier: Apache-2.0
"""Checks of the folder that sealed audit events are archived to (U2)."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from sparecode_node.domain.outcomes import plural
from sparecode_node.domain.segments import in_words
from sparecode_node.services.cluster import archive_files
from sparecode_node.services.cluster.archive_files import ArchivedFiles
from sparecode_node.statemachine.short_segments import short_segments
from sparecode_node.statemachine.tables import archives, segments
from sparecode_node.statemachine.tables.schema import read_only_uri
from sparecode_node.tool.doctor.findings import Finding, fail, ok, warn

SUBJECT = "audit archive"
COPIES = "audit retention"
PATIENCE_MS = 60 * 60 * 1000
"""Archives have a new segment within minutes."""


def check_copies(state: Path, now_ms: int) -> Iterator[Finding]:
    """Check that as many archives have every old segment as the policy wants (U4)."""
    with (
        contextlib.suppress(sqlite3.DatabaseError),  # `check_state` reports it.
        contextlib.closing(sqlite3.connect(read_only_uri(state), uri=True)) as db,
    ):
        short = short_segments(db, now_ms)
        if short.count and now_ms - short.oldest_ms > PATIENCE_MS:
            yield warn(
                COPIES,
                f"segments {in_words(short.ranges)} are in fewer than "
                f"{plural(short.wanted, 'archive')}, so retention keeps them on the nodes; "
                "sparecode audit archive says what is missing",
            )


def check_archive(state: Path, folder: Path | None) -> Iterator[Finding]:
    """Check that the archive has every sealed segment. The files are not read."""
    if folder is None:
        return
    if not folder.is_dir():
        yield fail(
            SUBJECT,
            f"{folder} does not exist: mount or create it; nothing is archived meanwhile",
        )
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield fail(
            SUBJECT, f"{folder} cannot be written to: give it to the node's user"
        )
        return
    try:
        there = archive_files.present(folder)
    except OSError as error:
        yield fail(SUBJECT, f"{folder}: {error.strerror}")
        return
    with (
        contextlib.suppress(sqlite3.DatabaseError),  # `check_state` reports it.
        contextlib.closing(sqlite3.connect(read_only_uri(state), uri=True)) as db,
    ):
        lost, removed = segments.lost(db), archives.removed(db).through
        wanted = [
            each
            for each in segments.all_sealed(db)
            if each.number > removed and each.number not in lost
        ]
        waiting = sum(
            ArchivedFiles.of(folder, each).name not in there for each in wanted
        )
        if waiting:
            yield warn(
                SUBJECT,
                f"{waiting} of {plural(len(wanted), 'segment')} are not in {folder}: the "
                "node copies them while it runs; if not, see segment_not_archived in its "
                "log",
            )
        else:
            yield ok(SUBJECT, f"{plural(len(wanted), 'segment')} in {folder}")
