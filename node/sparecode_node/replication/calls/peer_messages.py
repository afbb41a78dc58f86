# SPDX-License-Identifier: Apache-2.0
"""
Calls, reads and statuses as members send them to each other (T1).

They replace the engine's own forwarding, which knows neither deadlines nor request ids.
"""

from collections.abc import Sequence
from dataclasses import replace

import grpc
import grpc.aio

from sparecode.internal.v1 import peers_pb2
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.membership import (
    ArchiveReport,
    AuthorityKey,
    AuthorityKind,
    fingerprints,
)
from sparecode_node.replication.answers import answered, stub_of
from sparecode_node.replication.codec import CodecError, decode_call
from sparecode_node.replication.errors import (
    ClockError,
    KeyMissingError,
    MalformedCallError,
    NoPrimaryError,
    NoQuorumError,
    NotAppliedError,
    OlderMemberError,
    OutcomeUnknownError,
    OverloadedError,
    ProposeError,
)
from sparecode_node.replication.replicator import MemberStatus, Proposal
from sparecode_node.replication.settings import CALL_BYTES_MAX
from sparecode_node.statemachine.feature_level import FIRST
from sparecode_node.statemachine.results import (
    BarrierPassed,
    Result,
    from_json,
    to_json,
)

AUTHORITIES_MAX = 16
"""Authorities of one kind that a member's status may name; it has one or two."""
GRACE_S = 0.25
"""The primary answers at the deadline; the answer may travel for this time."""

_KIND_OF: dict[type[NotAppliedError], peers_pb2.NotAppliedKind.ValueType] = {
    NoPrimaryError: peers_pb2.NOT_APPLIED_KIND_NOT_PRIMARY,
    NoQuorumError: peers_pb2.NOT_APPLIED_KIND_NO_QUORUM,
    OverloadedError: peers_pb2.NOT_APPLIED_KIND_OVERLOADED,
    ClockError: peers_pb2.NOT_APPLIED_KIND_CLOCK,
    KeyMissingError: peers_pb2.NOT_APPLIED_KIND_KEY_MISSING,
    OlderMemberError: peers_pb2.NOT_APPLIED_KIND_OLDER_MEMBER,
}
"""
All kinds but `ChangeRefusedError`, which has its own message with the reason, and
`RemovedError`: to another member a removed node is no primary.
"""
_ERROR_OF = {kind: error for error, kind in _KIND_OF.items()}


def proposal_of(caller: NodeId, request: peers_pb2.ForwardRequest) -> Proposal:
    """Return the proposal that *caller* forwards. Raises `MalformedCallError`."""
    if len(request.call) > CALL_BYTES_MAX:
        raise MalformedCallError("the call is too large")
    try:
        call = decode_call(request.call)
    except CodecError as error:
        raise MalformedCallError(str(error)) from error
    if call.node_id != caller:
        raise MalformedCallError(f"a call of {call.node_id} comes from {caller}")
    return Proposal(call=call, tokencodes=tuple(request.tokencodes))


def applied(result: Result) -> peers_pb2.ForwardResponse:
    """Return the answer with a result."""
    return peers_pb2.ForwardResponse(result_json=to_json(result))


def not_applied(error: NotAppliedError) -> peers_pb2.ForwardResponse:
    """Return the answer for a call that was certainly not applied."""
    return peers_pb2.ForwardResponse(not_applied=kind_of(error))


def kind_of(error: ProposeError) -> peers_pb2.NotAppliedKind.ValueType:
    """Return the kind by which another member is told of an error."""
    for known, kind in _KIND_OF.items():
        if isinstance(error, known):
            return kind
    return peers_pb2.NOT_APPLIED_KIND_NOT_PRIMARY  # There is no more exact kind.


def error_of(kind: peers_pb2.NotAppliedKind.ValueType) -> NotAppliedError:
    """Return the error of this kind; a kind of a newer release is a `NoPrimaryError`."""
    return _ERROR_OF.get(kind, NoPrimaryError)("the primary refused the call")


def unknown() -> peers_pb2.ForwardResponse:
    """Return the answer for a call that may have been applied."""
    return peers_pb2.ForwardResponse(unknown=True)


def request_of(
    call: bytes, tokencodes: Sequence[str], *, timeout_s: float
) -> peers_pb2.ForwardRequest:
    """Return the request that forwards an encoded call."""
    return peers_pb2.ForwardRequest(
        call=call, tokencodes=tokencodes, timeout_ms=max(1, int(timeout_s * 1000))
    )


def outcome_of(response: peers_pb2.ForwardResponse) -> Result | ProposeError:
    """Return the outcome of a call, as the primary answers."""
    match response.WhichOneof("outcome"):
        case "result_json":
            return _result(response.result_json)
        case "not_applied":
            return error_of(response.not_applied)
        case _:
            return OutcomeUnknownError("the primary does not know the outcome")


