# SPDX-License-Identifier: Apache-2.0
"""`AuditService`: the log of decisions and changes."""

from collections.abc import AsyncIterator

from sparecode.v1 import audit_pb2 as pb
from sparecode.v1 import audit_pb2_grpc as pb_grpc
from sparecode_node.queries.audit import AuditFilter, AuditRecord
from sparecode_node.rpc import calls, conversion
from sparecode_node.rpc.identity import Context
from sparecode_node.services.cluster.audit import Audit
from sparecode_node.services.files.audit_export import ExportFormat

FORMATS = {
    pb.AUDIT_EXPORT_FORMAT_JSON_LINES: ExportFormat.JSON_LINES,
    pb.AUDIT_EXPORT_FORMAT_CSV: ExportFormat.CSV,
}


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
            criteria=_filter(request.filter),
            from_sequence=request.from_sequence,
            page_size=request.page_size,
            page_token=request.page_token,
            stale_ok=request.stale_ok,
        )
        return pb.ListAuditEventsResponse(
            events=[_event(record) for record in read.value.items],
            next_page_token=read.value.next_page_token,
            position=conversion.position(read),
            removed=conversion.removed(read.value.removed),
            searched_to_sequence=read.value.searched_to_sequence,
            searched_to_time=conversion.timestamp(read.value.searched_to_ms),
        )

    async def ExportAuditEvents(
        self, request: pb.ExportAuditEventsRequest, context: Context
    ) -> AsyncIterator[pb.ExportAuditEventsResponse]:
        """Stream the content of an export file."""
        form = ExportFormat.JSON_LINES
        if request.format != pb.AUDIT_EXPORT_FORMAT_UNSPECIFIED:
            form = conversion.enum_value("format", request.format, FORMATS)
        pieces = await self._audit.export(
            calls.session_call(context, "AuditService/ExportAuditEvents"),
            form=form,
            criteria=_filter(request.filter),
            after_sequence=request.after_sequence,
            up_to_sequence=request.up_to_sequence,
            continued=request.continued,
            stale_ok=request.stale_ok,
        )
        async for read in pieces:
            piece = read.value
            yield pb.ExportAuditEventsResponse(
                content=piece.content,
                events=piece.events,
                last_sequence=piece.last_sequence,
                end_sequence=piece.end_sequence,
                position=conversion.position(read),
                removed=conversion.removed(piece.removed),
                searched_to_sequence=piece.searched_to_sequence,
            )

    async def GetCheckpoint(
        self, request: pb.GetCheckpointRequest, context: Context
    ) -> pb.GetCheckpointResponse:
        """Return a signed statement about the log."""
        read = await self._audit.checkpoint(
            calls.session_call(context, "AuditService/GetCheckpoint"),
            segment=request.segment,
            stale_ok=request.stale_ok,
        )
        signed = read.value
        return pb.GetCheckpointResponse(
            checkpoint=pb.Checkpoint(
                cluster_id=signed.cluster_id,
                sequence=signed.sequence,
                head=signed.head,
                checkpoint_time=conversion.timestamp(signed.at_ms),
                key_id=signed.key_id,
                public_key=signed.public_key,
                signature=signed.signature,
            ),
            position=conversion.position(read),
        )

    async def VerifyChain(
        self, request: pb.VerifyChainRequest, context: Context
    ) -> pb.VerifyChainResponse:
        """Recompute the hash chain of this node."""
        read = await self._audit.verify_chain(
            calls.session_call(context, "AuditService/VerifyChain"),
            stale_ok=request.stale_ok,
        )
        return pb.VerifyChainResponse(
            verified_sequence=read.value.verified_sequence,
            head=read.value.head,
            broken_sequence=read.value.broken_sequence,
            problem=read.value.problem,
            position=conversion.position(read),
        )


def _filter(message: pb.AuditFilter) -> AuditFilter:
    start_ms = end_ms = None
    if message.HasField("start_time"):
        start_ms = conversion.milliseconds("filter.start_time", message.start_time)
    if message.HasField("end_time"):
        end_ms = conversion.milliseconds("filter.end_time", message.end_time)
    return AuditFilter(
        start_ms=start_ms,
        end_ms=end_ms,
        actor=message.actor,
        action=message.action,
        target=message.target,
        outcome=message.outcome,
        reason=message.reason,
        authentication_id=message.authentication_id,
    )


def _event(record: AuditRecord) -> pb.AuditEvent:
    event = record.event
    return pb.AuditEvent(
        sequence=event.sequence,
        event_time=conversion.timestamp(event.at_ms),
        actor=event.actor,
        node_id=event.node,
        action=event.action,
        target=event.target,
        outcome=event.outcome,
        reason=event.reason,
        detail=event.detail,
        previous_hash=record.previous_hash,
        hash=record.hash,
        authentication_id=record.authentication_id,
    )
