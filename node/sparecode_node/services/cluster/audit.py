# SPDX-License-Identifier: Apache-2.0
"""Use cases: the audit log, the same on every node (U)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from sparecode_node.domain.audit import chain_hash
from sparecode_node.domain.ids import AdministratorName
from sparecode_node.queries import audit, segments
from sparecode_node.queries.audit import (
    AuditBatch,
    AuditFilter,
    AuditHead,
    AuditPage,
    AuditRecord,
)
from sparecode_node.queries.segments import RemovedEvents
from sparecode_node.queries.state import ReadTransaction
from sparecode_node.services import fields
from sparecode_node.services.access.authorization import Session
from sparecode_node.services.cluster import checkpoints
from sparecode_node.services.cluster.checkpoints import Checkpoint
from sparecode_node.services.context import CallContext, Read
from sparecode_node.services.errors import InvalidFieldError
from sparecode_node.services.files import audit_export
from sparecode_node.services.files.audit_export import ExportFormat
from sparecode_node.services.load.costly_reads import CostlyReads
from sparecode_node.services.reading import Reader
from sparecode_node.services.secrets.sealing import Sealing
from sparecode_node.statemachine.tables.archives import Removed

FILTER_MAX = 512
"""No field of an event is longer."""
BATCH = 200
"""Events read at once: other calls need the loop and the readers too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPiece:
    """Whole lines of an export."""

    content: bytes
    events: int
    last_sequence: int
    """0: the piece holds no event."""
    searched_to_sequence: int = 0
    """The filter was tried on all events up to this one; 0: the piece is the first."""
    end_sequence: int
    """The export ends at this sequence or earlier."""
    removed: RemovedEvents | None = None
    """What retention has removed, in the first piece, if the export reaches back to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainVerdict:
    """The result of computing the hash chain again."""

    verified_sequence: int
    head: bytes
    broken_sequence: int = 0
    """0: nothing is broken."""
    problem: str = ""
    """Without a broken event: which events were declared lost, and passed over."""


class Audit:
    """
    Lists, exports and verifies the audit log.

    Every method raises `InvalidFieldError`, `NotSignedInError`,
    `NotPermittedError` and `ProposeError`.
    """

    def __init__(
        self, *, reader: Reader, sealing: Sealing, costly_reads: CostlyReads
    ) -> None:
        self._reader = reader
        self._costly_reads = costly_reads
        self._sealing = sealing

    async def list(
        self,
        context: CallContext,
        *,
        criteria: AuditFilter,
        from_sequence: int = 0,
        page_size: int = 0,
        page_token: str = "",
        stale_ok: bool = False,
    ) -> Read[AuditPage]:
        """Return a page of events: newest first, or from *from_sequence* on."""
        size = fields.page_size(page_size)
        _check(criteria)
        _check_sequence("from_sequence", from_sequence)

        async def query(transaction: ReadTransaction, _: int) -> AuditPage:
            return await audit.page(
                transaction,
                size=size,
                page_token=page_token,
                criteria=criteria,
                from_sequence=from_sequence,
            )

        return await self._reader.read(context, query, stale_ok=stale_ok)

    async def export(
        self,
        context: CallContext,
        *,
        form: ExportFormat,
        criteria: AuditFilter,
        after_sequence: int = 0,
        up_to_sequence: int = 0,
        continued: bool = False,
        stale_ok: bool = False,
    ) -> AsyncIterator[Read[ExportPiece]]:
        """
        Return the pieces of a file, up to the head at the time of the call.

        *up_to_sequence*: up to this event, if the log has it by then; 0: up to the head.

        Each piece is read in its own transaction, and the session is checked again: a
        slow reader blocks nothing, and an ended session reads no further. A piece looks
        at a bounded number of events, so other reads have their turn; it may be empty.
        """
        _check(criteria)
        _check_sequence("after_sequence", after_sequence)
        _check_sequence("up_to_sequence", up_to_sequence)
        head = await self._reader.read(context, _head, stale_ok=stale_ok)

        async def removed_for(
            transaction: ReadTransaction, _: int
        ) -> RemovedEvents | None:
            return await audit.removed_for(
                transaction, criteria, from_sequence=after_sequence + 1
            )

        removed = await self._reader.read_further(context, removed_for)

        async def pieces() -> AsyncIterator[Read[ExportPiece]]:
            end = head.value.sequence
            if up_to_sequence:
                end = min(end, up_to_sequence)
            content = b"" if continued else audit_export.header(form)
            yield Read(
                value=ExportPiece(
                    content=content,
                    events=0,
                    last_sequence=0,
                    end_sequence=end,
                    removed=removed.value,
                ),
                node_id=head.node_id,
                applied_index=head.applied_index,
                stale=stale_ok,
            )
            after = after_sequence
            while after < end:
                read = await self._batch(context, criteria, after=after, up_to=end)
                records, after = read.value.items, read.value.searched_to
                yield Read(
                    value=ExportPiece(
                        content=audit_export.lines(form, records),
                        events=len(records),
                        last_sequence=records[-1].event.sequence if records else 0,
                        searched_to_sequence=after,
                        end_sequence=end,
                    ),
                    node_id=read.node_id,
                    applied_index=read.applied_index,
                    stale=stale_ok,
                )

        return pieces()

    async def checkpoint(
        self, context: CallContext, *, segment: int = 0, stale_ok: bool = False
    ) -> Read[Checkpoint]:
        """
        Return a signed checkpoint of the audit log (U2).

        *segment*: of the end of this sealed segment, instead of the newest event. It has
        the time of that event: signed with the time of the call, it would say that the
        log has no later events now. Raises `InvalidFieldError` if there is none.
        """
        _check_sequence("segment", segment)

        async def query(transaction: ReadTransaction, now_ms: int) -> Checkpoint:
            if not segment:
                head = await audit.head(transaction)
                return checkpoints.sign(self._sealing, head, at_ms=now_ms)
            end = await segments.end_of(transaction, segment)
            if end is None:
                raise InvalidFieldError("segment", f"{segment} is not sealed")
            head = AuditHead(sequence=end.sequence, hash=end.hash)
            return checkpoints.sign(self._sealing, head, at_ms=end.at_ms)

        return await self._reader.read(context, query, stale_ok=stale_ok)

    async def verify_chain(
        self, context: CallContext, *, stale_ok: bool = False
    ) -> Read[ChainVerdict]:
        """
        Compute every hash of this node's audit log again (U1).

        It reads the whole log, so it has a rate and a turn of its own (Q3).
        """

        async def head(
            transaction: ReadTransaction, _: int, session: Session
        ) -> tuple[int, AdministratorName]:
            return (await audit.head(transaction)).sequence, session.administrator

        deadline = self._reader.deadline(context)
        read = await self._reader.read_for(context, head, stale_ok=stale_ok)
        end, administrator = read.value
        async with self._costly_reads.turn(administrator, deadline):
            return Read(
                value=await self._verdict(context, end),
                node_id=read.node_id,
                applied_index=read.applied_index,
                stale=stale_ok,
            )

    async def _verdict(self, context: CallContext, end: int) -> ChainVerdict:
        removed = await self._removed(context)
        verdict = ChainVerdict(
            verified_sequence=removed.last_sequence,
            head=removed.hash_after,
            problem=removed_words(removed),
        )
        while verdict.verified_sequence < end and not verdict.broken_sequence:
            after = verdict.verified_sequence
            if (lost := await self._lost_from(context, after + 1)) is not None:
                words = f"the events {lost.first} to {lost.last} were declared lost"
                verdict = ChainVerdict(
                    verified_sequence=lost.last,
                    head=lost.hash_after,
                    problem="; ".join(filter(None, (verdict.problem, words))),
                )
                continue
            records = await self._following(context, after=after, up_to=end)
            verdict = _follow(verdict, records)
        return verdict

    async def _removed(self, context: CallContext) -> Removed:
        async def query(transaction: ReadTransaction, _: int) -> Removed:
            return await segments.removed(transaction)

        return (await self._reader.read_further(context, query)).value

    async def _lost_from(
        self, context: CallContext, sequence: int
    ) -> segments.LostSegment | None:
        """Return the lost segment that begins with an event, if it is missing here, too."""

        async def query(
            transaction: ReadTransaction, _: int
        ) -> segments.LostSegment | None:
            lost = await segments.lost_from(transaction, sequence)
            there = await audit.following(
                transaction,
                after=sequence - 1,
                up_to=sequence,
                rows=1,
            )
            return None if there else lost

        return (await self._reader.read_further(context, query)).value

    async def _batch(
        self, context: CallContext, criteria: AuditFilter, *, after: int, up_to: int
    ) -> Read[AuditBatch]:
        async def query(transaction: ReadTransaction, _: int) -> AuditBatch:
            return await audit.batch(
                transaction, after=after, up_to=up_to, criteria=criteria, rows=BATCH
            )

        # Events up to the head that was read first no longer change.
        return await self._reader.read_further(context, query)

    async def _following(
        self, context: CallContext, *, after: int, up_to: int
    ) -> tuple[AuditRecord, ...]:
        async def query(
            transaction: ReadTransaction, _: int
        ) -> tuple[AuditRecord, ...]:
            return await audit.following(
                transaction, after=after, up_to=up_to, rows=BATCH
            )

        return (await self._reader.read_further(context, query)).value


def removed_words(removed: Removed) -> str:
    """Return what retention has removed, in words; empty: nothing (U4)."""
    if not removed.through:
        return ""
    return (
        f"retention has removed the events 1 to {removed.last_sequence}, and the newest "
        f"of them are archived by {removed.words or 'nobody: they were lost'}"
    )


async def _head(transaction: ReadTransaction, _: int) -> AuditHead:
    return await audit.head(transaction)


def _follow(verdict: ChainVerdict, records: tuple[AuditRecord, ...]) -> ChainVerdict:
    """Return the verdict after more events, up to the first broken one."""
    sequence, head = verdict.verified_sequence, verdict.head
    for record in records:
        problem = ""
        if (
            record.event.sequence > sequence + 1
            and sequence > verdict.verified_sequence
        ):
            break  # The caller looks whether what comes next was declared lost.
        if record.event.sequence != sequence + 1:
            problem = "it is missing"
        elif chain_hash(head, record.event) != record.hash:
            problem = "its hash does not match its content and the previous hash"
        if problem:
            return ChainVerdict(
                verified_sequence=sequence,
                head=head,
                broken_sequence=sequence + 1,
                problem=problem,
            )
        sequence, head = record.event.sequence, record.hash
    if not records:
        return ChainVerdict(
            verified_sequence=sequence,
            head=head,
            broken_sequence=sequence + 1,
            problem="it is missing",
        )
    return ChainVerdict(verified_sequence=sequence, head=head, problem=verdict.problem)


def _check(criteria: AuditFilter) -> None:
    """Raise `InvalidFieldError` for a filter that matches no possible event."""
    for name in (
        *("actor", "action", "target", "outcome", "reason"),
        "authentication_id",
    ):
        fields.text(f"filter.{name}", getattr(criteria, name), at_most=FILTER_MAX)
    if (
        criteria.start_ms is not None
        and criteria.end_ms is not None
        and criteria.end_ms <= criteria.start_ms
    ):
        raise InvalidFieldError("filter.end_time", "must be after start_time")


def _check_sequence(name: str, value: int) -> None:
    if not 0 <= value < audit.SEQUENCE_MAX:
        raise InvalidFieldError(name, f"must be 0 to {audit.SEQUENCE_MAX - 1}")
