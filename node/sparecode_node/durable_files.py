# SPDX-License-Identifier: Apache-2.0
"""
Files and names that survive a power cut.

Every layer that writes files needs this, so it stands below all of them, beside the
domain, which writes none.
"""

import os
from pathlib import Path


def write_file(path: Path, content: bytes, mode: int) -> None:
    """
    Write a file atomically and durably.

    Readers see the whole file or none, never with wider permissions. After this
    returns, the file survives a power cut, so later files may refer to it.
    """
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(path)
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Sync a folder, so that the names in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
