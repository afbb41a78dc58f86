# SPDX-License-Identifier: Apache-2.0
"""Arguments and options that several commands have."""

from typing import Annotated

import typer

from sparecode_client.cli.terminal.completion import (
    complete_serial,
    complete_token,
    complete_username,
)
from sparecode_client.cli.terminal.words import TIME_FORMS, When, read_time


def _read_time(text: str) -> When:
    try:
        return read_time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def time_option(help_text: str) -> object:
    """Return an option that takes a time or a duration."""
    return typer.Option(
        parser=_read_time, metavar="TIME", help=f"{help_text} For example {TIME_FORMS}."
    )


Serial = Annotated[
    str,
    typer.Argument(
        metavar="SERIAL",
        help="Serial of the token, such as 000123456789.",
        autocompletion=complete_serial,
    ),
]
SerialOrUser = Annotated[
    str,
    typer.Argument(
        metavar="SERIAL|USER",
        help="Serial of the token, such as 000123456789, or the name of a user who has "
        "one token.",
        autocompletion=complete_token,
    ),
]
Username = Annotated[
    str,
    typer.Argument(
        metavar="USER",
        help="Username; letter case does not matter.",
        autocompletion=complete_username,
    ),
]
StaleOk = Annotated[
    bool,
    typer.Option(
        "--stale-ok",
        help="Read the called node's own state, not the primary's. Works without a "
        "quorum, but may miss the latest changes.",
    ),
]
Limit = Annotated[
    int,
    typer.Option(min=1, max=10_000, metavar="NUMBER", help="Show at most this many."),
]
