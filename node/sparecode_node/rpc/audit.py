# SPDX-License-Identifier: Apache-2.0
"""`AuditService`: what was decided and changed, by whom, when and where."""

from sparecode.v1 import audit_pb2 as pb
from sparecode.v1 import audit_pb2_grpc as pb_grpc
from sparecode_node.queries.audit import AuditFilter, AuditRecord
from sparecode_node.rpc import calls, convert
from sparecode_node.rpc.identity import Context
from sparecode_node.services.audit import Audit


class AuditServicer(pb_grpc.AuditServiceServicer):
    """Translates between the wire and `Audit`."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, context: Context
    ) -> pb.ListAuditEventsResponse:
        """Return a page of events."""
        read = await self._audit.list(
            calls.session_call(context, "AuditService/ListAuditEvents"),
            wanted=_filter(request.filter),
            from_sequence=request.from_sequence,
            page_size=request.page_size,
            page_token=request.page_token,
            stale_ok=request.stale_ok,
        )
        return pb.ListAuditEventsResponse(
            events=[_event(record) for record in read.value.items],
            next_page_token=read.value.next_page_token,
            position=convert.position(read),
        )


def _filter(wanted: pb.AuditFilter) -> AuditFilter:
    start_ms = end_ms = None
    if wanted.HasField("start_time"):
        start_ms = convert.milliseconds("filter.start_time", wanted.start_time)
    if wanted.HasField("end_time"):
        end_ms = convert.milliseconds("filter.end_time", wanted.end_time)
    return AuditFilter(
        start_ms=start_ms,
        end_ms=end_ms,
        actor=wanted.actor,
        action=wanted.action,
        target=wanted.target,
        outcome=wanted.outcome,
        reason=wanted.reason,
    )


def _event(record: AuditRecord) -> pb.AuditEvent:
    event = record.event
    return pb.AuditEvent(
        sequence=event.sequence,
        event_time=convert.timestamp(event.at_ms),
        actor=event.actor,
        node_id=event.node,
        action=event.action,
        target=event.target,
        outcome=event.outcome,
        reason=event.reason,
        detail=event.detail,
        previous_hash=record.previous_hash,
        hash=record.hash,
    )
