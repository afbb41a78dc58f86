# SPDX-License-Identifier: Apache-2.0
"""Calls on the audit log."""

from collections.abc import Callable
from datetime import timedelta

from sparecode.v1 import audit_pb2, cluster_pb2
from sparecode_client.connection.client import Caller
from sparecode_client.connection.wire import enum_out, position_in, time_in, time_out
from sparecode_client.values.audit import (
    EVERYTHING,
    AuditEvent,
    AuditExport,
    AuditExportFormat,
    AuditFilter,
    AuditPage,
    ChainVerdict,
    Checkpoint,
    RemovedEvents,
)


class AuditLog(Caller):
    """The calls of `AuditService`."""

    async def list_audit_events(
        self,
        event_filter: AuditFilter = EVERYTHING,
        *,
        from_sequence: int = 0,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> AuditPage:
        """
        Return a page of events, newest first.

        With *from_sequence*, return that event and later ones, oldest first.

        A node looks at a bounded number of events in one call. So a page may have fewer
        events than *page_size*, even none, and `searched_to_time` tells how far it has
        looked. Call again with `next_page_token` until that is empty.
        """
        request = audit_pb2.ListAuditEventsRequest(
            page_size=page_size,
            page_token=page_token,
            filter=filter_out(event_filter),
            from_sequence=from_sequence,
            stale_ok=stale_ok,
        )
        answer = await self._client.unary(
            lambda node: node.audit.ListAuditEvents, request, within=within
        )
        return AuditPage(
            items=tuple(event_in(event) for event in answer.events),
            next_page_token=answer.next_page_token,
            position=position_in(answer.position),
            removed=removed_in(answer),
            searched_to_sequence=answer.searched_to_sequence,
            searched_to_time=time_in(answer, "searched_to_time"),
        )

    async def export_audit_events(
        self,
        write: Callable[[bytes], object],
        event_filter: AuditFilter = EVERYTHING,
        *,
        form: AuditExportFormat = AuditExportFormat.JSON_LINES,
        after_sequence: int = 0,
        up_to_sequence: int = 0,
        stale_ok: bool = False,
        progress: Callable[[int, int], object] = lambda _done, _end: None,
        within: timedelta | None = None,
    ) -> AuditExport:
        """
        Export events: pass the content of a file to *write*, oldest events first.

        If a node breaks off, another one continues with the next event. Only a complete
        export as JSON Lines can be verified. *progress* gets the sequence number that
        was looked at last, and the last one of the export. *within* limits the time
        without progress. *up_to_sequence* 0: up to the newest event.
        """
        events, last, searched_to = 0, 0, 0
        has_answer = False
        removed: RemovedEvents | None = None

        def request() -> audit_pb2.ExportAuditEventsRequest:
            return audit_pb2.ExportAuditEventsRequest(
                format=enum_out(audit_pb2.AuditExportFormat, form),
                filter=filter_out(event_filter),
                after_sequence=max(searched_to, after_sequence),
                up_to_sequence=up_to_sequence,
                continued=has_answer,
                stale_ok=stale_ok,
            )

        def take(piece: audit_pb2.ExportAuditEventsResponse) -> bool:
            nonlocal events, last, searched_to, has_answer, removed
            has_answer = True
            removed = removed or removed_in(piece)
            write(piece.content)
            events += piece.events
            last = max(last, piece.last_sequence)
            before = searched_to
            searched_to = max(before, last, piece.searched_to_sequence)
            progress(searched_to, piece.end_sequence)
            return piece.events > 0 or searched_to > before

        await self._client.stream_out(
            lambda node: node.audit.ExportAuditEvents, request, take, within=within
        )
        return AuditExport(events=events, last_sequence=last, removed=removed)

    async def get_checkpoint(
        self,
        *,
        segment: int = 0,
        stale_ok: bool = False,
        within: timedelta | None = None,
    ) -> Checkpoint:
        """
        Return a checkpoint: the current state of the audit log, signed by the cluster.

        Keep it outside the cluster. With it, a later export proves that no event before
        the checkpoint was changed or removed. With *segment*, it is the checkpoint of the
        last event of that sealed segment, as an archive has it.
        """
        answer = await self._client.unary(
            lambda node: node.audit.GetCheckpoint,
            audit_pb2.GetCheckpointRequest(segment=segment, stale_ok=stale_ok),
            within=within,
        )
        checkpoint = answer.checkpoint
        return Checkpoint(
            cluster_id=checkpoint.cluster_id,
            sequence=checkpoint.sequence,
            head=checkpoint.head,
            at_ms=checkpoint.checkpoint_time.ToMilliseconds(),
            key_id=checkpoint.key_id,
            public_key=checkpoint.public_key,
            signature=checkpoint.signature,
        )

    async def verify_chain(
        self, *, stale_ok: bool = False, within: timedelta | None = None
    ) -> ChainVerdict:
        """Make one node recompute the hashes of its own audit log."""
        answer = await self._client.unary(
            lambda node: node.audit.VerifyChain,
            audit_pb2.VerifyChainRequest(stale_ok=stale_ok),
            within=within,
            patient=True,
        )
        return ChainVerdict(
            verified_sequence=answer.verified_sequence,
            head=answer.head.hex(),
            broken_sequence=answer.broken_sequence,
            problem=answer.problem,
            position=position_in(answer.position),
        )


def removed_in(
    message: audit_pb2.ListAuditEventsResponse
    | audit_pb2.ExportAuditEventsResponse
    | cluster_pb2.AuditRetention,
) -> RemovedEvents | None:
    """Convert what retention has removed; None: nothing."""
    if not message.HasField("removed"):
        return None
    removed = message.removed
    return RemovedEvents(
        last_sequence=removed.last_sequence,
        last_time=time_in(removed, "last_time"),
        remove_time=time_in(removed, "remove_time"),
        archives=removed.archives,
    )


def filter_out(event_filter: AuditFilter) -> audit_pb2.AuditFilter:
    """Convert a filter."""
    return audit_pb2.AuditFilter(
        start_time=time_out(event_filter.start_time),
        end_time=time_out(event_filter.end_time),
        actor=event_filter.actor,
        action=event_filter.action,
        target=event_filter.target,
        outcome=event_filter.outcome,
        reason=event_filter.reason,
        authentication_id=event_filter.authentication_id,
    )


def event_in(event: audit_pb2.AuditEvent) -> AuditEvent:
    """Convert an event."""
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
        authentication_id=event.authentication_id,
    )
