# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster rotate-keys`: another key, while the cluster serves."""

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
    RotationPhase.HANDING_OUT: "Giving the members the new key",
    RotationPhase.RESEALING: "Sealing everything anew",
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
"""Whose each kind of value is, and the command that has it replaced."""


@app.command()
def rotate_keys(
    context: typer.Context,
    at_once: Annotated[
        bool,
        typer.Option(
            "--at-once",
            help="Remove the old key as soon as nothing is sealed with it: somebody "
            "else may know it. Codes that were generated and not saved are lost.",
        ),
    ] = False,
    keep_old_key: Annotated[
        bool,
        typer.Option(
            "--keep-old-key",
            help="Keep the old key in the members' key rings: backups of before need it.",
        ),
    ] = False,
) -> None:
    """
    Replace the key that everything secret is sealed with.

    Nobody notices: users, PINs, codes and sessions stay as they are. Every member has
    to be there. When it is interrupted the cluster goes on by itself; run it again to
    watch.
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
                    "The new key is active, and the cluster goes on by itself. Watch it "
                    "with: sparecode cluster rotate-keys"
                )
            raise
    if settings.output.is_json:
        settings.output.json(result)
    else:
        _say(settings.output, result)
    if result.stopped:
        raise fail(
            ExitCode.REFUSED,
            "The old key stays as long as they are there: replace them, and the cluster "
            "goes on by itself. To watch: sparecode cluster rotate-keys",
        )


def _say(output: Output, result: RotationProgress) -> None:
    """Say how it has ended, and what to do now."""
    if result.resumed:
        output.say("A rotation was under way already; no other was begun.")
    if result.stopped:
        output.say(
            f"{result.done} of {result.total} values are sealed with key {result.key_id}; "
            "these do not open, for something else than the cluster has changed them:"
        )
        output.table(
            ["Value", "Of", "What to do"], (_unopened(each) for each in result.unopened)
        )
        return
    output.say(f"Everything is sealed with key {result.key_id}.")
    if result.phase is RotationPhase.DONE:
        output.say("The old key is gone from the cluster's state.")
    else:
        output.say(
            f"The old key goes at {show_second(result.retire_time)}, when nothing that "
            "was handed out under it can be used any more."
        )
    output.say(
        "Backups of before need the old key: keep their key ring or recovery bundle. "
        "Make a new one now, and add the new public key to those that checkpoints of "
        "the audit log are verified with: sparecode-node audit-keys"
    )


def _unopened(seal: UnopenedSeal) -> list[str]:
    """Return a value that does not open, and how to replace it."""
    of, command = _REPLACED.get(seal.kind, ("{0.row}", ""))
    return [
        seal.kind.replace("_", " "),
        of.format(seal),
        command.format(seal) and f"sparecode {command.format(seal)}",
    ]
