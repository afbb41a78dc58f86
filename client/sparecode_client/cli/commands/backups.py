# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster backup`: an encrypted backup."""

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
        typer.Argument(metavar="FILE", help="File to write, which must not exist."),
    ],
    *,
    without_sealed_events: Annotated[
        bool,
        typer.Option(
            "--without-sealed-events",
            help="Leave out older audit events; the backup does not grow with them.",
        ),
    ] = False,
) -> None:
    """
    Write a backup of the cluster's state.

    The backup contains everything committed before the command. It is encrypted to the
    recipients in the policy (backup_recipients): no one else can open it, not even a
    node. `sparecode-node backup verify` checks it. `sparecode-node restore` makes a new
    cluster from it and a recovery bundle.

    Sealed audit events are all but the newest ones, up to 10,000. Leave them out if they
    are kept elsewhere: a cluster restored from such a backup lacks them.
    """
    settings = settings_of(context)
    with settings.admin() as admin, new_file(path) as file:

        def begin() -> None:
            file.seek(0)
            file.truncate()

        result = admin.create_backup(
            begin, file.write, sealed_events=not without_sealed_events
        )
    if settings.output.is_json:
        settings.output.json({"file": str(path), **dataclasses.asdict(result)})
        return
    settings.output.say(
        f"{path}: the state at log entry {result.index} of "
        f"{show_second(result.take_time)}, {plural(result.size, 'byte')}."
    )
    settings.output.say("Recipients who can open it:")
    for recipient in result.recipients:
        settings.output.say(f"  {recipient}")
