# SPDX-License-Identifier: Apache-2.0
"""
The audit log: appends events in the transaction of their command (U1).

`domain.audit` computes the hash of each event.
"""

import sqlite3

from sparecode_node.domain.audit import GENESIS_HASH, AuditEvent, chain_hash


class AuditLog:
    """The chain of audit events; its head is equal on every replica."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        row = db.execute(
            "SELECT sequence, hash FROM audit_events ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
        self.sequence: int = row[0] if row else 0
        self.head: bytes = row[1] if row else GENESIS_HASH

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
        """Append one event."""
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
