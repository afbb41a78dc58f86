# SPDX-License-Identifier: Apache-2.0
"""A bar on the terminal that says how far the rows of a file are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int], object]


@contextmanager
def row_progress(what: str) -> Iterator[Advance]:
    """
    Show a bar on stderr, if that is a terminal; it goes away at the end.

    Call what is given with the number of all rows whenever one more is done.
    """
    console = Console(stderr=True)
    with Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as progress:
        task = progress.add_task("", total=None)
        yield lambda rows: progress.update(task, total=rows, advance=1)
