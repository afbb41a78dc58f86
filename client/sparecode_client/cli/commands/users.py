# SPDX-License-Identifier: Apache-2.0
"""`sparecode users`: users."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.cli.terminal.import_results import import_progress, say_imported
from sparecode_client.cli.terminal.listing import read_pages, show_list
from sparecode_client.cli.terminal.options import Limit, StaleOk, Username
from sparecode_client.cli.terminal.prompts import content
from sparecode_client.cli.terminal.settings import Settings, settings_of
from sparecode_client.cli.terminal.words import show_second
from sparecode_client.values.users import Attempt, User

app = typer.Typer(
    no_args_is_help=True, help="Manage users: the people who sign in with tokens."
)

DisplayName = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="Full name; at most 256 characters."),
]
Email = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Email address; at most 254 characters."),
]
Language = Annotated[
    str | None,
    typer.Option(
        metavar="TAG",
        help="Language of what is written for the user, such as de or pt-BR.",
    ),
]
ManagerEmail = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Email address of the user's manager, who hears of some notices, too.",
    ),
]
Join = Annotated[
    list[str] | None,
    typer.Option(metavar="GROUP", help="Add the user to a group. May repeat."),
]


def state(user: User) -> str:
    """Return the state of a user in words."""
    if not user.enabled:
        return "disabled"
    return "locked" if user.locked else "enabled"


@app.command(
    epilog="Example: sparecode users create alice --display-name 'Alice Example'"
)
def create(
    context: typer.Context,
    username: Annotated[
        str,
        typer.Argument(
            metavar="USER",
            help="Username: 1 to 128 characters; letter case does not matter.",
        ),
    ],
    display_name: DisplayName = None,
    email: Email = None,
    language: Language = None,
    manager_email: ManagerEmail = None,
    join: Join = None,
) -> None:
    """Add a user."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.create_user(
            username,
            display_name=display_name or "",
            email=email or "",
            language=language or "",
            manager_email=manager_email or "",
            join_groups=join or (),
            request_id=settings.request_id,
        )
    settings.output.done(f"User {username} created", commit, username=username)


@app.command(
    "import",
    epilog="Example: sparecode users import people.csv",
    short_help="Import the users in a CSV file.",
)
def import_(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="CSV file with a column username, and optionally display_name, email, "
            "language, manager_email and groups (separated by semicolons). At most 1 MiB "
            "and 10,000 rows.",
        ),
    ],
) -> None:
    """
    Import the users in a CSV file.

    Each user has their own result, and a bad one never stops the others. The exit code
    is 1 if a user was not imported. To continue after an interruption, import the file
    again: existing users are reported and stay as they are.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        data = content(file)
        with import_progress(settings.output, file) as take:
            rows = admin.import_users(
                data, progress=take, request_id=settings.request_id
            )
    say_imported(
        settings.output, rows, "user", "User name", [row.username for row in rows]
    )


@app.command()
def show(context: typer.Context, username: Username, stale_ok: StaleOk = False) -> None:
    """Show a user."""
    settings = settings_of(context)
    with settings.admin() as admin:
        user = admin.get_user(username, stale_ok=stale_ok)
    if settings.output.is_json:
        settings.output.json(user)
        return
    settings.output.facts(
        [
            ("User name", user.username),
            ("Display name", user.display_name),
            ("Email", user.email),
            ("Language", user.language or "not known"),
            ("Manager's email", user.manager_email or "none"),
            ("State", state(user)),
            ("Tokens", ", ".join(user.token_serials) or "none"),
            ("Groups", ", ".join(user.groups) or "none"),
            (
                "Failures",
                f"{user.token_failures} with tokens, {user.emergency_failures} with codes",
            ),
        ]
    )
    settings.output.position(user.position)


@app.command(epilog="Example: sparecode users explain alice")
def explain(
    context: typer.Context, username: Username, stale_ok: StaleOk = False
) -> None:
    """
    Show why a user is, or was, refused.

    What stands in the way now comes first, each with the next step. Then come the latest
    sign-in attempts, newest first.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        explanation = admin.explain_user(username, stale_ok=stale_ok)
    output = settings.output
    if output.is_json:
        output.json(explanation, "attempts")
        return
    if not explanation.blockers:
        output.say(f"Nothing stands in the way of {explanation.username or username}.")
    for blocker in explanation.blockers:
        output.say(f"{blocker.words} {blocker.next_step}".rstrip())
    for attempt in explanation.attempts:
        output.say()
        output.say(_place(attempt))
        output.say(f"{attempt.words} {attempt.next_step}".rstrip())
    if not explanation.attempts and not explanation.older_attempts_missing:
        output.say("No sign-in attempt is known.")
    if explanation.older_attempts_missing:
        output.note(
            f"Node {explanation.position.node_id} is still fetching older audit events: "
            "older sign-in attempts may be missing. Another node may have them (--node)."
        )
    output.position(explanation.position)


