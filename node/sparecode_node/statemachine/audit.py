# SPDX-License-Identifier: Apache-2.0
"""
The audit log: appends events in the transaction of their command (U1).

`domain.audit` computes the hash of each event.
"""

import sqlite3

from sparecode_node.domain.audit import GENESIS_HASH, AuditEvent, chain_hash
from sparecode_node.domain.outcomes import plural
from sparecode_node.statemachine import outbox


class AuditLog:
    """The chain of audit events; its head is equal on every replica."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        row = db.execute(
            "SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
        self.sequence: int = row[0] if row else 0
        self.head: bytes = row[1] if row else GENESIS_HASH
        self._index = 0
        self._events = 0
        """Events of this entry so far: they name its notices."""

    def begin_entry(self, index: int) -> None:
        """Begin with the events of the entry at *index*."""
        self._index, self._events = index, 0

    def append(
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
    ) -> None:
        """Append one event, and the notices of channels that want it (N1)."""
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
        digest = chain_hash(self.head, event)
        self._db.execute(
            "INSERT INTO audit_events (sequence, at_ms, actor, node, action, target, "
            "outcome, reason, detail, hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.sequence,
                at_ms,
                actor,
                node,
                action,
                target,
                outcome,
                reason,
                detail,
                digest,
            ),
        )
        self.sequence, self.head = event.sequence, digest
        self._events += 1
        dropped = outbox.offer(self._db, event, index=self._index, number=self._events)
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
