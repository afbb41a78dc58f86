# SPDX-License-Identifier: Apache-2.0
"""`sparecode login`, `logout`, `whoami` and `sessions`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.blocking import Admin
from sparecode_client.cli.commands.browser_login import sign_in_through_browser
from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.listing import read_pages, show_list
from sparecode_client.cli.terminal.options import Limit, StaleOk
from sparecode_client.cli.terminal.prompts import secret
from sparecode_client.cli.terminal.session_file import forget_session, session_path
from sparecode_client.cli.terminal.settings import Settings, settings_of
from sparecode_client.cli.terminal.words import role, show_time
from sparecode_client.errors import NotSignedIn
from sparecode_client.values.sessions import OpenSession, Session

SECOND_FACTOR_NEEDED = "SECOND_FACTOR_NEEDED"

app = typer.Typer(
    no_args_is_help=True,
    help="See who is signed in, from where and until when, and end a session.",
    short_help="See and end open sessions.",
)


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
    browser: Annotated[
        bool,
        typer.Option(
            "--browser",
            help="Sign in without a password here: show a code, and wait until you have "
            "approved it in the Security Console. With passkeys there is no other way.",
        ),
    ] = False,
    open_page: Annotated[
        bool,
        typer.Option("--open", help="With --browser: open the page in a browser here."),
    ] = False,
) -> None:
    """
    Sign in.

    The session is valid on every node. It is stored in a file that only you can read,
    together with the nodes and the CA, so that later commands do not need --node and
    --ca. A file beside it keeps a device cookie: after wrong passwords of strangers, the
    cluster still lets you sign in from here.

    With --browser, type the code only in the Security Console of your own cluster, and
    only if you have started this command yourself. With `--output json` the code and the
    page are a line of JSON on stderr.
    """
    settings = settings_of(context)
    with settings.visitor() as admin:
        if browser and (password_file is not None or code):
            raise UsageError("use --browser without --password-file and --code")
        if open_page and not browser:
            raise UsageError("use --open with --browser")
        administrator = administrator or typer.prompt("Administrator", err=True)
        if browser:
            session = sign_in_through_browser(
                settings, admin, administrator, open_page=open_page
            )
        else:
            session = _sign_in(settings, admin, administrator, password_file, code)
        path = settings.remember(session.administrator, session.session)
        settings.remember_device(session.administrator, session.device_cookie)
    if settings.output.is_json:
        settings.output.json(session)
        return
    settings.output.say(
        f"Signed in as {session.administrator} ({role(session.role)}) until "
        f"{show_time(session.end_time, never='you sign out')}."
    )
    settings.output.note(f"The session is stored in {path}.")


def _sign_in(
    settings: Settings,
    admin: Admin,
    administrator: str,
    password_file: Path | None,
    code: str,
) -> Session:
    """Sign in with a password, and with a code if one is needed."""
    password = secret("Password", password_file)
    device_cookie = settings.device_cookie(administrator)
    try:
        return admin.login(
            administrator,
            password,
            second_factor=code,
            device_cookie=device_cookie,
            request_id=settings.request_id,
        )
    except NotSignedIn as refused:
        if refused.reason != SECOND_FACTOR_NEEDED or code:
            raise
    return admin.login(
        administrator,
        password,
        second_factor=secret("Code of the second factor", None),
        device_cookie=device_cookie,
    )


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
            ("Role", role(session.role)),
            ("Signed in until", show_time(session.end_time, never="signed out")),
        ]
    )


@app.command("list", epilog="Example: sparecode sessions list --all")
def list_(
    context: typer.Context,
    administrator: Annotated[
        str,
        typer.Option(
            "--administrator",
            metavar="NAME",
            help="Show the sessions of NAME. Default: your own.",
            show_default=False,
        ),
    ] = "",
    every: Annotated[
        bool, typer.Option("--all", help="Show the sessions of all administrators.")
    ] = False,
    limit: Limit = 100,
    stale_ok: StaleOk = False,
) -> None:
    """
    List open sessions, newest first.

    Super administrators and auditors also see those of others. `--output json` also
    tells when each session was opened, and when it ends.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        if administrator and every:
            raise UsageError("use either --administrator or --all")
        page = read_pages(
            partial(admin.list_sessions, administrator, all_administrators=every),
            limit,
            stale_ok=stale_ok,
        )
    show_list(
        settings.output,
        page,
        lambda each: [
            each.session_id,
            each.administrator,
            _origin(each),
            show_time(each.use_time),
        ],
        key="sessions",
        columns=["ID", "Owner", "From", "Used"],
        noun="session",
    )
    for each in page.items:
        if each.calling and not settings.output.is_json:
            settings.output.note(f"This session is {each.session_id}.")


def _origin(session: OpenSession) -> str:
    """Return where a session was opened."""
    if not session.node_id:
        return "unknown"
    if session.door == "browser":
        return (
            f"api on {session.node_id}, {session.address}, approved in the console "
            f"by {session.administrator}"
        )
    return f"{session.door} on {session.node_id}, {session.address}"


@app.command(epilog="Example: sparecode sessions end 5d41402abc4b2a76")
def end(
    context: typer.Context,
    session_id: Annotated[
        str,
        typer.Argument(metavar="ID", help="ID of the session in `sessions list`."),
    ],
) -> None:
    """
    End a session, on every node.

    Super administrators also end those of others. `sparecode logout` ends your own here.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.end_session(session_id, request_id=settings.request_id)
    settings.output.done(f"Session {session_id} ended", commit, session_id=session_id)
