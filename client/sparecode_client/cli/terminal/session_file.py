# SPDX-License-Identifier: Apache-2.0
"""
The stored session: a file that only its owner can read.

It also stores the CA of the cluster that issued the session. The session is never sent
to a cluster with another CA, whatever `--node` is.
"""

import hashlib
import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OTHERS = stat.S_IRWXG | stat.S_IRWXO


class SessionFileError(Exception):
    """The file cannot be trusted or read. The message names the reason and the fix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """A session, and the cluster that issued it."""

    administrator: str
    session: str = field(repr=False)
    nodes: tuple[str, ...]
    ca: str
    ca_sha256: str
    client_certificate: str = ""
    """The file that the client shows, with its key; empty: the nodes demand none."""
    client_key: str = ""


def session_path() -> Path:
    """Return the path of the session file."""
    if path := os.environ.get("SPARECODE_SESSION_FILE"):
        return Path(path)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "sparecode" / "session.json"


def fingerprint(ca: Path) -> str:
    """Return the SHA-256 of a CA file."""
    return hashlib.sha256(ca.read_bytes()).hexdigest()


def load_session(path: Path) -> StoredSession | None:
    """
    Return the stored session; None if there is none.

    Raises:
        SessionFileError: Other users can read the file, or it is damaged.
    """
    fields = read_private(path)
    if fields is None:
        return None
    try:
        fields["nodes"] = tuple(fields["nodes"])
        return StoredSession(**fields)
    except (KeyError, TypeError) as error:
        raise _unusable(path, error) from error


def store_session(path: Path, session: StoredSession) -> None:
    """
    Store *session* and replace an earlier one, atomically.

    Raises:
        SessionFileError: The file cannot be written.
    """
    # Without empty ones, an older program reads the file, too.
    write_private(path, {name: each for name, each in asdict(session).items() if each})


def read_private(path: Path) -> dict[str, Any] | None:
    """
    Return the object in a JSON file that only its owner can read; None: no file.

    Raises:
        SessionFileError: Other users can read the file, or it is damaged.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & OTHERS:
                raise SessionFileError(
                    f"{path} can be read by other users (mode {stat.S_IMODE(mode):04o}): "
                    "delete it and sign in again"
                )
            content = json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from error
    if not isinstance(content, dict):
        raise _unusable(path, TypeError())
    return content


def write_private(path: Path, content: dict[str, Any]) -> None:
    """
    Write a JSON file that only its owner can read, atomically.

    Raises:
        SessionFileError: The file cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # `mkstemp` creates the file with mode 0600.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".session-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        raise SessionFileError(f"{path} cannot be written: {error.strerror}") from error


def _unusable(path: Path, error: Exception) -> SessionFileError:
    return SessionFileError(
        f"{path} cannot be used ({type(error).__name__}): delete it and sign in again"
    )


def forget_session(path: Path) -> None:
    """Delete the stored session, if there is one."""
    path.unlink(missing_ok=True)
