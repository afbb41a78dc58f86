# SPDX-License-Identifier: Apache-2.0
"""Calls to a member that has the authorities' keys, for a joiner or for this member."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sparecode.internal.v1 import joining_pb2 as pb
from sparecode.internal.v1 import joining_pb2_grpc as pb_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.links.tls import PeerTls, target_name
from sparecode_node.replication.members import Member
from sparecode_node.services.cluster.joining import Joiner, JoinGrant

CALL_S = 4.0
"""For one member: a joiner waits ten seconds, and the next member may have the key."""

_RETRIED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNIMPLEMENTED,  # A member of an older release.
    grpc.StatusCode.PERMISSION_DENIED,  # It does not know this member yet.
)
"""Another member may answer differently."""


class RelayedError(Exception):
    """The refusal of the member that decided, for the joiner to read."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        super().__init__(error.details())
        self.code = error.code()
        self.details = error.details() or ""
        self.metadata = tuple(
            (key, value)
            for key, value in error.trailing_metadata() or ()
            if key == "grpc-status-details-bin"
        )


class AuthorityCalls:
    """Passes requests on, with this member's own certificate."""

    def __init__(self, read_tls: Callable[[], PeerTls]) -> None:
        self._read_tls = read_tls

    async def pass_on(
        self, joiner: Joiner, members: Sequence[Member], timeout_s: float
    ) -> JoinGrant | None:
        """
        Return the answer of the first member that has the authority's key, or None.

        Raises `RelayedError` if that member refuses.
        """
        request = pb.JoinRequest(
            request_id=joiner.request_id,
            address=joiner.address,
            hosts=joiner.hosts,
            ticket_certificate=joiner.ticket_certificate,
            ticket_signature=joiner.ticket_signature,
        )
        if joiner.certificate:
            request.certificate = joiner.certificate
        else:
            request.certificate_request = joiner.certificate_request
        answered = await self._first_answer("Join", request, members, timeout_s)
        return None if answered is None else grant_of(answered[1])

    async def renew(
        self,
        certificate_request: bytes,
        members: Sequence[Member],
        *,
        new_authority: bool = False,
    ) -> tuple[NodeId, bytes] | None:
        """
        Return a new certificate for this member, PEM, and who signed it, or None.

        *new_authority*: a successor of the members' authority signs it. Raises `RelayedError` if a member refuses.
        """
        request = pb.RenewCertificateRequest(
            certificate_request=certificate_request, new_authority=new_authority
        )
        answered = await self._first_answer(
            "RenewCertificate", request, members, CALL_S
        )
        return None if answered is None else (answered[0], answered[1].certificate)

    async def _first_answer(
        self, method: str, request: Message, members: Sequence[Member], timeout_s: float
    ) -> tuple[NodeId, Any] | None:
        """Return the first member that has the authority's key, and its answer."""
        for member in members:
            try:
                async with self._stub(member) as stub:
                    call = getattr(stub, method)
                    answer = await call(request, timeout=min(timeout_s, CALL_S))
            except grpc.aio.AioRpcError as error:
                if error.code() in _RETRIED or _lacks_authority(error):
                    continue
                raise RelayedError(error) from error
            return member.node_id, answer
        return None

    @asynccontextmanager
    async def _stub(self, member: Member) -> AsyncIterator[Any]:
        channel = grpc.aio.secure_channel(
            member.address,
            self._read_tls().channel_credentials(),
            options=(("grpc.ssl_target_name_override", target_name(member.node_id)),),
        )
        async with channel:
            yield pb_grpc.JoiningServiceStub(channel)


def grant_of(answer: pb.JoinResponse) -> JoinGrant:
    """Return what a joining node received."""
    return JoinGrant(
        cluster_id=answer.cluster_id,
        certificate=answer.certificate,
        members_ca=answer.members_ca,
        agents_ca=answer.agents_ca,
        wrapped=answer.sealed_secrets,
        members=tuple(
            (NodeId(member.node_id), member.address) for member in answer.members
        ),
    )


def _lacks_authority(error: grpc.RpcError) -> bool:
    return reason_of(error) == Reason.AUTHORITY_MISSING.name


def reason_of(error: grpc.RpcError) -> str:
    """Return the reason in a status; empty if it has none."""
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""
