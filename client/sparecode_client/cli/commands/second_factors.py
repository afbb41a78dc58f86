# SPDX-License-Identifier: Apache-2.0
"""`sparecode admins second-factor`: a second factor for signing in."""

import typer

from sparecode_client.cli.commands.administrators import Name
from sparecode_client.cli.terminal.prompts import secret
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import show_second

app = typer.Typer(
    no_args_is_help=True,
    short_help="Require a second factor to sign in.",
    help="Require a code from an authenticator app in addition to the password.",
)


@app.command()
def enroll(context: typer.Context) -> None:
    """
    Set up your own second factor.

    Add the secret to an authenticator app, and type the code that the app shows. From
    then on, you need a code to sign in. Only another super administrator can remove your
    second factor.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        enrollment = admin.enroll_second_factor()
        note = settings.output.note
        note("Add this to your authenticator app. It is shown only once:")
        note(f"  secret  {enrollment.secret}")
        note(f"  or as   {enrollment.uri}")
        note(f"Confirm it before {show_second(enrollment.end_time)}.")
        code = secret("Code that the app shows", None)
        commit = admin.confirm_second_factor(
            enrollment, code, request_id=settings.request_id
        )
    settings.output.done("From now on, you need a code to sign in", commit)


@app.command()
def remove(context: typer.Context, name: Name) -> None:
    """
    Remove the second factor of another administrator.

    Use it if they have lost their device. They are signed out on every node, and sign in
    with the password alone until they enroll again.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.remove_second_factor(name, request_id=settings.request_id)
    settings.output.done(f"Second factor of {name} removed", commit, name=name)
