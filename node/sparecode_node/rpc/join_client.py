# SPDX-License-Identifier: Apache-2.0
"""The client of a joining node: calls the members in its ticket until one decides."""

import contextlib
import time

import grpc

from sparecode.internal.v1 import joining_pb2 as pb
from sparecode.internal.v1 import joining_pb2_grpc as pb_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.domain.outcomes import Reason
from sparecode_node.replication.links.tls import target_name
from sparecode_node.rpc.authority_calls import grant_of, reason_of
from sparecode_node.services.ambient import Clock
from sparecode_node.services.cluster.joining import Joiner, JoinGrant
from sparecode_node.services.secrets.tickets import JoinTicket, door_of, pem, sign

PATIENCE_S = 20.0
"""A lagging member does not know a new ticket yet, and an election takes a second."""
CALL_S = 10.0
PAUSE_S = 0.5

_RETRIED = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


class NotAdmittedError(Exception):
    """A member refuses, or no member can be reached. The message says what to do."""


class JoinClient:
    """Calls the members named in a ticket."""

    def __init__(
        self, ticket: JoinTicket, clock: Clock, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._ticket = ticket
        self._clock = clock
        self._patience_s = patience_s
        self._errors: dict[NodeId, str] = {}

    def join(self, joiner: Joiner) -> tuple[NodeId, JoinGrant]:
        """
        Return the member that has admitted this node, and its answer.

        Raises `NotAdmittedError` if a member refuses, or if no member can be reached.
        """
        door = door_of(self._ticket.secret, self._ticket.node_id)
        request = pb.JoinRequest(
            request_id=joiner.request_id,
            address=joiner.address,
            hosts=joiner.hosts,
            ticket_signature=sign(joiner.signed_content(), door.key),
        )
        if joiner.certificate:
            request.certificate = joiner.certificate
        else:
            request.certificate_request = joiner.certificate_request
        deadline_s = self._clock.monotonic_s() + self._patience_s
        while True:
            for node_id, address in self._ticket.members:
                answer = self._call(node_id, address, request)
                if answer is not None:
                    return node_id, grant_of(answer)
            if self._clock.monotonic_s() >= deadline_s:
                raise NotAdmittedError(self._failure())
            time.sleep(PAUSE_S)

    def _call(
        self, node_id: NodeId, address: str, request: pb.JoinRequest
    ) -> pb.JoinResponse | None:
        """Return a member's answer, or None if another member may answer differently."""
        credential = door_of(self._ticket.secret, self._ticket.node_id)
        credentials = grpc.ssl_channel_credentials(
            root_certificates=pem(self._ticket.authorities),
            private_key=credential.key_pem,
            certificate_chain=credential.certificate_pem,
        )
        options = (
            ("grpc.ssl_target_name_override", target_name(node_id)),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
        )
        channel = grpc.secure_channel(address, credentials, options)
        with contextlib.closing(channel):
            try:
                stub = pb_grpc.JoiningServiceStub(channel)
                answer: pb.JoinResponse = stub.Join(request, timeout=CALL_S)
            except grpc.RpcError as error:
                if _is_final(error):
                    raise NotAdmittedError(
                        f"{node_id} refuses: {error.details()}"
                    ) from None
                self._errors[node_id] = f"{node_id} ({address}): {error.details()}"
                return None
        return answer

    def _failure(self) -> str:
        errors = "; ".join(self._errors.values())
        return (
            "no member has admitted this node. Either no member can be reached, or they "
            "are overloaded, or none knows the ticket: it was replaced by a newer one, "
            "expired more than an hour ago, or belongs to another cluster. Check the "
            "network path to these ports and other traffic to them, or create a new "
            f"ticket: sparecode cluster ticket {self._ticket.node_id} HOST:PORT. "
            f"Last errors: {errors}"
        )


def _is_final(error: grpc.RpcError) -> bool:
    """Return whether every other member would answer the same."""
    missing = reason_of(error) == Reason.AUTHORITY_MISSING.name
    return error.code() not in _RETRIED and not missing
