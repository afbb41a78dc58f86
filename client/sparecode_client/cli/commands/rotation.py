# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster rotate-keys`: a new key for the cluster."""

from typing import Annotated

import typer

from sparecode_client.cli.terminal.exit_codes import ExitCode, fail
from sparecode_client.cli.terminal.output import Output
from sparecode_client.cli.terminal.progress import progress_bar
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import show_second
from sparecode_client.errors import SparecodeError
from sparecode_client.values.rotation import (
    RotationPhase,
    RotationProgress,
    UnopenedSeal,
)

app = typer.Typer()

_WORDS = {
    RotationPhase.HANDING_OUT: "Distributing the new key",
    RotationPhase.RESEALING: "Sealing with the new key",
    RotationPhase.RETIRING: "Removing the old key",
    RotationPhase.DONE: "Done",
}


_REPLACED = {
    "seed": ("token {0.row}", "tokens delete {0.row}"),
    "pin": ("token {0.row}", "tokens clear-pin {0.row}"),
    "codes": ("token {0.serial}", "emergency disable {0.serial}"),
    "password": ("administrator {0.row}", "admins change-password {0.row}"),
    "second_factor": (
        "administrator {0.row}",
        "admins second-factor remove {0.row}",
    ),
    "pending_change": ("approval {0.row}", "approvals reject {0.row}"),
}
"""For each kind of value: what it belongs to, and the command that replaces it."""


@app.command()
def rotate_keys(
    context: typer.Context,
    at_once: Annotated[
        bool,
        typer.Option(
            "--at-once",
            help="Remove the old key as soon as nothing is sealed with it, for example "
            "because it may be known to others. Generated codes that are not saved yet "
            "are lost.",
        ),
    ] = False,
    keep_old_key: Annotated[
        bool,
        typer.Option(
            "--keep-old-key",
            help="Keep the old key in the members' key rings, for earlier backups.",
        ),
    ] = False,
) -> None:
    """
    Replace the key that all secrets are sealed with.

    Users, PINs, codes and sessions stay as they are. Every member must be running. If
    the command is interrupted, the cluster continues on its own; run the command again
    to follow the progress.
    """
    settings = settings_of(context)
    active = False
    with settings.admin() as admin, progress_bar(remaining_time=False) as bar:

        def show(progress: RotationProgress) -> None:
            nonlocal active
            active = active or progress.phase is not RotationPhase.HANDING_OUT
            words = "" if progress.phase is None else _WORDS[progress.phase]
            bar.show(progress.done, progress.total, words)

        try:
            result = admin.rotate_keys(
                at_once=at_once,
                keep_old_key=keep_old_key,
                progress=show,
                request_id=settings.request_id or None,
            )
        except SparecodeError:
            if active:
                settings.output.note(
                    "The new key is active, and the cluster continues on its own. To "
                    "follow it: sparecode cluster rotate-keys"
                )
            raise
    if settings.output.is_json:
        settings.output.json(result)
    else:
        _say(settings.output, result)
    if result.stopped:
        raise fail(
            ExitCode.REFUSED,
            "the old key stays until these values are replaced. Then the cluster continues "
            "on its own. To follow it: sparecode cluster rotate-keys",
        )


def _say(output: Output, result: RotationProgress) -> None:
    """Show the result and the next steps."""
    if result.resumed:
        output.say("A rotation was already running; no other one was started.")
    if result.stopped:
        output.say(
            f"{result.done} of {result.total} values are sealed with key {result.key_id}; "
            "these do not open, because they were damaged or changed from outside:"
        )
        output.table(
            ["Value", "Of", "Replace it with"],
            (_unopened(each) for each in result.unopened),
        )
        return
    output.say(f"Everything is sealed with key {result.key_id}.")
    if result.phase is RotationPhase.DONE:
        output.say("The old key was removed from the cluster's state.")
    else:
        output.say(
            f"The old key is removed at {show_second(result.retire_time)}, when nothing "
            "issued under it can be used any more."
        )
    output.say(
        "Earlier backups need the old key: keep the key ring or recovery bundle that "
        "belongs to them. Make a new recovery bundle now. Add the new public key to the "
        "keys that you verify checkpoints of the audit log with: sparecode-node audit-keys"
    )


def _unopened(seal: UnopenedSeal) -> list[str]:
    """Return the table row of a value that does not open."""
    of, command = _REPLACED.get(seal.kind, ("{0.row}", ""))
    return [
        seal.kind.replace("_", " "),
        of.format(seal),
        command.format(seal) and f"sparecode {command.format(seal)}",
    ]
