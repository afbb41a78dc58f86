# SPDX-License-Identifier: Apache-2.0
"""Files that a command writes: each is complete, or not there."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sparecode_client.cli.terminal.exit_codes import UsageError


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """
    Yield a file that becomes *path* when everything has been written and synced.

    Only its owner can read it. If writing fails, nothing is left at *path*.

    Raises:
        UsageError: *path* exists already, or cannot be written.
    """
    if os.path.lexists(path):
        raise UsageError(f"{path} exists already: name a file that does not exist")
    part: Path | None = None
    try:
        # `mkstemp` creates the file with mode 0600.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        part = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
