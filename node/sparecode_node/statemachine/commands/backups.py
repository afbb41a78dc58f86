# SPDX-License-Identifier: Apache-2.0
"""Commands on backups; as the others of `commands`, on disk for ever."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CreateBackup:
    """Have a node write a backup for the recipients that the policy names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteBackup:
    """Say that a node has handed a whole backup out, and of what."""

    index: int
    digest: str
    taken_at_ms: int


BackupCommand = CreateBackup | NoteBackup
