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
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from sparecode_node.config import Config, load_config
from sparecode_node.config_section import ConfigError
from sparecode_node.membership.node_file import SYSTEM
from sparecode_node.services.secrets.keyring import forbidden_bits

EXIT_REFUSED = 1
EXIT_USAGE = 2
_REASONS = {EXIT_REFUSED: "REFUSED", EXIT_USAGE: "USAGE"}
"""What programs read, as in the errors of `sparecode`."""

SECRET_FILE_BYTES_MAX = 4096

_NOISE = "Value error, "
"""Pydantic, which Typer uses to check values, puts this before its messages."""
_ANY_MISUSE: type[typer.BadParameter] = typer.BadParameter.__mro__[1]
"""Click's `UsageError`, which Typer does not export; as a type, its subclass will do."""
CONFIG_VARIABLE = "SPARECODE_NODE_CONFIG"
_WIDTH_MIN = 40
"""Minimum width to wrap for, in columns, even if the terminal is narrower."""
_NO_BREAK = "\u00a0"
_COMMAND = re.compile(r"`[^`]*`|(?<=: )(?:chmod|sparecode)\b.*$")
"""Commands that people copy: in backquotes, or after the last colon. Never wrapped."""


class OutputFormat(enum.StrEnum):
    """What a command prints."""

    TEXT = "text"
    JSON = "json"


_FORMAT: ContextVar[OutputFormat] = ContextVar("format", default=OutputFormat.TEXT)


class Group(TyperGroup):
    """
    The commands of `sparecode-node`: `--config` may stand anywhere on the line.

    Messages about wrong usage are in plain words, or JSON for programs.
    """

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # The class of Click behind it is private to Typer.
        """Note the format of the output, then parse the arguments."""
        args = config_first(args)
        _FORMAT.set(OutputFormat.JSON if asks_for_json(args) else OutputFormat.TEXT)
        with plain_usage_errors():
            return super().parse_args(ctx, args)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # noqa: ANN401  As its base has it.
        """Run a command, which parses the remaining arguments."""
        with plain_usage_errors():
            return super().invoke(ctx)


@contextmanager
def plain_usage_errors() -> Iterator[None]:
    """Put messages about wrong usage into plain words, or into JSON for programs."""
    try:
        yield
    except _ANY_MISUSE as error:
        if wants_json():
            fail(error.format_message().removeprefix(_NOISE), EXIT_USAGE)
        error.message = error.message.removeprefix(_NOISE)
        raise


def config_first(args: list[str]) -> list[str]:
    """Return *args* with `--config` first. Arguments after `--` stay in place."""
    ours: list[str] = []
    others: list[str] = []
    rest = iter(args)
    for argument in rest:
        if argument == "--":
            others += [argument, *rest]
        elif argument == "--config":
            ours += [argument, *(value for value in [next(rest, None)] if value)]
        elif argument.startswith("--config="):
            ours.append(argument)
        else:
            others.append(argument)
    return ours + others


def asks_for_json(args: list[str]) -> bool:
    """Return whether the arguments ask for output for programs, before they are parsed."""
    return any(
        argument in {"--json", "--output=json", "-ojson"}
        or (argument in {"--output", "-o"} and value == "json")
        for argument, value in pairwise([*args, ""])
    )


Output = Annotated[
    OutputFormat,
    typer.Option(
        "--output",
        "-o",
        help="Output format: text for people, json for programs.",
    ),
]
AsJson = Annotated[
    bool,
    typer.Option(
        "--json",
        hidden=True,
        help="Release 0.1.0's --output json.",
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
    """
    Return the node's configuration; fail if it has an error.

    It is the file that `--config` or the environment names, else that of the systemd unit.
    """
    path: Path | None = context.obj
    if path is None and not SYSTEM.config.exists():
        fail(
            f"{SYSTEM.config} does not exist: name the node's configuration with --config "
            f"FILE or {CONFIG_VARIABLE}",
            EXIT_USAGE,
        )
    try:
        return load_config(path or SYSTEM.config)
    except ConfigError as error:
        fail(str(error), EXIT_USAGE)


def tool(config: Config) -> str:
    """Return how to call `sparecode-node` for this configuration."""
    if config.path == SYSTEM.config:
        return "sparecode-node"
    return f"sparecode-node --config {config.path}"


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