def _result(text: str) -> Result | OutcomeUnknownError:
    try:
        return from_json(text)
    except ValueError:
        return OutcomeUnknownError("the primary's answer is not readable")


async def ask_read_index(
    channel: grpc.aio.Channel, *, term: int, timeout_s: float
) -> BarrierPassed:
    """
    Return the index to read at, as the primary answers. Raises `NotAppliedError`.

    *term* is the term of this node, looked up after its callers asked.
    """
    request = peers_pb2.GetReadIndexRequest(
        timeout_ms=max(1, int(timeout_s * 1000)), term=term
    )
    try:
        response = await answered(
            stub_of(channel).GetReadIndex(request, timeout=timeout_s + GRACE_S)
        )
    except grpc.aio.AioRpcError as error:
        raise NoPrimaryError(
            f"the primary did not answer: {error.code().name}"
        ) from error
    if response.WhichOneof("outcome") != "point":
        raise error_of(response.not_applied)
    return BarrierPassed(index=response.point.index, at_ms=response.point.at_ms)


def read_at(passed: BarrierPassed) -> peers_pb2.GetReadIndexResponse:
    """Return the answer with the index to read at."""
    point = peers_pb2.ReadPoint(index=passed.index, at_ms=passed.at_ms)
    return peers_pb2.GetReadIndexResponse(point=point)


def not_readable(error: ProposeError) -> peers_pb2.GetReadIndexResponse:
    """Return the answer that refuses a read on this member's word."""
    return peers_pb2.GetReadIndexResponse(not_applied=kind_of(error))


async def ask_status(
    channel: grpc.aio.Channel | None,
    peer: NodeId,
    *,
    digest: bool,
    timeout_s: float,
    metadata: Sequence[tuple[str, bytes]] = (),
) -> MemberStatus:
    """
    Return a member's status, also if it is unreachable or busy, or refuses.

    With the `Hello` of a link in *metadata*, it refuses what it would refuse a link.
    """
    unreachable = MemberStatus(node_id=peer, reachable=False)
    if channel is None:
        return unreachable
    request = peers_pb2.GetMemberStatusRequest(digest=digest)
    try:
        answer = await answered(
            stub_of(channel).GetMemberStatus(
                request, timeout=timeout_s, metadata=tuple(metadata)
            )
        )
    except TimeoutError:
        return unreachable
    except grpc.aio.AioRpcError as error:
        busy = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        refuses = error.code() is grpc.StatusCode.PERMISSION_DENIED
        why = (error.details() or "it refuses this node") if refuses else ""
        return replace(unreachable, busy=busy, refusal=why)
    return MemberStatus(
        node_id=peer,
        reachable=True,
        is_primary=answer.is_primary,
        term=answer.term,
        commit_index=answer.commit_index,
        applied_index=answer.applied_index,
        digest=answer.digest,
        version=answer.version,
        feature_level=answer.feature_level or FIRST,
        clock_ms=answer.clock_ms,
        audit_sequence=answer.audit_sequence,
        audit_head=answer.audit_head,
        recovery_bundle=answer.recovery_bundle,
        authorities=tuple(
            AuthorityKey(authority=kind, fingerprint=fingerprint)
            for kind, shown in (
                (AuthorityKind.MEMBERS, answer.members_authorities),
                (AuthorityKind.AGENTS, answer.agents_authorities),
            )
            for fingerprint in shown[:AUTHORITIES_MAX]
        ),
        shown_authorities=tuple(answer.shown_authorities[:AUTHORITIES_MAX]),
        archive=ArchiveReport.of(answer.archive.place, answer.archive.problem)
        if answer.HasField("archive")
        else None,
        last_entry=(answer.last_term, answer.last_index),
    )


def status_response(status: MemberStatus) -> peers_pb2.GetMemberStatusResponse:
    """Return a status as the message for other members."""
    return peers_pb2.GetMemberStatusResponse(
        is_primary=status.is_primary,
        term=status.term,
        commit_index=status.commit_index,
        applied_index=status.applied_index,
        digest=status.digest,
        version=status.version,
        feature_level=status.feature_level,
        clock_ms=status.clock_ms,
        audit_sequence=status.audit_sequence,
        audit_head=status.audit_head,
        recovery_bundle=status.recovery_bundle,
        members_authorities=fingerprints(status.authorities, AuthorityKind.MEMBERS),
        agents_authorities=fingerprints(status.authorities, AuthorityKind.AGENTS),
        shown_authorities=status.shown_authorities,
        archive=peers_pb2.MemberArchive(
            place=status.archive.place, problem=status.archive.problem
        )
        if status.archive
        else None,
        last_term=status.last_entry[0],
        last_index=status.last_entry[1],
    )
