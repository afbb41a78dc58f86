# SPDX-License-Identifier: Apache-2.0
"""`sparecode login`, `logout` and `whoami`."""

from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.cli.terminal.prompts import secret
from sparecode_client.cli.terminal.session_file import forget_session, session_path
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.words import show_time
from sparecode_client.errors import NotSignedIn

SECOND_FACTOR_NEEDED = "SECOND_FACTOR_NEEDED"


def login(
    context: typer.Context,
    administrator: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="Name of the administrator. Default: prompt for it.",
            show_default=False,
        ),
    ] = "",
    password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read the password from FILE (-: stdin) instead of prompting for it.",
        ),
    ] = None,
    code: Annotated[
        str,
        typer.Option(
            "--code",
            metavar="CODE",
            help="Code from your authenticator app, if you have a second factor. Default: "
            "prompt for it if needed.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """
    Sign in.

    The session is valid on every node. It is stored in a file that only you can read,
    together with the nodes and the CA, so that later commands do not need --node and
    --ca. A file beside it keeps a device cookie: after wrong passwords of strangers, the
    cluster still lets you sign in from here.
    """
    settings = settings_of(context)
    with settings.visitor() as admin:
        administrator = administrator or typer.prompt("Administrator", err=True)
        password = secret("Password", password_file)
        device_cookie = settings.device_cookie(administrator)
        try:
            session = admin.login(
                administrator,
                password,
                second_factor=code,
                device_cookie=device_cookie,
                request_id=settings.request_id,
            )
        except NotSignedIn as refused:
            if refused.reason != SECOND_FACTOR_NEEDED or code:
                raise
            code = secret("Code of the second factor", None)
            session = admin.login(
                administrator,
                password,
                second_factor=code,
                device_cookie=device_cookie,
            )
        path = settings.remember(session.administrator, session.session)
        settings.remember_device(session.administrator, session.device_cookie)
    if settings.output.is_json:
        settings.output.json(session)
        return
    settings.output.say(
        f"Signed in as {session.administrator} ({session.role}) until "
        f"{show_time(session.end_time, never='you sign out')}."
    )
    settings.output.note(f"The session is stored in {path}.")


def logout(
    context: typer.Context,
    everywhere: Annotated[
        bool,
        typer.Option("--everywhere", help="End all your sessions, not only this one."),
    ] = False,
) -> None:
    """Sign out, on every node."""
    settings = settings_of(context)
    with settings.admin() as admin:
        try:
            if everywhere:
                admin.logout_everywhere(request_id=settings.request_id)
            else:
                admin.logout(request_id=settings.request_id)
        except NotSignedIn:
            settings.output.note("The session had already ended.")
    forget_session(session_path())
    if settings.output.is_json:
        settings.output.json({"signed_out": True, "everywhere": everywhere})
    else:
        settings.output.say("Signed out" + (" everywhere." if everywhere else "."))


def whoami(context: typer.Context) -> None:
    """Show who is signed in."""
    settings = settings_of(context)
    with settings.admin() as admin:
        session = admin.who_am_i()
    if settings.output.is_json:
        settings.output.json(session)
        return
    settings.output.facts(
        [
            ("Administrator", session.administrator),
            ("Role", session.role),
            ("Signed in until", show_time(session.end_time, never="signed out")),
        ]
    )
