# SPDX-License-Identifier: Apache-2.0
"""Lists: read page by page, shown as one table or one JSON value."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from sparecode_client.cli.terminal.output import Output
from sparecode_client.cli.terminal.words import plural
from sparecode_client.values.results import Page

T = TypeVar("T")

PAGE_SIZE_MAX = 500


class ListCall(Protocol[T]):
    """A call that returns one page of a list, such as `Admin.list_agents`."""

    def __call__(self, *, page_size: int, page_token: str, stale_ok: bool) -> Page[T]:
        """Return the page that *page_token* names; the first if it is empty."""
        ...


def read_pages(call: ListCall[T], limit: int, *, stale_ok: bool) -> Page[T]:
    """
    Return up to *limit* items as one page.

    The result's `next_page_token` is empty if there are no more items.
    """
    items: tuple[T, ...] = ()
    token = ""
    while True:
        page = call(
            page_size=min(limit - len(items), PAGE_SIZE_MAX),
            page_token=token,
            stale_ok=stale_ok,
        )
        items += page.items
        token = page.next_page_token
        if not token or len(items) >= limit:
            return Page(items=items, next_page_token=token, position=page.position)


def list_json(key: str, page: Page[T]) -> dict[str, object]:
    """Return a list as programs get it: the items under *key*."""
    return {
        key: page.items,
        "complete": not page.next_page_token,
        "position": page.position,
    }


def note_rest(
    output: Output, page: Page[T], noun: str, hint: str = "see --limit"
) -> None:
    """Note on stderr what a list does not show: later items, or later changes."""
    if page.next_page_token:
        output.note(f"There are more than {plural(len(page.items), noun)}: {hint}.")
    output.position(page.position)


def show_list(
    output: Output,
    page: Page[T],
    row: Callable[[T], Sequence[str]],
    *,
    key: str,
    columns: Sequence[str],
    noun: str,
    hint: str = "see --limit",
) -> None:
    """Show a list as a table of one *row* per item, or as JSON under *key*."""
    if output.is_json:
        output.json(list_json(key, page), key)
        return
    output.table(columns, (row(item) for item in page.items))
    note_rest(output, page, noun, hint)
