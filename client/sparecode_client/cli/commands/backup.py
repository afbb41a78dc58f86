# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster backup`: a file that only its recipients can open."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.cli.terminal.new_file import new_file
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
    with settings.admin() as admin, new_file(path) as file:

        def begin() -> None:
            file.seek(0)
            file.truncate()

        result = admin.create_backup(begin, file.write)
    if settings.output.is_json:
        settings.output.json({"file": str(path), **dataclasses.asdict(result)})
        return
    settings.output.say(
        f"{path}: the state at log entry {result.index}, of "
        f"{show_second(result.take_time)}, {plural(result.size, 'byte')}."
    )
    settings.output.say("Who can open it:")
    for recipient in result.recipients:
        settings.output.say(f"  {recipient}")
