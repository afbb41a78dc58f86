# SPDX-License-Identifier: Apache-2.0
"""The command `sparecode`: its global options and its groups of commands."""

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from sparecode_client.cli.commands import (
    administrators,
    agents,
    approvals,
    audit,
    authentication,
    bulk_issue,
    cluster,
    emergency_access,
    explain,
    notices,
    policy,
    rotation,
    second_factors,
    sessions,
    token_import,
    tokens,
    users,
)
from sparecode_client.cli.terminal.exit_codes import (
    AS_JSON,
    ExitCode,
    fail,
    report_errors,
)
from sparecode_client.cli.terminal.output import Output, OutputFormat
from sparecode_client.cli.terminal.settings import Settings, split
from sparecode_client.cli.terminal.words import plain, wrap

GLOBAL_OPTIONS = {
    "--node",
    "--ca",
    "--client-certificate",
    "--client-key",
    "--output",
    "-o",
    "--timeout",
    "--request-id",
}
_ANY_MISUSE: type[typer.BadParameter] = typer.BadParameter.__mro__[1]
"""Click's `UsageError`, which Typer does not export; as a type, its subclass will do."""
_OUTPUT = re.compile("-o[a-z]+")
"""The short option of the output format, with its value."""
_NOISE = "Value error, "
"""Pydantic, which Typer uses to check values, puts this before its messages."""


class AnywhereGroup(TyperGroup):
    """Accepts the global options anywhere on the line, even after the command."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # The class of Click behind it is private to Typer.
        """Move the global options to the front, then parse the arguments."""
        args = options_first(args)
        AS_JSON.set(wants_json_errors(args))
        with wrap_usage_errors():
            for argument in args:
                check_text(argument)
            return super().parse_args(ctx, args)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # noqa: ANN401  As its base has it.
        """Run a command, which parses the remaining arguments."""
        with wrap_usage_errors(), report_errors():
            return super().invoke(ctx)


def check_text(argument: str) -> None:
    """Refuse an argument that is not text: no name can contain it."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{plain(argument)} is not text in UTF-8") from None


def wants_json_errors(args: list[str]) -> bool:
    """Return whether the global options, which stand first, ask for output for programs."""
    forms = {each.value for each in OutputFormat} - {OutputFormat.TABLE.value}
    return any(
        (option in {"--output", "-o"} and value in forms)
        or option in {f"{name}{form}" for name in ("--output=", "-o") for form in forms}
        for option, value in pairwise([*args, ""])
    )


@contextmanager
def wrap_usage_errors() -> Iterator[None]:
    """
    Wrap Typer's message about a wrong value at word boundaries on a terminal.

    Programs get it as JSON, as every other error.
    """
    try:
        yield
    except _ANY_MISUSE as error:
        if AS_JSON.get():
            raise fail(ExitCode.USAGE, error.format_message()) from None
        if not isinstance(error, typer.BadParameter):
            raise
        error.message = error.message.removeprefix(_NOISE)
        lead, message = "Error: ", error.format_message()
        lines = wrap(f"{lead}{message}", sys.stderr).removeprefix(lead)
        error.format_message = lambda: lines  # type: ignore[method-assign]
        raise


def options_first(args: list[str]) -> list[str]:
    """Return *args* with the global options first. Arguments after `--` stay in place."""
    ours: list[str] = []
    others: list[str] = []
    rest = iter(args)
    for argument in rest:
        if argument == "--":
            others += [argument, *rest]
        elif argument in GLOBAL_OPTIONS:
            ours += [argument, *(value for value in [next(rest, None)] if value)]
        elif argument.partition("=")[0] in GLOBAL_OPTIONS or _OUTPUT.match(argument):
            ours.append(argument)
        else:
            others.append(argument)
    return ours + others


app = typer.Typer(
    name="sparecode",
    rich_markup_mode=None,
    cls=AnywhereGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,  # They show variables, which may be secrets.
    epilog="""\b
    These options may stand anywhere on the line. To begin, sign in:
      sparecode --node n1:7304 --ca ca.pem login root

    \b
    Exit codes: 0 done, 1 refused by the rules, 2 wrong usage, 3 no node or no
    quorum, 4 not permitted or not signed in.
    """,
)


def show_version(value: bool) -> None:
    """Print the version and exit."""
    if value:
        typer.echo(f"sparecode {importlib.metadata.version('sparecode')}")
        raise typer.Exit


@app.callback()
def sparecode(
    context: typer.Context,
    node: Annotated[
        list[str] | None,
        typer.Option(
            envvar="SPARECODE_NODES",
            metavar="HOST:PORT",
            help="Administrator listener of a node; the default port is 7304. "
            "Repeat the option or separate nodes by commas: if a node does not answer, "
            "the next one is called. Stored by login.",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            envvar="SPARECODE_CA",
            metavar="FILE",
            help="CA of the nodes' certificates (PEM). Stored by login.",
        ),
    ] = None,
    client_certificate: Annotated[
        Path | None,
        typer.Option(
            envvar="SPARECODE_CLIENT_CERTIFICATE",
            metavar="FILE",
            help="Certificate of this client (PEM), for nodes that demand one. "
            "Stored by login.",
        ),
    ] = None,
    client_key: Annotated[
        Path | None,
        typer.Option(
            envvar="SPARECODE_CLIENT_KEY",
            metavar="FILE",
            help="Its key (PEM). Stored by login.",
        ),
    ] = None,
    output: Annotated[
        OutputFormat,
        typer.Option(
            "--output",
            "-o",
            help="Output format: table for people; json, yaml or csv for programs. In a "
            "cell of csv, `;` is between the items of a list.",
        ),
    ] = OutputFormat.TABLE,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=600,
            metavar="SECONDS",
            help="Time limit of the command, including all retries.",
        ),
    ] = 10,
    request_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Repeat a command whose outcome is unknown, with the id that it printed. "
            "The request is never applied twice.",
        ),
    ] = None,
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            callback=show_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Manage users, tokens and emergency access on any node of a Sparecode cluster."""
    del version
    context.obj = Settings(
        nodes=tuple(split(node)),
        ca=ca,
        client_certificate=client_certificate,
        client_key=client_key,
        output=Output(output),
        timeout=timedelta(seconds=timeout),
        request_id=request_id,
    )


app.command()(sessions.login)
app.command()(sessions.logout)
app.command()(sessions.whoami)
app.add_typer(sessions.app, name="sessions")
app.add_typer(users.app, name="users")
tokens.app.add_typer(token_import.app)
app.add_typer(tokens.app, name="tokens")
emergency_access.app.add_typer(bulk_issue.app)
app.add_typer(emergency_access.app, name="emergency")
app.add_typer(agents.app, name="agents")
app.add_typer(notices.app, name="notices")
cluster.app.add_typer(rotation.app)
app.add_typer(cluster.app, name="cluster")
app.add_typer(audit.app, name="audit")
app.add_typer(policy.app, name="policy")
administrators.app.add_typer(second_factors.app, name="second-factor")
app.add_typer(administrators.app, name="admins")
app.add_typer(approvals.app, name="approvals")
app.command(epilog=authentication.EPILOG)(authentication.authenticate)
app.command(epilog="Example: sparecode explain WRONG_PIN")(explain.explain)
