# SPDX-License-Identifier: Apache-2.0
"""
Puts a damaged database aside, with its write-ahead log.

The log may have the only copy of what was committed last, so a crash must not part the
two. The log is renamed first, to a name that says so; the next start finishes the rest.
"""

import contextlib
import itertools
import os
from pathlib import Path

from sparecode_node.durable_files import sync_directory
from sparecode_node.fault_points import Point, reach

_LOG_FIRST = "-wal.first"
"""Ends the name of a log whose database is not renamed yet."""


def put_aside(file: Path) -> None:
    """Rename a damaged database and its log, or finish that. Raises `OSError`."""
    if finish(file):
        return
    damaged, log = _free_name(file), file.with_name(f"{file.name}-wal")
    file.with_name(f"{file.name}-shm").unlink(missing_ok=True)
    if log.exists():
        log.rename(f"{damaged}{_LOG_FIRST}")
        sync_directory(file.parent)
        finish(file)
    else:
        with contextlib.suppress(FileNotFoundError):
            file.rename(damaged)


def finish(file: Path) -> bool:
    """
    Rename a database whose log was renamed before a crash; return whether there was one.

    Call it before the database is opened. Raises `OSError`.
    """
    logs = list(file.parent.glob(f"{file.name}.damaged-*{_LOG_FIRST}"))
    for log in logs:
        damaged = log.with_name(log.name.removesuffix(_LOG_FIRST))
        if not damaged.exists():
            reach(Point.SEGMENT_ASIDE)
            with contextlib.suppress(FileNotFoundError):
                file.rename(damaged)
            sync_directory(file.parent)
        log.rename(f"{damaged}-wal")
    return bool(logs)


def _free_name(file: Path) -> Path:
    """Return a name for a damaged file: an operator may have left the log of another one."""
    for number in itertools.count(1):
        damaged = file.with_name(f"{file.name}.damaged-{number}")
        if not any(os.path.lexists(f"{damaged}{end}") for end in ("", "-wal")):
            break
    return damaged
