# SPDX-License-Identifier: Apache-2.0
"""`JoiningService`, on the peers listener: admits callers with a ticket's certificate."""

import asyncio
import logging
from collections.abc import Callable

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from sparecode.internal.v1 import joining_pb2 as pb
from sparecode.internal.v1 import joining_pb2_grpc as pb_grpc
from sparecode_node.domain.ids import NodeId
from sparecode_node.replication.errors import ProposeError
from sparecode_node.replication.links.member_keys import MemberKeys, key_shown
from sparecode_node.replication.links.tls import caller
from sparecode_node.rpc.authority_calls import RelayedError
from sparecode_node.rpc.calls import time_left_s
from sparecode_node.rpc.errors import status_of
from sparecode_node.rpc.identity import Context
from sparecode_node.services.access.refusals import NOBODY, Refusals
from sparecode_node.services.access.security_log import CALL_REFUSED
from sparecode_node.services.cluster.joining import JOIN, Admissions, Joiner, JoinGrant
from sparecode_node.services.cluster.renewals import Renewals
from sparecode_node.services.error_table import Audience, answer_for
from sparecode_node.services.errors import InvalidFieldError, Refused
from sparecode_node.services.secrets.tickets import DOOR_URI, pem

log = logging.getLogger(__name__)

JOIN_MAX_S = 15.0


class JoiningServicer(pb_grpc.JoiningServiceServicer):
    """
    Admits nodes that join.

    The listener starts before the use case exists. Until `serve` is called, callers are
    asked to try again.
    """

    def __init__(
        self,
        read_certificates: Callable[[], tuple[bytes, ...]],
        refusals: Refusals,
        member_keys: MemberKeys | None = None,
    ) -> None:
        """*member_keys*: the keys that calling members must show (P5a); None: any."""
        self._member_keys = member_keys or MemberKeys()
        self._read_certificates = read_certificates
        self._refusals = refusals
        self._joining: Admissions | None = None
        self._renewals: Renewals | None = None
        self._certificates: tuple[bytes, ...] = ()
        self._pem = b""

    def serve(self, joining: Admissions, renewals: Renewals | None = None) -> None:
        """Answer calls with these use cases from now on."""
        self._joining = joining
        self._renewals = renewals

    def add_to(self, server: grpc.aio.Server) -> None:
        """Add the service."""
        pb_grpc.add_JoiningServiceServicer_to_server(self, server)

    def certificates_pem(self) -> bytes:
        """Return the certificates of all known tickets, PEM."""
        if self._joining is None:
            return b""  # The state is not open yet.
        try:
            certificates = self._read_certificates()
        except Exception:  # No error here may make a handshake fail.
            log.exception("tickets_unreadable")
            return self._pem
        if certificates != self._certificates:
            self._pem, self._certificates = pem(certificates), certificates
        return self._pem

    async def Join(self, request: pb.JoinRequest, context: Context) -> pb.JoinResponse:
        """Admit the node that the ticket is for, for itself or for a member."""
        certificate, member = _ticket_certificate(context), None
        if certificate is None and request.ticket_certificate:
            certificate = request.ticket_certificate
            member = self._member(context)
        joiner = Joiner(
            ticket_certificate=certificate or b"",
            request_id=request.request_id,
            address=request.address,
            certificate_request=request.certificate_request,
            certificate=request.certificate,
            hosts=tuple(request.hosts),
            ticket_signature=request.ticket_signature,
            passed_on_by=member,
        )
        if member and self._joining and not self._joining.passes_on(joiner, member):
            certificate = None
        if certificate is None or (request.ticket_certificate and member is None):
            # The caller is a member, or has another certificate of their authority.
            self._turned_away(context, "NOT_A_TICKET")
            self._refusals.record(JOIN, "not_a_ticket", NOBODY)
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, "joining requires a ticket"
            )
        if self._joining is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not ready yet; try again")
        timeout_s = min(time_left_s(context), JOIN_MAX_S)
        try:
            async with asyncio.timeout(timeout_s):
                return _response(await self._joining.admit(joiner, timeout_s=timeout_s))
        except RelayedError as error:
            await context.abort(error.code, error.details, error.metadata)
        except Exception as error:
            answer = answer_for(error, Audience.ADMINISTRATOR)
            if answer is None:
                log.exception("joining failed by a bug")
                await context.abort(grpc.StatusCode.INTERNAL, "internal error")
            if isinstance(error, InvalidFieldError):
                # It reaches no use case, so it has to be recorded here (U1).
                self._refusals.record(JOIN, answer.reason.lower(), NOBODY)
            if isinstance(error, InvalidFieldError | Refused):
                self._refusals.log.refused_call(
                    answer,
                    log,
                    {"method": JOIN, "caller": NOBODY},
                    peer=str(context.peer()),
                    is_stranger=True,
                )
            status = status_of(answer)
            await context.abort(status.code, status.details, status.trailing_metadata)
        raise AssertionError("abort has returned")

    async def RenewCertificate(
        self, request: pb.RenewCertificateRequest, context: Context
    ) -> pb.RenewCertificateResponse:
        """Sign a new certificate for the calling member."""
        member, renewals = self._member(context), self._renewals
        if renewals is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not ready yet; try again")
        if member is None or not renewals.is_member(member):
            self._turned_away(context, "NOT_A_MEMBER")
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, "only members renew certificates"
            )
        shown = next(iter(context.auth_context().get("x509_pem_cert", ())))
        try:
            certificate = await renewals.renew(
                member,
                shown,
                request.certificate_request,
                new_authority=request.new_authority,
                timeout_s=min(time_left_s(context), JOIN_MAX_S),
            )
        except (InvalidFieldError, ProposeError, Refused) as error:
            answer = answer_for(error, Audience.ADMINISTRATOR)
            if answer is None:
                raise
            status = status_of(answer)
            await context.abort(status.code, status.details, status.trailing_metadata)
        return pb.RenewCertificateResponse(certificate=certificate)

    def _member(self, context: Context) -> NodeId | None:
        """Return the member that calls, if it shows its key (P5a)."""
        shown = context.auth_context()
        member = caller(shown)
        if member is None or self._member_keys.accepts(member, key_shown(shown)):
            return member
        return None

    def _turned_away(self, context: Context, reason: str) -> None:
        self._refusals.log.note(
            CALL_REFUSED,
            method=JOIN,
            caller=NOBODY,
            peer=str(context.peer()),
            reason=reason,
        )


def _ticket_certificate(context: Context) -> bytes | None:
    """Return the caller's certificate (DER) if it belongs to a ticket."""
    certificates = list(context.auth_context().get("x509_pem_cert", ()))
    names = [
        name.decode()
        for name in context.auth_context().get("x509_subject_alternative_name", ())
    ]
    if len(certificates) != 1 or len(names) != 1 or not names[0].startswith(DOOR_URI):
        return None
    certificate = x509.load_pem_x509_certificate(certificates[0])
    return certificate.public_bytes(serialization.Encoding.DER)


def _response(admission: JoinGrant) -> pb.JoinResponse:
    return pb.JoinResponse(
        certificate=admission.certificate,
        members_ca=admission.members_ca,
        agents_ca=admission.agents_ca,
        sealed_secrets=admission.wrapped,
        members=[
            pb.JoinMember(node_id=NodeId(node_id), address=address)
            for node_id, address in admission.members
        ],
        cluster_id=admission.cluster_id,
    )
