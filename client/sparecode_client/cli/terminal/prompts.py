# SPDX-License-Identifier: Apache-2.0
"""Secrets and files as input. A secret is never a command-line argument."""

import os
import sys
from pathlib import Path

import typer

from sparecode_client.cli.terminal.exit_codes import UsageError

STDIN = Path("-")


def secret(prompt: str, file: Path | None, *, confirm: bool = False) -> str:
    """
    Return a secret from *file* (`-`: stdin), or prompt for it without echo.

    The prompt goes to stderr: stdout carries only the output of the command.
    """
    if file is None and _is_script():
        typed = _next_line(prompt)
        if confirm and _next_line(f"Repeat: {prompt}") != typed:
            raise UsageError("the two inputs differ: nothing was done")
        return typed
    if file is None:
        try:
            answer: str = typer.prompt(
                prompt, hide_input=True, confirmation_prompt=confirm, err=True
            )
        except typer.Abort:
            # Typer's own exit code for this is 1, which means refused.
            raise UsageError("no input: nothing was done") from None
        return answer
    try:
        text = sys.stdin.read() if file == STDIN else file.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not text in UTF-8") from error
    secret = text.rstrip("\r\n")
    if not secret:
        raise UsageError(f"{file} is empty")
    return secret


def _is_script() -> bool:
    """
    Return whether a script answers prompts: there is no terminal that could echo.

    Hiding the input would print a warning from `getpass`.
    """
    stdin = sys.__stdin__
    if stdin is None or sys.stdin is not stdin or stdin.isatty():
        return False
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return True
    return False


def _next_line(prompt: str) -> str:
    """Return the next line of stdin, without its end."""
    typer.echo(f"{prompt}: ", nl=False, err=True)
    if line := sys.stdin.readline():
        return line.rstrip("\r\n")
    raise UsageError("no input: nothing was done")


def content(file: Path) -> bytes:
    """Return the content of *file* (`-`: stdin)."""
    try:
        return sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
