# SPDX-License-Identifier: Apache-2.0
"""Where tests and simulations put what needs no disk."""

import shutil
from pathlib import Path

_TMPFS = Path("/dev/shm")  # noqa: S108 - each user makes a folder of its own there.


def folder_in_memory(*, free: int = 0) -> Path | None:
    """Return a folder in memory; None: there is none with *free* bytes left."""
    if _TMPFS.is_dir() and shutil.disk_usage(_TMPFS).free >= free:
        return _TMPFS
    return None
