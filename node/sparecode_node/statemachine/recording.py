# SPDX-License-Identifier: Apache-2.0
"""Recording: append the outcome of a call to the audit log (U1)."""

import sqlite3

from sparecode_node.domain.audit import detail_of
from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.audit import AuditLog
from sparecode_node.statemachine.feature_level import (
    AUTHENTICATION_IDS,
    EQUAL_REFUSALS,
)
from sparecode_node.statemachine.results import ApprovalPending, Authenticated, Result
from sparecode_node.statemachine.tables import refusals

UNKNOWN_NAMES = "unknown names"
"""The actor of all sign-ins with unknown names, when they are counted together."""

UNDECIDED = frozenset(
    {
        Reason.STALE_PARAMETERS,
        Reason.REQUEST_TABLE_FULL,
        Reason.NOT_INITIALIZED,
        Reason.NOT_OPEN,
        Reason.SLOT_MOVING,
        Reason.SLOT_MOVED,
        Reason.RESET_PENDING,
    }
)
"""Refusals without an audit event: they decide nothing, and shedding must be cheap."""


def record(audit: AuditLog, applying: Applying, result: Result) -> None:
    """Append one event for the decision and one for each consequence."""
    if applying.unrecorded:
        return
    reason, detail = applying.reason, applying.detail
    match result:
        case Rejected() if result.reason in UNDECIDED:
            return
        case Rejected():
            outcome = "refused"
            reason = reason or result.reason
            detail = detail or result.detail
        case Authenticated():
            outcome = result.decision.value
        case ApprovalPending():
            outcome = "pending"
        case _:
            outcome = applying.outcome or "applied"
    actor = applying.actor or applying.call.request.caller
    if applying.administrator is not None:
        actor = f"administrator:{applying.administrator.name}"
    if isinstance(result, Rejected) and _is_counted(applying, actor, reason):
        return
    authentication_id = _authentication_id(applying, result)
    for action, target, how, why, more, told in (
        (
            type(applying.call.command).__name__,
            applying.target,
            outcome,
            reason,
            detail,
            applying.told,
        ),
        *(
            (
                event.action,
                event.serial,
                event.outcome,
                "",
                event.cause,
                event.told,
            )
            for event in applying.events
        ),
    ):
        audit.append(
            at_ms=applying.now_ms,
            actor=actor,
            node=applying.call.node_id,
            action=action,
            target=target,
            outcome=how,
            reason=why,
            detail=detail_of(authentication_id, more) if authentication_id else more,
            told=told,
        )


def _authentication_id(applying: Applying, result: Result) -> str:
    """Return the id of the decision that the agent gets; empty: no event names it."""
    if not isinstance(result, Authenticated):
        return ""
    if applying.feature_level < AUTHENTICATION_IDS:
        return ""
    return result.authentication_id


def _is_counted(applying: Applying, actor: str, reason: str) -> bool:
    """
    Return whether a refusal is only counted, because an equal one is an event (U1).

    A refusal that charged something, such as a wrong password, is always an event.
    """
    if applying.feature_level < EQUAL_REFUSALS or applying.keep_writes:
        return False
    return not refusals.is_first(
        applying.db,
        actor=UNKNOWN_NAMES if reason == "unknown_name" else actor,
        action=type(applying.call.command).__name__,
        reason=reason,
        target=refusals.OTHER_TARGETS if reason == "unknown_name" else applying.target,
        now_ms=applying.now_ms,
    )


def record_counted(
    db: sqlite3.Connection, audit: AuditLog, node_id: str, now_ms: int
) -> None:
    """Append an event for the counted refusals of each kind whose minute has ended."""
    for each in refusals.take_ended(db, now_ms):
        if each.count:
            audit.append(
                at_ms=now_ms,
                actor=each.actor,
                node=node_id,
                action=each.action,
                target=each.target,
                outcome="refused",
                reason=each.reason,
                detail=f"{each.count} more within a minute",
            )
