# SPDX-License-Identifier: Apache-2.0
"""Messages, exit codes and inputs that the commands of `sparecode-node` share."""

import os
import re
import shutil
import stat
import sys
import textwrap
from pathlib import Path
from typing import NoReturn, TextIO

import typer

from sparecode_node.config import Config, load_config
from sparecode_node.config_section import ConfigError
from sparecode_node.services.secrets.keyring import forbidden_bits

EXIT_REFUSED = 1
EXIT_USAGE = 2

SECRET_FILE_BYTES_MAX = 4096


_WIDTH_MIN = 40
"""Minimum width to wrap for, in columns, even if the terminal is narrower."""
_NO_BREAK = "\u00a0"
_COMMAND = re.compile(r"`[^`]*`|(?<=: )(?:chmod|sparecode)\b.*$")
"""Commands that people copy: in backquotes, or after the last colon. Never wrapped."""


def fail(message: str, code: int = EXIT_REFUSED) -> NoReturn:
    """Print an error to stderr, wrapped if that is a terminal, and exit."""
    words = for_terminal(f"sparecode-node: {message}", sys.stderr)
    print(words, file=sys.stderr)  # noqa: T201
    raise typer.Exit(code)


def for_terminal(words: str, stream: TextIO) -> str:
    """Return words wrapped for a terminal; for other streams, return one line."""
    if not stream.isatty():
        return words
    whole = _COMMAND.sub(lambda match: match[0].replace(" ", _NO_BREAK), words)
    width = max(shutil.get_terminal_size().columns, _WIDTH_MIN)
    broken = textwrap.fill(whole, width, break_long_words=False, break_on_hyphens=False)
    return broken.replace(_NO_BREAK, " ")


def loaded(context: typer.Context) -> Config:
    """Return the configuration that `--config` names; fail if it has an error."""
    path: Path | None = context.obj
    if path is None:
        fail(
            "--config FILE is missing: it names node.toml, and stands before the command",
            EXIT_USAGE,
        )
    try:
        return load_config(path)
    except ConfigError as error:
        fail(str(error), EXIT_USAGE)


def ask(question: str, option: str, *, default: str = "", secret: bool = False) -> str:
    """
    Prompt at the terminal; fail if there is none.

    *option* sets the same on the command line. A secret is not shown, and typed twice.
    """
    if not sys.stdin.isatty():
        fail(f"cannot prompt without a terminal: set {option}", EXIT_USAGE)
    answer: str = typer.prompt(
        question,
        default=default or None,
        hide_input=secret,
        confirmation_prompt=secret,
    )
    return answer


def read_password(path: Path) -> str:
    """Return the first line of a file; fail unless it is private to its owner."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            mode = stat.S_IMODE(status.st_mode)
            if mode & forbidden_bits(status.st_uid, os.geteuid()):
                fail(
                    f"{path}: users other than its owner have access (mode {mode:04o}); "
                    f"its mode must be 0600: chmod 600 {path}"
                )
            content = file.read(SECRET_FILE_BYTES_MAX)
        return content.decode().partition("\n")[0].rstrip("\r")
    except OSError as error:
        fail(f"{path}: {error.strerror}")
    except UnicodeDecodeError:
        fail(f"{path}: the content is not UTF-8 text")
