# SPDX-License-Identifier: Apache-2.0
"""What the commands of `sparecode-node` have in common."""

import os
import stat
import sys
from pathlib import Path
from typing import NoReturn

import typer

from sparecode_node.config import Config, load_config
from sparecode_node.config_section import ConfigError
from sparecode_node.services.keyring import forbidden_bits

EXIT_REFUSED = 1
EXIT_USAGE = 2

SECRET_FILE_BYTES_MAX = 4096


def fail(message: str, code: int = EXIT_REFUSED) -> NoReturn:
    """Say in one line what is wrong, and leave."""
    print(f"sparecode-node: {message}", file=sys.stderr)  # noqa: T201
    raise typer.Exit(code)


def loaded(context: typer.Context) -> Config:
    """Return the configuration that `--config` names."""
    path: Path | None = context.obj
    if path is None:
        fail("--config FILE is missing", EXIT_USAGE)
    try:
        return load_config(path)
    except ConfigError as error:
        fail(str(error), EXIT_USAGE)


def read_password(path: Path) -> str:
    """Return the first line of a file that nobody else can read."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            mode = stat.S_IMODE(status.st_mode)
            if mode & forbidden_bits(status.st_uid, os.geteuid()):
                fail(
                    f"{path}: others than its owner have access (mode {mode:04o}); "
                    f"it must be 0600: chmod 600 {path}"
                )
            content = file.read(SECRET_FILE_BYTES_MAX)
        return content.decode().partition("\n")[0].rstrip("\r")
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"{path}: not UTF-8")
