# SPDX-License-Identifier: Apache-2.0
"""`sparecode admins`: administrators."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.blocking import Admin
from sparecode_client.cli.terminal.completion import complete_administrator
from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.listing import read_pages, show_list
from sparecode_client.cli.terminal.options import Limit, StaleOk
from sparecode_client.cli.terminal.prompts import secret
from sparecode_client.cli.terminal.session_file import forget_session, session_path
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.cli.terminal.switches import remove_named
from sparecode_client.values.administrators import Administrator, AdministratorRole

app = typer.Typer(
    no_args_is_help=True,
    help="Manage administrators. An administrator who loses a role or gets another "
    "password is signed out on every node.",
    short_help="Manage administrators.",
)


class Role(enum.StrEnum):
    """`AdministratorRole` on the command line."""

    SUPER_ADMIN = "super-admin"
    HELP_DESK = "help-desk"
    AUDITOR = "auditor"
    OPERATOR = "operator"


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="Name of the administrator; letter case does not matter.",
        autocompletion=complete_administrator,
    ),
]
User = Annotated[
    str | None,
    typer.Option(
        metavar="USER",
        help="This person's own username. They can do nothing for that user.",
    ),
]
NoUser = Annotated[
    bool, typer.Option("--no-user", help="This person is not a user of the service.")
]
RoleHelp = (
    "super-admin may do everything; help-desk finds users and tokens, issues "
    "emergency codes and unlocks users; auditor reads everything; operator runs the "
    "cluster."
)
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Read the new password from FILE (-: stdin) instead of prompting for it.",
    ),
]


@app.command(
    epilog="Example: sparecode admins create dora --role help-desk --user dora",
    short_help="Add an administrator.",
)
def create(
    context: typer.Context,
    name: Name,
    *,
    role: Annotated[Role, typer.Option(help=RoleHelp)],
    user: User = None,
    no_user: NoUser = False,
    password_file: PasswordFile = None,
) -> None:
    """Add an administrator with a temporary password, which they must change first."""
    settings = settings_of(context)
    with settings.admin() as admin:
        if (user is None) != no_user:
            raise UsageError("use either --user USER or --no-user")
        password = secret("Temporary password", password_file, confirm=True)
        commit = admin.create_administrator(
            name,
            AdministratorRole[role.name],
            password,
            username=user,
            request_id=settings.request_id,
        )
    settings.output.done(f"Administrator {name} added", commit, name=name)


@app.command("list")
def list_(
    context: typer.Context, limit: Limit = 100, stale_ok: StaleOk = False
) -> None:
    """List administrators by name."""
    settings = settings_of(context)
    with settings.admin() as admin:
        page = read_pages(admin.list_administrators, limit, stale_ok=stale_ok)
    show_list(
        settings.output,
        page,
        lambda each: [
            each.name,
            "?" if each.role is None else Role[each.role.name].value,
            each.username or "-",
            "set" if each.second_factor else "-",
            state_of(each),
        ],
        key="administrators",
        columns=["Name", "Role", "User", "Second factor", "State"],
        noun="administrator",
    )


def state_of(administrator: Administrator) -> str:
    """Return the state of an administrator in words."""
    if not administrator.enabled:
        return "disabled"
    return "temporary password" if administrator.password_temporary else "enabled"


@app.command(epilog="Example: sparecode admins update dora --role auditor")
def update(
    context: typer.Context,
    name: Name,
    *,
    role: Annotated[Role | None, typer.Option(help=RoleHelp)] = None,
    enabled: Annotated[
        bool | None,
        typer.Option("--enable/--disable", help="Allow or refuse sign-in."),
    ] = None,
    user: User = None,
    no_user: NoUser = False,
) -> None:
    """Change an administrator's role, state or own user."""
    settings = settings_of(context)
    with settings.admin() as admin:
        if user is not None and no_user:
            raise UsageError("use either --user USER or --no-user")
        if (role, enabled, user, no_user) == (None, None, None, False):
            raise UsageError("nothing to change: see --help for the options")
        commit = admin.update_administrator(
            name,
            role=None if role is None else AdministratorRole[role.name],
            enabled=enabled,
            username=user,
            no_user=no_user,
            request_id=settings.request_id,
        )
    settings.output.done(f"Administrator {name} changed", commit, name=name)


@app.command()
def remove(context: typer.Context, name: Name) -> None:
    """Remove an administrator. Their events stay in the audit log."""
    remove_named(context, "Administrator", name, Admin.remove_administrator)


@app.command(
    "cancel-reset",
    epilog="Example: sparecode admins cancel-reset dora",
    short_help="Cancel a requested reset of an administrator.",
)
def cancel_reset(context: typer.Context, name: Name) -> None:
    """
    Cancel a reset of an administrator that root on a node has requested.

    `sparecode cluster status` lists the requests. Your sign-in has already canceled
    those that were pending then.
    """
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.cancel_reset(name, request_id=settings.request_id)
    settings.output.done(f"Reset of administrator {name} canceled", commit, name=name)


@app.command(
    "change-password",
    short_help="Change your password, or reset another administrator's.",
)
def change_password(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="Administrator who gets a temporary password. Without NAME, change your "
            "own password.",
            show_default=False,
        ),
    ] = "",
    old_password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read your old password from FILE instead of prompting for it.",
        ),
    ] = None,
    new_password_file: PasswordFile = None,
) -> None:
    """Change your own password, or give another administrator a temporary one."""
    settings = settings_of(context)
    with settings.admin() as admin:
        old = "" if name else secret("Old password", old_password_file)
        new = secret(
            "Temporary password" if name else "New password",
            new_password_file,
            confirm=True,
        )
        commit = admin.change_password(
            new, old_password=old, name=name, request_id=settings.request_id
        )
        if not name:
            settings.remember_own_device(admin.device_cookie)
    if not name:
        forget_session(session_path())
        settings.output.done("Your password was changed: sign in again", commit)
        return
    settings.output.done(
        f"Administrator {name} has a temporary password", commit, name=name
    )
