# SPDX-License-Identifier: Apache-2.0
"""Where an answer comes from: its commit or read position, and its page."""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Where a change was committed: the node that was called, and the log index."""

    node_id: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadPosition:
    """How current an answer is: everything up to the applied index is in it."""

    node_id: str
    applied_index: int
    stale: bool
    """It may miss changes that were committed after that index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """A page of a list; `next_page_token` is empty on the last one."""

    items: tuple[T, ...]
    next_page_token: str
    position: ReadPosition
