# SPDX-License-Identifier: Apache-2.0
"""Backups."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup that was written."""

    index: int
    """The last log entry that is in it."""
    digest: str
    """Of the state that is in it."""
    take_time: datetime | None
    recipients: tuple[str, ...]
    """Who can open it."""
    size: int
    """Of the file, in bytes."""
