# SPDX-License-Identifier: Apache-2.0
"""
Stored device cookies: a file beside the session's that only its owner can read.

A device cookie shows a cluster that an administrator has signed in from here before, so
that strangers cannot keep them out. It stays after signing out. It is sent only to the
cluster whose CA it was stored with, and only for its administrator.
"""

import unicodedata
from pathlib import Path

from sparecode_client.cli.terminal.session_file import read_private, write_private


def device_path(session: Path) -> Path:
    """Return the path of the device cookies of a session file."""
    return session.with_name(f"{session.stem}.devices.json")


def load_device_cookie(path: Path, ca_sha256: str, administrator: str) -> str:
    """
    Return the device cookie of an administrator; empty if there is none.

    Raises:
        SessionFileError: Other users can read the file, or it is damaged.
    """
    cookie = (read_private(path) or {}).get(_key(ca_sha256, administrator), "")
    return cookie if isinstance(cookie, str) else ""


def store_device_cookie(
    path: Path, ca_sha256: str, administrator: str, cookie: str
) -> None:
    """
    Store the device cookie of an administrator in place of an earlier one.

    Raises:
        SessionFileError: The file cannot be used.
    """
    cookies = read_private(path) or {}
    write_private(path, {**cookies, _key(ca_sha256, administrator): cookie})


def _key(ca_sha256: str, administrator: str) -> str:
    """Return the key of a cookie. Nodes compare names alike."""
    return f"{ca_sha256} {unicodedata.normalize('NFKC', administrator).casefold()}"