def _place(attempt: Attempt) -> str:
    """Return when and where an attempt was made; what is unknown is left out."""
    parts = {
        "from": attempt.client_address,
        "to": attempt.resource,
        "token": attempt.serial,
        "through node": attempt.node_id,
    }
    known = [f"{words} {value}" for words, value in parts.items() if value]
    return f"{show_second(attempt.time)} at {', '.join([attempt.agent, *known])}:"


@app.command("list")
def list_(
    context: typer.Context,
    prefix: Annotated[
        str,
        typer.Option(metavar="TEXT", help="Only usernames that begin with TEXT."),
    ] = "",
    search: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Only users with TEXT in the names or the email address.",
        ),
    ] = "",
    locked: Annotated[
        bool | None,
        typer.Option(
            "--locked/--not-locked",
            help="Only users who are locked or must wait after failures, or only the "
            "others.",
        ),
    ] = None,
    limit: Limit = 100,
    stale_ok: StaleOk = False,
) -> None:
    """List users by username."""
    settings = settings_of(context)
    with settings.admin() as admin:
        users = partial(
            admin.list_users, username_prefix=prefix, search=search, locked=locked
        )
        page = read_pages(users, limit, stale_ok=stale_ok)
    show_list(
        settings.output,
        page,
        lambda user: [
            user.username,
            user.display_name,
            state(user),
            ", ".join(user.token_serials),
        ],
        key="users",
        columns=["User name", "Display name", "State", "Tokens"],
        noun="user",
        hint="see --limit and --prefix",
    )


@app.command(epilog="Example: sparecode users update alice --email alice@example.com")
def update(
    context: typer.Context,
    username: Username,
    display_name: DisplayName = None,
    email: Email = None,
    language: Language = None,
    manager_email: ManagerEmail = None,
    join: Join = None,
    leave: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="Remove the user from a group. May repeat."),
    ] = None,
) -> None:
    """Change a user's display name, email addresses, language or groups."""
    changes = (display_name, email, language, manager_email, join, leave)
    if changes == (None,) * len(changes):
        raise typer.BadParameter(
            "nothing to change: use --display-name, --email, --language, "
            "--manager-email, --join or --leave",
            ctx=context,
        )
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.update_user(
            username,
            display_name=display_name,
            email=email,
            language=language,
            manager_email=manager_email,
            join_groups=join or (),
            leave_groups=leave or (),
            request_id=settings.request_id,
        )
    settings.output.done(f"User {username} changed", commit, username=username)


@app.command()
def enable(context: typer.Context, username: Username) -> None:
    """Let a user sign in again."""
    _set_enabled(settings_of(context), username, enabled=True)


@app.command()
def disable(context: typer.Context, username: Username) -> None:
    """Refuse a user everywhere, from the next attempt on."""
    _set_enabled(settings_of(context), username, enabled=False)


def _set_enabled(settings: Settings, username: str, *, enabled: bool) -> None:
    with settings.admin() as admin:
        commit = admin.update_user(
            username, enabled=enabled, request_id=settings.request_id
        )
    did = "enabled" if enabled else "disabled"
    settings.output.done(f"User {username} {did}", commit, username=username)


@app.command()
def delete(context: typer.Context, username: Username) -> None:
    """Delete a user who has no tokens."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.delete_user(username, request_id=settings.request_id)
    settings.output.done(f"User {username} deleted", commit, username=username)


@app.command()
def unlock(context: typer.Context, username: Username) -> None:
    """
    Unlock a user who is locked or must wait after failures.

    Another super administrator must approve it if the user was unlocked as often as the
    policy allows within a day (unlocks_per_day), or if you have issued codes for the
    user within 30 days.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.unlock_user(username, request_id=settings.request_id)
    settings.output.done(f"User {username} unlocked", commit, username=username)
