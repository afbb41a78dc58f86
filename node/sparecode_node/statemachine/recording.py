# SPDX-License-Identifier: Apache-2.0
"""Recording: append the outcome of a call to the audit log (U1)."""

from sparecode_node.domain.outcomes import Reason, Rejected
from sparecode_node.statemachine.applying import Applying
from sparecode_node.statemachine.audit import AuditLog
from sparecode_node.statemachine.results import ApprovalPending, Authenticated, Result

UNDECIDED = frozenset(
    {
        Reason.STALE_PARAMETERS,
        Reason.REQUEST_TABLE_FULL,
        Reason.NOT_INITIALIZED,
        Reason.NOT_OPEN,
        Reason.RESET_PENDING,
    }
)
"""Refusals without an audit event: they decide nothing, and shedding must be cheap."""


def record(audit: AuditLog, applying: Applying, result: Result) -> None:
    """Append one event for the decision and one for each consequence."""
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
    for action, target, how, why, more in (
        (
            type(applying.call.command).__name__,
            applying.target,
            outcome,
            reason,
            detail,
        ),
        *(
            (event.action, event.serial, event.outcome, "", event.cause)
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
            detail=more,
        )
