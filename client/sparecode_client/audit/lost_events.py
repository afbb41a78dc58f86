# SPDX-License-Identifier: Apache-2.0
"""
Events that an administrator declared lost, as a later event of the log records it (U2).

The detail of that event begins with their numbers, the hash of the event before them,
and the hash of the last one. So the hash of this one event also covers the log before
the gap, which no later event reaches by its chain.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

ACTION = "DeclareSegmentsLost"
_EXTENT = re.compile(
    r"[0-9]+ segments?, events ([0-9]{1,18}) to ([0-9]{1,18}), "
    r"hash before ([0-9a-f]{64}), hash after ([0-9a-f]{64}): "
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LostEvents:
    """A range of events that was declared lost."""

    first: int
    last: int
    declared_by: int
    """Number of the event that declares it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What an event of the log declares lost."""

    events: LostEvents
    hash_before: bytes
    """Of the event before the first one."""
    hash_after: bytes
    """Of the last one."""


def declaration(
    sequence: int, *, action: str, outcome: str, detail: str
) -> Declaration | None:
    """Return what an event declares lost; None if it declares nothing."""
    if action != ACTION or outcome != "applied":
        return None
    extent = _EXTENT.match(detail)  # The reason, which people choose, is at the end.
    if extent is None:
        return None
    first, last, before, after = extent.groups()
    return Declaration(
        events=LostEvents(first=int(first), last=int(last), declared_by=sequence),
        hash_before=bytes.fromhex(before),
        hash_after=bytes.fromhex(after),
    )


def cover(
    declarations: Iterable[Declaration],
    *,
    first: int,
    last: int,
    hash_before: bytes,
    hash_after: bytes,
) -> tuple[Declaration, ...]:
    """
    Return the declarations that together explain a gap, in the order of the log.

    They must be later than the gap and join exactly, with the same hashes. Return
    nothing if they do not.
    """
    at = {
        (each.events.first, each.hash_before): each
        for each in declarations
        if each.events.first <= each.events.last <= last < each.events.declared_by
    }
    found: list[Declaration] = []
    while first <= last:
        if (each := at.get((first, hash_before))) is None:
            return ()
        found.append(each)
        first, hash_before = each.events.last + 1, each.hash_after
    return tuple(found) if hash_before == hash_after else ()
