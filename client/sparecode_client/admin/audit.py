# SPDX-License-Identifier: Apache-2.0
"""The audit log."""

from datetime import timedelta

from sparecode.v1 import audit_pb2
from sparecode_client.audit import EVERYTHING, AuditEvent, AuditFilter
from sparecode_client.client import Caller
from sparecode_client.values import Page
from sparecode_client.wire import position_in, time_in, time_out


class AuditLog(Caller):
    """The calls of `AuditService`."""

    async def list_audit_events(
        self,
        wanted: AuditFilter = EVERYTHING,
        *,
        from_sequence: int = 0,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> Page[AuditEvent]:
        """
        Return a page of events, the newest first.

        With *from_sequence*: that event and later ones, oldest first.
        """
        request = audit_pb2.ListAuditEventsRequest(
            page_size=page_size,
            page_token=page_token,
            filter=filter_out(wanted),
            from_sequence=from_sequence,
            stale_ok=stale_ok,
        )
        answer = await self._client.unary(
            lambda node: node.audit.ListAuditEvents, request, within=within
        )
        return Page(
            items=tuple(event_in(event) for event in answer.events),
            next_page_token=answer.next_page_token,
            position=position_in(answer.position),
        )


def filter_out(wanted: AuditFilter) -> audit_pb2.AuditFilter:
    """Return a filter for the wire."""
    return audit_pb2.AuditFilter(
        start_time=time_out(wanted.start_time),
        end_time=time_out(wanted.end_time),
        actor=wanted.actor,
        action=wanted.action,
        target=wanted.target,
        outcome=wanted.outcome,
        reason=wanted.reason,
    )


def event_in(event: audit_pb2.AuditEvent) -> AuditEvent:
    """Return an event."""
    return AuditEvent(
        sequence=event.sequence,
        time=time_in(event, "event_time"),
        actor=event.actor,
        node_id=event.node_id,
        action=event.action,
        target=event.target,
        outcome=event.outcome,
        reason=event.reason,
        detail=event.detail,
        previous_hash=event.previous_hash.hex(),
        hash=event.hash.hex(),
    )
