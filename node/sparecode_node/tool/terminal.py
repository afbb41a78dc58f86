# SPDX-License-Identifier: Apache-2.0
"""Messages, exit codes and inputs that the commands of `sparecode-node` share."""

import enum
import json
import os
import re
import shutil
import stat
import sys
import textwrap
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from sparecode_node.config import Config, load_config
from sparecode_node.config_section import ConfigError
from sparecode_node.services.secrets.keyring import forbidden_bits

EXIT_REFUSED = 1
EXIT_USAGE = 2
_REASONS = {EXIT_REFUSED: "REFUSED", EXIT_USAGE: "USAGE"}
"""What programs read, as in the errors of `sparecode`."""

SECRET_FILE_BYTES_MAX = 4096

_NOISE = "Value error, "
"""Pydantic, which Typer uses to check values, puts this before its messages."""
_WIDTH_MIN = 40
"""Minimum width to wrap for, in columns, even if the terminal is narrower."""
_NO_BREAK = "\u00a0"
_COMMAND = re.compile(r"`[^`]*`|(?<=: )(?:chmod|sparecode)\b.*$")
"""Commands that people copy: in backquotes, or after the last colon. Never wrapped."""


class Group(TyperGroup):
    """A group of commands whose messages about wrong values are in plain words."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # noqa: ANN401  As its base has it.
        """Run a command, which parses the remaining arguments."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix(_NOISE)
            raise


class OutputFormat(enum.StrEnum):
    """What a command prints."""

    TEXT = "text"
    JSON = "json"


_FORMAT: ContextVar[OutputFormat] = ContextVar("format", default=OutputFormat.TEXT)


def note_format(output: OutputFormat) -> None:
    """Set the format of the output, and of errors."""
    _FORMAT.set(output)


def _note_output(output: OutputFormat) -> OutputFormat:
    if output is OutputFormat.JSON:  # Not the default: `--json` may stand beside it.
        note_format(output)
    return output


def _note_json(as_json: bool) -> bool:  # noqa: FBT001 - Typer calls it so.
    if as_json:
        note_format(OutputFormat.JSON)
    return as_json


Output = Annotated[
    OutputFormat,
    typer.Option(
        "--output",
        "-o",
        help="Output format: text for people, json for programs.",
        callback=_note_output,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        hidden=True,
        help="Release 0.1.0's --output json.",
        callback=_note_json,
    ),
]


def wants_json() -> bool:
    """Return whether a program reads the output of this command."""
    return _FORMAT.get() is OutputFormat.JSON


def fail(message: str, code: int = EXIT_REFUSED) -> NoReturn:
    """
    Print an error to stderr, wrapped if that is a terminal, and exit.

    Programs get one line of JSON, as from `sparecode`.
    """
    if wants_json():
        error = {"reason": _REASONS[code], "message": message, "exit_code": code}
        print(json.dumps(error), file=sys.stderr)  # noqa: T201
        raise typer.Exit(code)
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
