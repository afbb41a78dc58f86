# SPDX-License-Identifier: Apache-2.0
"""Expiry: delete what has ended by the log's time, alike on every replica."""

import sqlite3

from sparecode_node.domain.policy import Policy
from sparecode_node.statemachine.audit import AuditLog
from sparecode_node.statemachine.handlers import resets, sealed_codes
from sparecode_node.statemachine.handlers.sessions import forget_unused
from sparecode_node.statemachine.recording import record_counted
from sparecode_node.statemachine.tables import approvals as approval_tables
from sparecode_node.statemachine.tables import former as former_tables

_ENDING = (
    "sessions",
    "consumed_drafts",
    "consumed_challenges",
    "pin_changes",
    "join_tickets",
    "sign_in_waits",
    "browser_logins",
    "allowance_counts",
    "radius_secrets",
    "agent_keys",
    "personal_counts",
    "former_addresses",
    "alarms",
)
"""Tables whose ended rows are deleted without an audit event."""


def forget_ended(
    db: sqlite3.Connection,
    audit: AuditLog,
    node_id: str,
    now_ms: int,
    policy: Policy,
    level: int,
) -> None:
    """
    Delete what has ended, and apply resets that are due (P4).

    Codes that went by message and were not opened become void (I13).

    Requests that ended without an approval are recorded (P3), and so are notices that
    full channels have dropped (N2).
    """
    for each in approval_tables.ended(db, now_ms):
        approval_tables.delete(db, each.approval_id)
        audit.append(
            at_ms=now_ms,
            actor=f"administrator:{each.author}",
            node=node_id,
            action="APPROVAL_ENDED",
            target=f"approval {each.approval_id}",
            outcome="noted",
            detail=f"{each.action} {each.target}"
            + ("" if each.approver is None else f", approved by {each.approver}"),
        )
    resets.apply_due(db, audit, node_id, now_ms)
    sealed_codes.end_unopened(db, audit, node_id, now_ms)
    record_counted(db, audit, node_id, now_ms)
    audit.tell_untold_drops(at_ms=now_ms, node=node_id)
    for table in _ENDING:
        db.execute(f"DELETE FROM {table} WHERE ends_at_ms <= ?", (now_ms,))
    former_tables.forget_codes(db, now_ms - policy.former_code_retention_ms)
    forget_unused(db, now_ms, policy, level)
