# SPDX-License-Identifier: Apache-2.0
"""
The audit log: appends events in the transaction of their command (U1).

`domain.audit` computes the hash of each event. From level 2 on, every `SEGMENT_EVENTS`
events are sealed: a row of `audit_segments` stands for them. A sealed event is no
longer a part of the replicated state. Each node keeps it in a file of its own
(`sealed_events`), and then discards it here.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sparecode_node.domain.audit import (
    GENESIS_HASH,
    AuditEvent,
    bounded,
    chain_hash,
)
from sparecode_node.domain.outcomes import plural
from sparecode_node.domain.personal_notices import Told, Wanted
from sparecode_node.fault_points import Point, reach
from sparecode_node.statemachine import outbox
from sparecode_node.statemachine.tables import segments
from sparecode_node.statemachine.tables.segments import Segment

SEGMENT_EVENTS = 10_000
"""
Events of a segment: 4 MB, a few tenths of a second to store and verify.

Every replica seals after the same event, so after a release only a new level changes it.
"""

DISCARDED_MAX = 256
"""Sealed events that one entry discards: a millisecond. It brings at most half as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Sealed events that this node's file has."""

    segment: Segment
    """The last one, to its end."""
    first: int
    """The oldest event in the state's database when this was looked up."""


class AuditLog:
    """The chain of audit events; its head is equal on every replica."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        row = db.execute(
            "SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
        self.sequence: int = row[0] if row else 0
        self.head: bytes = row[1] if row else GENESIS_HASH
        self.wanted = Wanted()
        """The notices that people get, by the policy (N6)."""
        self.seals = False
        """Whether the cluster's level has segments."""
        self.bounds = False
        """Whether the cluster's level bounds the texts of events."""
        self.removed = 0
        """The last event that retention has removed (U4)."""
        last = segments.last_sealed(db)
        self._sealed = last.last_sequence if last else 0
        first = db.execute("SELECT min(sequence) FROM audit_events").fetchone()
        self._first: int = first[0] or 1
        self._index = 0
        self._events = 0
        """Events of this entry so far: they name its notices."""

    def discard(self, stored: Stored | None) -> None:
        """
        Discard some sealed events that this node's file has, or that were removed.

        The newest event stays in any case: the next one continues its chain.
        """
        last = max(self._last_stored(stored), self.removed)
        end = min(self._first + DISCARDED_MAX, last + 1, self.sequence)
        if end <= self._first:
            return
        self._db.execute("DELETE FROM audit_events WHERE sequence < ?", (end,))
        self._first = end
        reach(Point.SEGMENT_DROPPED)

    def _last_stored(self, stored: Stored | None) -> int:
        """Return the last event that this node's file has, of those in the state; or 0."""
        if stored is None or self._first > stored.segment.last_sequence:
            return 0
        # A snapshot may have replaced the state a moment ago: one of another history,
        # or of a member that had not discarded events which this node's file lacks.
        if self._first < stored.first:
            return 0
        segment = stored.segment
        if segments.find(self._db, segment.number) != segment:
            return 0
        return segment.last_sequence

    def begin_entry(self, index: int) -> None:
        """Begin with the events of the entry at *index*."""
        self._index, self._events = index, 0

    def append(  # noqa: PLR0913 - one argument per field.
        self,
        *,
        at_ms: int,
        actor: str,
        node: str,
        action: str,
        target: str,
        outcome: str,
        reason: str = "",
        detail: str = "",
        told: Sequence[Told] = (),
    ) -> None:
        """
        Append one event, and the notices of channels that want it (N1).

        *told*: what users hear beside it.
        """
        event = AuditEvent(
            sequence=self.sequence + 1,
            at_ms=at_ms,
            actor=actor,
            node=node,
            action=action,
            target=target,
            outcome=outcome,
            reason=reason,
            detail=detail,
        )
        if self.bounds:
            event = bounded(event)
        digest = chain_hash(self.head, event)
        self._db.execute(
            "INSERT INTO audit_events (sequence, at_ms, actor, node, action, target, "
            "outcome, reason, detail, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.sequence,
                at_ms,
                event.actor,
                node,
                action,
                event.target,
                outcome,
                event.reason,
                event.detail,
                digest,
            ),
        )
        self.sequence, self.head = event.sequence, digest
        if self.seals and self.sequence - self._sealed >= SEGMENT_EVENTS:
            # One segment for each event: a log of years is sealed without a pause.
            self._sealed = segments.seal(self._db, SEGMENT_EVENTS).last_sequence
            reach(Point.SEGMENT_SEALED)
        self._events += 1
        dropped = outbox.offer(
            self._db,
            event,
            told,
            wanted=self.wanted,
            index=self._index,
            number=self._events,
        )
        self._tell_drops(dropped, at_ms=at_ms, node=node)

    def tell_untold_drops(self, *, at_ms: int, node: str) -> None:
        """Append an event for each channel whose drops of the last minute are untold."""
        dropped = outbox.untold_drops(self._db, at_ms)
        self._tell_drops(dropped, at_ms=at_ms, node=node)

    def _tell_drops(self, dropped: Mapping[str, int], *, at_ms: int, node: str) -> None:
        for channel, count in dropped.items():
            self.append(
                at_ms=at_ms,
                actor=f"node:{node}",
                node=node,
                action="NOTICES_DROPPED",
                target=channel,
                outcome="noted",
                detail=f"{plural(count, 'notice')}, because too many wait",
            )
