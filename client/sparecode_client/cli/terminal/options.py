# SPDX-License-Identifier: Apache-2.0
"""Options that several commands have."""

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from sparecode_client.cli.terminal.words import TIME_FORMS, When, read_time
from sparecode_client.values.results import Page

T = TypeVar("T")

PAGE_SIZE_MAX = 500


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


def pages(page_of: Callable[[int, str], Page[T]], limit: int) -> tuple[Page[T], bool]:
    """
    Return *limit* items as one page, and whether those are all.

    *page_of* takes a page size and a page token.
    """
    items: tuple[T, ...] = ()
    token = ""
    while True:
        page = page_of(min(limit - len(items), PAGE_SIZE_MAX), token)
        items += page.items
        token = page.next_page_token
        if not token or len(items) >= limit:
            whole = Page(items=items, next_page_token=token, position=page.position)
            return whole, not token
