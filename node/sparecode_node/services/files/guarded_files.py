# SPDX-License-Identifier: Apache-2.0
"""
Open files in folders that others may write to, such as an archive on a file server.

Who can write there could lay something else at a file's name: a link, and the node would
write into a file of its own, or a FIFO, at which it would wait without end. Each function
is an `opener` of the built-in `open`, and raises `OSError`.
"""

import contextlib
import errno
import os
import stat
from pathlib import Path

MODE = 0o640
"""Of new files: an agent that reads them may be in the node's group."""


def open_regular(name: str, flags: int) -> int:
    """Open a regular file, and not what a link leads to."""
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, MODE)
    try:
        _check_kind(os.fstat(descriptor), name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_own(name: str, flags: int) -> int:
    """Open a file of this node alone, in a folder where no other user replaces it."""
    _check_folder(Path(name).parent)
    descriptor = open_regular(name, flags)
    try:
        status = os.fstat(descriptor)
        _check_owner(status, name)
        if not status.st_size:
            os.fchmod(descriptor, MODE)  # The service's umask would keep agents out.
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def create(name: str, flags: int) -> int:
    """Make a new file; fail if anything has its name."""
    descriptor = open_regular(name, flags | os.O_CREAT | os.O_EXCL)
    # The service's umask would keep readers out. Some file systems have no modes.
    with contextlib.suppress(PermissionError):
        os.fchmod(descriptor, MODE)
    return descriptor


def is_foreign(folder: os.stat_result, owner: int) -> bool:
    """Return whether a folder belongs to neither *owner*, a user's number, nor root."""
    return folder.st_uid not in (owner, 0)


def is_open_to_all(folder: os.stat_result) -> bool:
    """Return whether every user can write into a folder."""
    return bool(folder.st_mode & stat.S_IWOTH)


def _check_kind(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _refusal("this is no regular file", name)


def _check_owner(status: os.stat_result, name: str) -> None:
    if status.st_uid != os.geteuid():
        raise _refusal("this file belongs to another user", name)
    if status.st_nlink != 1:
        raise _refusal("this file has another name, too", name)


def _check_folder(folder: Path) -> None:
    """Raise `OSError` if other users could replace the files of a folder."""
    status = folder.stat()
    if is_foreign(status, os.geteuid()):
        raise _refusal("this folder belongs to another user", folder)
    if is_open_to_all(status):
        raise _refusal("every user can write into this folder", folder)


def _refusal(words: str, path: Path | str) -> OSError:
    return OSError(errno.EPERM, words, str(path))
