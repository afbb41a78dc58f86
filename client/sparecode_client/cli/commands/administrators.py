# SPDX-License-Identifier: Apache-2.0
"""`sparecode admins`: the people who manage the service."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from sparecode_client.cli.terminal.exit_codes import UsageError
from sparecode_client.cli.terminal.listing import read_pages, show_list
from sparecode_client.cli.terminal.options import Limit, StaleOk
from sparecode_client.cli.terminal.prompts import secret
from sparecode_client.cli.terminal.session_file import forget_session, session_path
from sparecode_client.cli.terminal.settings import settings_of
from sparecode_client.values.administrators import Administrator, AdministratorRole

app = typer.Typer(
    no_args_is_help=True,
    help="Manage administrators. Who loses a role, or gets another password, is signed "
    "out on every node.",
    short_help="Manage administrators.",
)


class Role(enum.StrEnum):
    """`AdministratorRole`, as it is typed."""

    SUPER_ADMIN = "super-admin"
    HELP_DESK = "help-desk"
    AUDITOR = "auditor"
    OPERATOR = "operator"


Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The administrator, in any case.")
]
User = Annotated[
    str | None,
    typer.Option(
        metavar="USER",
        help="The user that this person is: they can do nothing for themselves.",
    ),
]
NoUser = Annotated[
    bool, typer.Option("--no-user", help="This person is no user of the service.")
]
RoleHelp = (
    "super-admin may do all; help-desk finds users and tokens, issues emergency "
    "access, unlocks; auditor reads all; operator runs the cluster."
)
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Read the new password from FILE (-: stdin) instead of asking.",
    ),
]


@app.command(
    epilog="Example: sparecode admins create dora --role help-desk --user dora"
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
    """Add an administrator, with a password that they have to change at first."""
    settings = settings_of(context)
    with settings.admin() as admin:
        if (user is None) != no_user:
            raise UsageError("say who this is: either --user USER or --no-user")
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
    """List administrators, in the order of names."""
    settings = settings_of(context)
    with settings.admin() as admin:
        page = read_pages(
            lambda size, token: admin.list_administrators(
                page_size=size, page_token=token, stale_ok=stale_ok
            ),
            limit,
        )
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
    """Return an administrator's state in words."""
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
        typer.Option("--enable/--disable", help="Whether they may sign in."),
    ] = None,
    user: User = None,
    no_user: NoUser = False,
) -> None:
    """Change an administrator: role, leave to sign in, or which user they are."""
    settings = settings_of(context)
    with settings.admin() as admin:
        if user is not None and no_user:
            raise UsageError("either --user USER or --no-user")
        if (role, enabled, user, no_user) == (None, None, None, False):
            raise UsageError("say what to change: see --help")
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
    """Remove an administrator. What they did stays in the audit log."""
    settings = settings_of(context)
    with settings.admin() as admin:
        commit = admin.remove_administrator(name, request_id=settings.request_id)
    settings.output.done(f"Administrator {name} removed", commit, name=name)


@app.command("change-password")
def change_password(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="[NAME]",
            help="Another administrator, who gets a temporary password; your own if not "
            "given.",
            show_default=False,
        ),
    ] = "",
    old_password_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Read your old password from FILE instead of asking.",
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
        forget_session(session_path())
        settings.output.done("Your password is changed: sign in again", commit)
        return
    settings.output.done(
        f"Administrator {name} has a temporary password", commit, name=name
    )
