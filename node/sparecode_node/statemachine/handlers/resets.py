# SPDX-License-Identifier: Apache-2.0
"""
Handlers of local resets: requested, announced, in force or canceled (P4).

A reset waits so that a super administrator can notice and cancel it: root on one
node's machine must not become an administrator unseen. If no super administrator can
sign in, the reset is not canceled, and the cluster recovers after the delay.
"""

import sqlite3
from dataclasses import replace

from sparecode_node.domain.administrators import Administrator, Role
from sparecode_node.domain.authentication import Event
from sparecode_node.domain.ids import TokenSerial
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.domain.resets import Reset, not_now, unknown
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.audit import AuditLog
from sparecode_node.statemachine.commands.resets import CancelReset, ResetAdministrator
from sparecode_node.statemachine.feature_level import DELAYED_RESETS
from sparecode_node.statemachine.handlers import keys
from sparecode_node.statemachine.tables import administrators as administrator_tables
from sparecode_node.statemachine.tables import membership as membership_tables
from sparecode_node.statemachine.tables import passkeys as passkey_tables
from sparecode_node.statemachine.tables import resets as tables
from sparecode_node.statemachine.tables import sign_in_waits as wait_tables


def reset_administrator(
    applying: Applying, command: ResetAdministrator
) -> Rejected | None:
    """Apply `ResetAdministrator`. The audit log names the calling process (P4)."""
    if not keys.takes(applying, command.key_id):
        return Rejected(Reason.STALE_PARAMETERS)
    before = administrator_tables.find_administrator(applying.db, command.name)
    if before is None:
        rows = applying.db.execute(
            "SELECT name FROM administrators WHERE role = ? ORDER BY name",
            (Role.SUPER_ADMIN,),
        )
        return unknown(command.name, [name for (name,) in rows])
    delayed = applying.feature_level >= DELAYED_RESETS
    delay_ms = applying.policy.reset_delay_ms if delayed else 0
    reset = Reset(
        name=command.name,
        password_salt=command.password_salt,
        password_verifier=command.password_verifier,
        key_id=command.key_id,
        # At level 1, every reset removes the second factor.
        second_factor=command.second_factor or not delayed,
        node_id=applying.call.node_id,
        uid=command.uid,
        asked_at_ms=applying.now_ms,
        due_at_ms=applying.now_ms + delay_ms,
    )
    if not delayed:
        _apply(applying.db, replace(reset.applied_to(before), replaced=False))
        applying.detail = f"by user id {command.uid} on node {applying.call.node_id}"
        return None
    refused = not_now(
        reset.name,
        node_id=reset.node_id,
        node=membership_tables.find_node(applying.db, reset.node_id),
        is_pending=tables.find(applying.db, reset.name) is not None,
        now_ms=applying.now_ms,
    )
    if refused is not None:
        return refused
    tables.add(applying.db, reset)
    applying.outcome = "pending"
    applying.detail = (
        f"{reset.description}{_enables(before)}; in force in {_minutes(delay_ms)}"
    )
    return None


def _apply(db: sqlite3.Connection, after: Administrator) -> None:
    administrator_tables.save_administrator(db, after)
    if not after.passkeys:
        passkey_tables.delete_all(db, after.name)
    db.execute("DELETE FROM sessions WHERE administrator = ?", (after.name,))
    wait_tables.delete_all(db, after.name)


def apply_due(
    db: sqlite3.Connection, audit: AuditLog, node_id: str, now_ms: int
) -> None:
    """Apply the resets whose delay has ended by the log's time."""
    for reset in tables.due(db, now_ms):
        before = administrator_tables.find_administrator(db, reset.name)
        if before is None:
            raise AssertionError("a reset goes with its administrator")
        tables.delete(db, reset.name)
        _apply(db, reset.applied_to(before))
        audit.append(
            at_ms=now_ms,
            actor=f"node:{reset.node_id}",
            node=node_id,
            action="RESET_IN_FORCE",
            target=reset.name,
            outcome="applied",
            detail=f"requested {reset.description}{_enables(before)}",
        )


def cancel_reset(applying: Applying, command: CancelReset) -> Rejected | None:
    """Apply `CancelReset`."""
    reset = tables.find(applying.db, command.name)
    if reset is None:
        return Rejected(
            Reason.RESET_UNKNOWN,
            f"no reset of {command.name} is pending: it was canceled, or is in force",
            "name",
        )
    tables.delete(applying.db, command.name)
    applying.detail = f"requested {reset.description}"
    return None


def cancel_at_sign_in(applying: Applying, administrator: Administrator) -> None:
    """Cancel every requested reset, because a super administrator has signed in."""
    if administrator.role is not Role.SUPER_ADMIN:
        return
    for reset in tables.all_of(applying.db):
        tables.delete(applying.db, reset.name)
        applying.events.append(
            Event(
                action="RESET_CANCELED",
                serial=TokenSerial(reset.name),
                cause=f"requested {reset.description}; {administrator.name} signed in",
            )
        )


def _enables(before: Administrator) -> str:
    """Return the words for a reset that enables its administrator."""
    return "" if before.enabled else ", enables the administrator"


def _minutes(duration_ms: int) -> str:
    return f"{duration_ms // 60_000} minutes"
