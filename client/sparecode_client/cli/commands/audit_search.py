# SPDX-License-Identifier: Apache-2.0
"""
Searches of the audit log for `sparecode audit list`.

A node looks at a bounded number of events in one call. So a search for rare events takes
many calls, says how far it has come, and shows what it has when it ends early.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from rich.console import Console
from rich.status import Status

from sparecode_client.blocking import Admin
from sparecode_client.cli.terminal.listing import PAGE_SIZE_MAX
from sparecode_client.cli.terminal.output import Output
from sparecode_client.cli.terminal.words import plural, show_second, show_timestamp
from sparecode_client.errors import SparecodeError
from sparecode_client.values.audit import (
    AuditEvent,
    AuditFilter,
    AuditPage,
    RemovedEvents,
)
from sparecode_client.values.results import ReadPosition

NOTED_CALLS = 20
"""Where stderr is no terminal, a line tells now and then how far the search is."""


@dataclass(slots=True, kw_only=True)
class Search:
    """What a search has found, and how it ended."""

    newest_first: bool
    events: tuple[AuditEvent, ...] = ()
    page: AuditPage | None = None
    """The last one that came."""
    removed: RemovedEvents | None = None
    interrupted: bool = False
    error: SparecodeError | None = None
    """Ended the search after its first page."""

    @property
    def position(self) -> ReadPosition | None:
        """How current the last page is."""
        return None if self.page is None else self.page.position

    @property
    def complete(self) -> bool:
        """Whether every event was looked at."""
        return self.page is not None and not self.page.next_page_token

    @property
    def searched_to(self) -> tuple[int, datetime | None]:
        """The last event that was looked at; 0: none, or every event."""
        if self.page is None:
            return 0, None
        return self.page.searched_to_sequence, self.page.searched_to_time

    def progress(self) -> str:
        """Return how far the search has come, in words."""
        sequence, time = self.searched_to
        if not sequence:
            return "Nothing was searched"
        return (
            f"Searched {'back' if self.newest_first else 'up'} to event {sequence} "
            f"({show_second(time)})"
        )


def search(
    admin: Admin,
    event_filter: AuditFilter,
    *,
    from_sequence: int,
    limit: int,
    stale_ok: bool,
    output: Output,
) -> Search:
    """
    Search until *limit* events are found, the log ends, or Ctrl-C.

    Raises what the first call raises; a later error is in the result, which has events.
    """
    result = Search(newest_first=not from_sequence)
    try:
        with _progress(output, result) as tell:
            token = ""
            while True:
                page = admin.list_audit_events(
                    event_filter,
                    from_sequence=from_sequence,
                    page_size=min(limit - len(result.events), PAGE_SIZE_MAX),
                    page_token=token,
                    stale_ok=stale_ok,
                )
                result.page = page
                result.events += page.items
                result.removed = result.removed or page.removed
                token = page.next_page_token
                if not token or len(result.events) >= limit:
                    break
                tell()
    except KeyboardInterrupt:
        result.interrupted = True
    except SparecodeError as error:
        if result.page is None:
            raise
        result.error = error
    return result


@contextmanager
def _progress(output: Output, result: Search) -> Iterator[Callable[[], None]]:
    """
    Yield a function that tells how far the search has come.

    On a terminal that is one line on stderr, which goes away at the end.
    """
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    status = Status("", console=console)
    calls = 0

    def tell() -> None:
        nonlocal calls
        calls += 1
        if console.is_terminal:
            status.update(f"{result.progress()}. Ctrl-C shows what was found.")
            status.start()
        elif calls % NOTED_CALLS == 0:
            output.note(f"{result.progress()}.")

    try:
        yield tell
    finally:
        status.stop()


def note_end(output: Output, result: Search) -> None:
    """Note on stderr what the search has not looked at, and how to go on."""
    sequence, _ = result.searched_to
    if result.interrupted or result.error is not None:
        how = "Interrupted" if result.interrupted else "The search broke off"
        output.note(f"{how}. {result.progress()}.{_further(result)}")
    elif not result.complete:
        if sequence in (0, result.events[-1].sequence):
            number = plural(len(result.events), "event")
            output.note(f"There are more than {number}: see --limit.")
        else:
            output.note(f"{result.progress()}. For further events see --limit.")
    elif not result.events:
        output.note("No events match.")
    if result.position is not None:
        output.position(result.position)


def _further(result: Search) -> str:
    """Return the option that goes on with the search, as a sentence."""
    sequence, time = result.searched_to
    if not sequence:
        return ""
    if not result.newest_first:
        return f" Go on with --from {sequence + 1}."
    if time is None:
        return ""
    # Events of that millisecond may come twice, and none is left out.
    until = show_timestamp(time + timedelta(milliseconds=1))
    return f" Go on with --until {until}."
