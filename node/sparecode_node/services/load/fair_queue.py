# SPDX-License-Identifier: Apache-2.0
"""
A bounded queue that callers share, whatever the number of requests of each (L8).

Callers take turns (round robin), and so do the groups that callers belong to: one agent
with many requests delays another one by one request, and any number of strangers leaves
agents and administrators two turns out of three. If the queue is full, the newest request
of the caller with the most waiting work gives way (longest queue drop: Suter et al.,
"Design Considerations for Supporting TCP with Per-flow Queueing", INFOCOM 1998).
"""

import enum
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Group(enum.Enum):
    """Callers that share a turn."""

    AGENTS = "agents"
    ADMINISTRATORS = "administrators"
    """Known as such by a session or by a device's cookie, and root on this machine."""
    STRANGERS = "strangers"
    """Who signs in from a device that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Whose work it is."""

    group: Group
    caller: str
    """The agent's certificate, the administrator, or the stranger's address."""


def administrators_share(name: str) -> Share:
    """Return the share of an administrator, in all sessions and on all devices."""
    return Share(group=Group.ADMINISTRATORS, caller=name)


NEWCOMER = Share(group=Group.AGENTS, caller="")
"""A caller of whom nothing is known yet, and who has nothing in a queue."""


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    item: T
    size: int


class FairQueue(Generic[T]):
    """The queue. Not safe in several threads at once."""

    def __init__(self) -> None:
        self._groups: OrderedDict[Group, OrderedDict[str, deque[_Entry[T]]]] = (
            OrderedDict()
        )
        self.waiting = 0
        """Items in the queue."""

    def waiting_of(self, share: Share) -> int:
        """Return the number of a caller's items in the queue."""
        callers = self._groups.get(share.group, OrderedDict())
        return len(callers.get(share.caller, ()))

    def put(self, item: T, share: Share, size: int) -> None:
        """Add an item. *size*: how much work it is."""
        callers = self._groups.setdefault(share.group, OrderedDict())
        callers.setdefault(share.caller, deque()).append(_Entry(item, size))
        self.waiting += 1

    def take(self) -> T | None:
        """Remove and return the next item; None: the queue is empty."""
        if not self._groups:
            return None
        group, callers = next(iter(self._groups.items()))
        caller, entries = next(iter(callers.items()))
        entry = entries.popleft()
        self.waiting -= 1
        # The next turn is another caller's, and another group's.
        self._groups.move_to_end(group)
        callers.move_to_end(caller)
        self._forget_empty(group, caller)
        return entry.item

    def remove(self, item: T) -> None:
        """Remove an item if it waits."""
        for group, callers in self._groups.items():
            for caller, entries in callers.items():
                for entry in entries:
                    if entry.item == item:
                        entries.remove(entry)
                        self.waiting -= 1
                        self._forget_empty(group, caller)
                        return

    def clear(self) -> list[T]:
        """Remove and return all items."""
        items = []
        while (item := self.take()) is not None:
            items.append(item)
        return items

    def displaced(self, share: Share, size: int, room: int) -> list[T] | None:
        """
        Return the items that must give way to *size* more work of a caller.

        *room*: how much more work the queue takes. None: no item gives way, because no
        other caller has more work in the queue.
        """
        items: list[T] = []
        if size <= room:
            return items
        entries = {
            Share(group=group, caller=caller): [*waiting]
            for group, callers in self._groups.items()
            for caller, waiting in callers.items()
        }
        loads = {
            each: sum(entry.size for entry in waiting)
            for each, waiting in entries.items()
        }
        loads[share] = loads.get(share, 0) + size
        while size > room:
            longest = _longest(loads, share)
            if longest == share:
                return None
            entry = entries[longest].pop()
            loads[longest] -= entry.size
            room += entry.size
            items.append(entry.item)
        return items

    def _forget_empty(self, group: Group, caller: str) -> None:
        callers = self._groups[group]
        if not callers[caller]:
            del callers[caller]
        if not callers:
            del self._groups[group]


def _longest(loads: dict[Share, int], newest: Share) -> Share:
    """Return who has the most work in the group with the most; if equal, *newest*."""
    groups: dict[Group, int] = {}
    for share, load in loads.items():
        groups[share.group] = groups.get(share.group, 0) + load
    group = max(groups, key=lambda each: (groups[each], each is newest.group))
    return max(
        (each for each in loads if each.group is group),
        key=lambda each: (loads[each], each == newest),
    )
