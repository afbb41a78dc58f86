# SPDX-License-Identifier: Apache-2.0
"""Progress bars on stderr."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)


class ProgressBar:
    """A bar that counts what is done."""

    def __init__(self, progress: Progress, description: str) -> None:
        self._progress = progress
        self._task = progress.add_task(description, total=None)

    def show(self, done: int, total: int, description: str | None = None) -> None:
        """Show *done* of *total*; without a *description*, keep the last one."""
        self._progress.update(
            self._task, completed=done, total=total, description=description
        )


@contextmanager
def progress_bar(
    description: str = "", *, remaining_time: bool = True
) -> Iterator[ProgressBar]:
    """
    Show a bar while the context lasts.

    Where stderr is not a terminal, nothing is shown.
    """
    console = Console(stderr=True)
    columns: list[ProgressColumn] = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
    ]
    if remaining_time:
        columns.append(TimeRemainingColumn())
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as progress:
        yield ProgressBar(progress, description)
