# SPDX-License-Identifier: Apache-2.0
"""Backups of the cluster."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """Result of a backup."""

    index: int
    """Index of the last log entry in the backup."""
    digest: str
    """Digest of the state in the backup."""
    take_time: datetime | None
    recipients: tuple[str, ...]
    """Public keys of those who can decrypt it."""
    size: int
    """File size in bytes."""
