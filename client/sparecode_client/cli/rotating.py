# SPDX-License-Identifier: Apache-2.0
"""`sparecode cluster rotate-keys`: another key, while the cluster serves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from sparecode_client.cli.settings import settings_of
from sparecode_client.cli.words import show_second
from sparecode_client.errors import SparecodeError
from sparecode_client.rotation import RotationPhase, RotationProgress

app = typer.Typer()

_WORDS = {
    RotationPhase.HANDING_OUT: "Giving the members the new key",
    RotationPhase.RESEALING: "Sealing everything anew",
    RotationPhase.RETIRING: "Removing the old key",
    RotationPhase.DONE: "Done",
}


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
    begun = False
    with settings.admin() as admin, _bar() as show:

        def seen(progress: RotationProgress) -> None:
            nonlocal begun
            begun = begun or progress.phase is not RotationPhase.HANDING_OUT
            show(progress)

        try:
            ended = admin.rotate_keys(
                at_once=at_once,
                keep_old_key=keep_old_key,
                progress=seen,
                request_id=settings.request_id or None,
            )
        except SparecodeError:
            if begun:
                settings.output.note(
                    "The new key is active, and the cluster goes on by itself. Watch it "
                    "with: sparecode cluster rotate-keys"
                )
            raise
    if settings.output.is_json:
        settings.output.json(ended)
        return
    if ended.resumed:
        settings.output.say("A rotation was under way already; no other was begun.")
    settings.output.say(f"Everything is sealed with key {ended.key_id}.")
    if ended.phase is RotationPhase.DONE:
        settings.output.say("The old key is gone from the cluster's state.")
    else:
        settings.output.say(
            f"The old key goes at {show_second(ended.retire_time)}, when nothing that "
            "was handed out under it can be used any more."
        )
    settings.output.say(
        "Backups of before need the old key: keep their key ring or recovery bundle. "
        "Make a new one now, and add the new public key to those that checkpoints of "
        "the audit log are verified with: sparecode-node audit-keys"
    )


@contextmanager
def _bar() -> Iterator[Callable[[RotationProgress], object]]:
    """Show a bar on the terminal, if there is one; give what moves it on."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None)

        def show(progress: RotationProgress) -> None:
            words = "" if progress.phase is None else _WORDS[progress.phase]
            bar.update(
                task,
                description=words,
                completed=progress.done,
                total=progress.total,
            )

        yield show
