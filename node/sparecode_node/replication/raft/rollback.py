# SPDX-License-Identifier: Apache-2.0
"""
Whether another member's disk went back in time, as in a restored snapshot of a machine.

Such a node has lost votes and acknowledged entries, and does not know it. Its journal
has the right name, and every checksum is right. But other members remember what it has
promised. When a link begins, each end shows its last starts, each with the position at
which its journal ended then, and the current position (`Hello`). The other end refuses
it in these cases:

* it shows a start before the last one that was seen, or the same one with another
  random number: the copy was taken before that start;
* the start that was seen ended before a promise that was seen in it: the copy was taken
  during that start. That stays visible, however often the copy starts again.

A promise is a vote, or an acknowledgement. Its position is never beyond that of the
disk when it was made, so an intact node is never refused.

A refused node stops voting and acknowledging, durably: also a member that has seen
nothing of it since must not get its votes.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from sparecode_node.replication.log.boots import (
    NOWHERE,
    Boot,
    Position,
    Seen,
)
from sparecode_node.replication.log.journal import Journal

log = logging.getLogger(__name__)

SAVE_S = 1.0
"""Promises are written at most this often, without a sync: the kernel does the rest."""

REPEATED = 5
"""
A node is reported when it is refused so often, each time within `REFUSED_S` of the last.

A connection that was given up may deliver one call, or its answer, when newer links have
begun, or another start. An older copy calls ten times a second (`links/outbound.py`).
"""

REFUSED_S = 5.0
"""A node that was refused is reported for this time after it has last tried."""

ADVICE = "restored from an older copy: remove this node and let it join again"

BOOTS_FROM_LEVEL = 2
"""From this feature level on, every member shows its starts."""


@dataclass(frozen=True, slots=True)
class Hello:
    """What a node shows when a link begins."""

    journal_id: str
    address: str = ""
    """Where other members reach it."""
    boots: tuple[Boot, ...] = ()
    """Its last starts, the current one at the end; empty: release 0.1.0."""
    position: Position = NOWHERE
    """Where its journal ends."""
    applied_index: int = 0
    """The last entry in its state; 0: release 0.1.0."""
    skipped: tuple[tuple[int, str], ...] = ()
    """Index and digest of the newest entries that it has skipped, or will skip (E3)."""


@dataclass(slots=True)
class Rollbacks:
    """The starts of the members. Belongs to the engine's thread."""

    journal: Journal
    level: Callable[[], int]
    """The cluster's feature level."""
    now: Callable[[], float]
    """The engine's clock."""
    _refused: dict[str, tuple[int, float]] = field(default_factory=dict)
    """How often each refused node has tried to link lately, and when it has last tried."""
    _changed: bool = False
    _saved_at: float = float("-inf")
    _written: set[str] = field(init=False)
    """The nodes of which the file says something."""

    def __post_init__(self) -> None:
        self._written = set(self.journal.boots.seen)

    # --- This node

    @property
    def refused_by(self) -> str:
        """The member that has refused this node as an older copy; empty: none has."""
        return self.journal.boots.refused_by

    def refuse_itself(self, member: str) -> None:
        """Record durably that *member* knows of promises that this node has lost."""
        if not self.refused_by:
            log.critical("restored_from_older_copy", extra={"refused_by": member})
            self.journal.boots.refused_by = member
            self._save(sync=True)

    # --- Other nodes

    def hears(self, peer: str, hello: Hello) -> bool:
        """Return whether a message counts: it comes from the start that was seen last."""
        seen = self.journal.boots.seen.get(peer)
        if seen is None:
            return not hello.boots or self.accepts(peer, hello)
        if _is_same(seen, hello):
            return True
        is_earlier = bool(hello.boots) and hello.boots[-1].number <= seen.number
        return not is_earlier and self.accepts(peer, hello)

    def accepts(self, peer: str, hello: Hello, *, fresh: bool = False) -> bool:
        """
        Return whether a node that links has kept every promise that was seen here.

        If so, remember its start, durably if it is a member. *fresh*: every message
        that came before *hello* was also sent before. Only then its position counts.
        """
        seen = self.journal.boots.seen.get(peer)
        if seen is not None and seen.journal_id != hello.journal_id:
            seen = None  # `admission` judges other journals.
        if seen is not None and not self._fits(seen, hello, fresh=fresh):
            self._count_refusal(peer)
            return False
        if hello.boots and (seen is None or not _is_same(seen, hello)):
            newest = hello.boots[-1]
            promised = NOWHERE if seen is None else seen.promised
            self.journal.boots.seen[peer] = Seen(
                hello.journal_id, newest.number, newest.nonce, promised
            )
            # A guest could keep the engine busy with syncs: it may link again and again.
            if peer in self.journal.possible_members:
                self._save(sync=True)
        return True

    def _count_refusal(self, peer: str) -> None:
        count = self._refusals(peer) + 1
        if count == REPEATED:
            log.error("older_copy_refused", extra={"peer": peer, "advice": ADVICE})
        self._refused[peer] = count, self.now()

    def _fits(self, seen: Seen, hello: Hello, *, fresh: bool) -> bool:
        boots = hello.boots
        position = hello.position if fresh else seen.promised
        if not boots:  # Release 0.1.0 counts no starts.
            return self.level() < BOOTS_FROM_LEVEL
        numbers = [boot.number for boot in boots]
        if seen.number > numbers[-1]:
            return False
        if seen.number not in numbers:
            return position >= seen.promised  # So long ago that it is not shown.
        at = numbers.index(seen.number)
        ended = boots[at + 1].began if at + 1 < len(boots) else position
        return boots[at].nonce == seen.nonce and ended >= seen.promised

    def promised(self, peer: str, promise: Position) -> None:
        """Record what a node has promised in the start that was seen last."""
        seen = self.journal.boots.seen.get(peer)
        if seen is None:
            return
        if promise > seen.promised:
            self.journal.boots.seen[peer] = Seen(
                seen.journal_id, seen.number, seen.nonce, promise
            )
            self._changed = True
        elif peer not in self._written and peer in self.journal.possible_members:
            self._changed = True  # It was no member yet when that was heard first.

    @property
    def refused(self) -> list[str]:
        """The nodes that were refused again and again until a moment ago."""
        return [p for p in sorted(self._refused) if self._refusals(p) >= REPEATED]

    def _refusals(self, peer: str) -> int:
        count, last = self._refused.get(peer, (0, float("-inf")))
        return count if self.now() - last <= REFUSED_S else 0

    # --- The file

    def step(self) -> None:
        """Write new promises if that is due; called in each tick."""
        if self._changed and self.now() - self._saved_at >= SAVE_S:
            self._saved_at = self.now()
            self._save(sync=False)

    def _save(self, *, sync: bool) -> None:
        self._changed = False
        members = self.journal.possible_members
        self.journal.boots.save(members, sync=sync)
        self._written = {peer for peer in self.journal.boots.seen if peer in members}


def _is_same(seen: Seen, hello: Hello) -> bool:
    """Return whether a node shows the start that was seen last: the usual case."""
    if not hello.boots:
        return False
    newest = hello.boots[-1]
    shown = (hello.journal_id, newest.number, newest.nonce)
    return shown == (seen.journal_id, seen.number, seen.nonce)
