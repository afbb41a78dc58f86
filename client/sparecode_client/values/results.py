# SPDX-License-Identifier: Apache-2.0
"""What comes with answers: the commit of a change, the position of a read, a page."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Where a change was committed: the called node and the log index."""

    node_id: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPosition:
    """How current an answer is: it includes everything up to the applied index."""

    node_id: str
    applied_index: int
    stale: bool
    """Changes committed after that index may be missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """A page of a list; `next_page_token` is empty on the last page."""

    items: tuple[T, ...]
    next_page_token: str
    position: ReadPosition
