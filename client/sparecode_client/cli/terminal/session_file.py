# SPDX-License-Identifier: Apache-2.0
"""
The session between two commands: a file that only its owner can read.

It keeps for whom the session is: the CA of the cluster. To a cluster of another
CA the session is not sent, whatever `--node` says.
"""

import hashlib
import json
import os
import stat
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

OTHERS = stat.S_IRWXG | stat.S_IRWXO


class SessionFileError(Exception):
    """The file cannot be trusted or read; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSession:
    """A session, and where it came from."""

    administrator: str
    session: str = field(repr=False)
    nodes: tuple[str, ...]
    ca: str
    ca_sha256: str


def session_path() -> Path:
    """Return where the session is kept."""
    if path := os.environ.get("SPARECODE_SESSION_FILE"):
        return Path(path)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "sparecode" / "session.json"


def fingerprint(ca: Path) -> str:
    """Return what identifies a CA file."""
    return hashlib.sha256(ca.read_bytes()).hexdigest()


def load_session(path: Path) -> StoredSession | None:
    """
    Return the stored session, if there is one.

    Raises:
        SessionFileError: The file is open to others, or broken.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if mode & OTHERS:
                raise SessionFileError(
                    f"{path} can be read by others (mode {stat.S_IMODE(mode):04o}): "
                    "delete it and sign in again"
                )
            fields = json.load(file)
        fields["nodes"] = tuple(fields["nodes"])
        return StoredSession(**fields)
    except FileNotFoundError:
        return None
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise SessionFileError(
            f"{path} cannot be used ({type(error).__name__}): "
            "delete it and sign in again"
        ) from error


def store_session(path: Path, session: StoredSession) -> None:
    """
    Keep *session*, in place of an earlier one: wholly or not at all.

    Raises:
        SessionFileError: The file cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # It has mode 0600 before there is anything in it.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".session-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(asdict(session), file)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        raise SessionFileError(f"{path} cannot be written: {error.strerror}") from error


def forget_session(path: Path) -> None:
    """Delete the stored session, if there is one."""
    path.unlink(missing_ok=True)
