# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster backup`: a file that only its recipients can open."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Annotated

import typer

from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import plural, show_second


def backup(
    context: typer.Context,
    path: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Must not exist yet."),
    ],
) -> None:
    """
    Write a backup of the cluster's state.

    It has everything that was committed before, and is encrypted to the recipients
    that the policy names (backup_recipients): nobody else opens it, no node either.
    `sparecode-node backup verify` examines it, `sparecode-node restore` makes a new
    cluster of it, with a recovery bundle.
    """
    settings = settings_of(context)
    with settings.admin() as admin, _new_file(path) as file:

        def begin() -> None:
            file.seek(0)
            file.truncate()

        written = admin.create_backup(begin, file.write)
    if settings.output.is_json:
        settings.output.json({"file": str(path), **dataclasses.asdict(written)})
        return
    settings.output.say(
        f"{path}: the state at log entry {written.index}, of "
        f"{show_second(written.take_time)}, {plural(written.size, 'byte')}."
    )
    settings.output.say("Who can open it:")
    for recipient in written.recipients:
        settings.output.say(f"  {recipient}")


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Lend a file; where there is one of that name afterwards, it is whole."""
    if path.exists():
        raise UsageError(f"{path} exists already: a backup does not replace another")
    new = path.with_name(f".{path.name}.part")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    finally:
        new.unlink(missing_ok=True)
