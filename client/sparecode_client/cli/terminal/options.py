# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have."""

from typing import Annotated

import typer

from sparecode_client.cli.terminal.words import TIME_FORMS, When, read_time


def _read_time(text: str) -> When:
    try:
        return read_time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def time_option(help_text: str) -> object:
    """Return an option for a moment or a duration."""
    return typer.Option(
        parser=_read_time, metavar="TIME", help=f"{help_text} As {TIME_FORMS}."
    )


Serial = Annotated[
    str, typer.Argument(metavar="SERIAL", help="The token, as 000123456789.")
]
Username = Annotated[
    str, typer.Argument(metavar="USER", help="The username, in any case.")
]
StaleOk = Annotated[
    bool,
    typer.Option(
        "--stale-ok",
        help="Read the node's own state without asking the primary: works without a "
        "quorum, and may miss the latest changes.",
    ),
]
Limit = Annotated[
    int,
    typer.Option(min=1, max=10_000, metavar="NUMBER", help="Show so many at most."),
]
