# SPDX-License-Identifier: Apache-2.0
"""`sparecode admins second-factor`: a code besides the password."""

import typer

from sparecode_client.cli.commands.administrators import Name
from sparecode_client.cli.terminal.prompts import secret
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import show_second

app = typer.Typer(
    no_args_is_help=True,
    help="Have a code of an authenticator app asked for besides the password.",
)


@app.command()
def enroll(context: typer.Context) -> None:
    """
    Set up your own second factor.

    Add the secret to an authenticator app, and type the code that it shows then. From
    then on signing in takes a code as well. Only another super administrator can take
    it away again.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        enrollment = admin.enroll_second_factor()
        note = settings.output.note
        note("Add this to your authenticator app; it is shown only now:")
        note(f"  secret  {enrollment.secret}")
        note(f"  or as   {enrollment.uri}")
        note(f"Confirm it before {show_second(enrollment.end_time)}.")
        code = secret("Code that the app shows", None)
        commit = admin.confirm_second_factor(
            enrollment, code, request_id=settings.request_id
        )
    settings.output.done("From now on signing in takes a code as well.", commit)


@app.command()
def remove(context: typer.Context, name: Name) -> None:
    """
    Take the second factor of another administrator away.

    Who has lost the device, say. They are signed out on every node, and sign in with
    the password alone until they enroll again.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.remove_second_factor(name, request_id=settings.request_id)
    settings.output.done(f"{name} has no second factor any more.", commit, name=name)
