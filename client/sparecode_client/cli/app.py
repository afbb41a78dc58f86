# SPDX-License-Identifier: Apache-2.0
"""The command `sparecode`: its own options, and its groups of commands."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
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
    policy,
    rotation,
    second_factors,
    sessions,
    token_import,
    tokens,
    users,
)
from sparecode_client.cli.terminal.output import Output, OutputFormat
from sparecode_client.cli.terminal.settings import Settings
from sparecode_client.cli.terminal.words import for_terminal, plain

GLOBAL_OPTIONS = {"--node", "--ca", "--output", "--timeout", "--request-id"}
_NOISE = "Value error, "
"""Pydantic, which Typer checks values with, puts it before what is meant."""


class AnywhereGroup(TyperGroup):
    """Takes its own options wherever they stand, also after the command."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]  # The class of Click behind it is private to Typer.
        """Parse the arguments after moving our own options to the front."""
        with wrong_usage_readable():
            for argument in args:
                check_text(argument)
            return super().parse_args(ctx, in_front(args))

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # noqa: ANN401  As its base has it.
        """Run a command, which parses what is left."""
        with wrong_usage_readable():
            return super().invoke(ctx)


def check_text(argument: str) -> None:
    """Refuse what is no text: nothing that nodes know has such a name."""
    try:
        argument.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{plain(argument)} is not text in UTF-8") from None


@contextmanager
def wrong_usage_readable() -> Iterator[None]:
    """Break what Typer says of a wrong value between words, where a terminal would not."""
    try:
        yield
    except typer.BadParameter as error:
        error.message = error.message.removeprefix(_NOISE)
        lead, message = "Error: ", error.format_message()
        lines = for_terminal(f"{lead}{message}", sys.stderr).removeprefix(lead)
        error.format_message = lambda: lines  # type: ignore[method-assign]
        raise


def in_front(args: list[str]) -> list[str]:
    """Return *args* with the global options first; what follows `--` stays."""
    ours: list[str] = []
    others: list[str] = []
    rest = iter(args)
    for argument in rest:
        if argument == "--":
            others += [argument, *rest]
        elif argument in GLOBAL_OPTIONS:
            ours += [argument, *(value for value in [next(rest, None)] if value)]
        elif argument.partition("=")[0] in GLOBAL_OPTIONS:
            ours.append(argument)
        else:
            others.append(argument)
    return ours + others


app = typer.Typer(
    name="sparecode",
    rich_markup_mode=None,
    cls=AnywhereGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # Its tables of variables would show secrets.
    epilog="""\b
    These options may stand anywhere on the line. Begin with:
      sparecode --node n1:7304 --ca ca.pem login root

    \b
    Exit codes: 0 done, 1 refused by the rules, 2 wrong usage, 3 no node or no
    quorum, 4 not permitted or not signed in.
    """,
)


@app.callback()
def sparecode(
    context: typer.Context,
    node: Annotated[
        list[str] | None,
        typer.Option(
            envvar="SPARECODE_NODES",
            metavar="HOST:PORT",
            help="A node's listener for administrators; port 7304 if not given. "
            "Repeat it, or separate by commas: the next one is called when one does "
            "not answer. Remembered by login.",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            envvar="SPARECODE_CA",
            metavar="FILE",
            help="The CA of the nodes' certificates (PEM). Remembered by login.",
        ),
    ] = None,
    output: Annotated[
        OutputFormat,
        typer.Option(help="table for people, json for programs."),
    ] = OutputFormat.TABLE,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1,
            max=600,
            metavar="SECONDS",
            help="Give up after so long, all retries included.",
        ),
    ] = 10,
    request_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Repeat a command whose outcome is unknown, with the id that it told: "
            "it is never done twice.",
        ),
    ] = None,
) -> None:
    """Manage users, tokens and emergency access on any node of a Sparecode cluster."""
    context.obj = Settings(
        nodes=tuple(split(node)),
        ca=ca,
        output=Output(output),
        timeout=timedelta(seconds=timeout),
        request_id=request_id,
    )


def split(values: list[str] | None) -> list[str]:
    """Return the parts of *values*, each of which may have several, by commas."""
    parts = (part.strip() for value in values or () for part in value.split(","))
    return [part for part in parts if part]


app.command()(sessions.login)
app.command()(sessions.logout)
app.command()(sessions.whoami)
app.add_typer(users.app, name="users")
tokens.app.add_typer(token_import.app)
app.add_typer(tokens.app, name="tokens")
emergency_access.app.add_typer(bulk_issue.app)
app.add_typer(emergency_access.app, name="emergency")
app.add_typer(agents.app, name="agents")
cluster.app.add_typer(rotation.app)
app.add_typer(cluster.app, name="cluster")
app.add_typer(audit.app, name="audit")
app.add_typer(policy.app, name="policy")
administrators.app.add_typer(second_factors.app, name="second-factor")
app.add_typer(administrators.app, name="admins")
app.add_typer(approvals.app, name="approvals")
app.command(epilog=authentication.EPILOG)(authentication.authenticate)
