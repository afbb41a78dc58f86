# SPDX-License-Identifier: Apache-2.0
"""
The events of a sealed segment, proved by the chain between its two hashes in the state.

They need no trust, wherever they come from. A sender may be broken, or hostile: so each
event is judged as it comes, and what comes is bounded before it is read.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from typing import TypeAlias

from sparecode_node.domain.audit import AuditEvent, chain_hash
from sparecode_node.statemachine.tables.segments import Segment

FIELDS = tuple(field.name for field in fields(AuditEvent))
Chained: TypeAlias = tuple[AuditEvent, bytes]
"""An event, and the hash of the chain after it."""

Pace = Callable[[Iterable[AuditEvent]], Iterator[AuditEvent]]
"""Yields events, and may pause meanwhile."""


class SegmentError(Exception):
    """The events of a segment are not those that the state knows, or not all of them."""


class RottenSegmentError(Exception):
    """What a node's file has of a segment that counts as stored is damaged."""

    def __init__(self, number: int, first: int, last: int) -> None:
        super().__init__(
            f"the audit events {first} to {last} are damaged in this node's file"
        )
        self.number, self.first, self.last = number, first, last


class SegmentChain:
    """Takes the events of a segment, one after the other."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        self._sequence = segment.first_sequence - 1
        self._head = segment.hash_before

    @property
    def missing(self) -> int:
        """The number of events that are still to come."""
        return self._segment.last_sequence - self._sequence

    def add(self, event: AuditEvent) -> Chained:
        """Return the next event with its hash. Raises `SegmentError`: it is another one."""
        if event.sequence != self._sequence + 1 or not self.missing:
            raise SegmentError(f"event {self._sequence + 1} is missing")
        self._sequence = event.sequence
        self._head = chain_hash(self._head, event)
        return event, self._head

    def end(self) -> None:
        """Raise `SegmentError` if these were not all events that the state knows."""
        if self.missing or self._head != self._segment.hash_after:
            raise SegmentError(
                f"the events {self._segment.first_sequence} to "
                f"{self._segment.last_sequence} are not those of the cluster's audit log"
            )


def linked(segment: Segment, events: Iterable[AuditEvent]) -> Iterator[Chained]:
    """
    Yield the events of a segment, each with its hash.

    Raises `SegmentError` after the last one at the latest, if they are not those that
    the state knows.
    """
    chain = SegmentChain(segment)
    yield from map(chain.add, events)
    chain.end()


def event_in(line: bytes, *, beside: frozenset[str] = frozenset()) -> AuditEvent:
    """
    Return the event in a line of `lines_of`. Raises `SegmentError`.

    *beside*: what a line of an export has beside the event.
    """
    try:
        content = json.loads(line).items()
        values = {name: value for name, value in content if name not in beside}
        return checked(AuditEvent(**values))
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SegmentError("a line is no event") from error


def checked(event: AuditEvent) -> AuditEvent:
    """Return an event whose values have the right types. Raises `SegmentError`."""
    for name in FIELDS:
        number = name in ("sequence", "at_ms")
        if type(getattr(event, name)) is not (int if number else str):
            raise SegmentError(f"what should be an event is no event: {name}")
    return event
